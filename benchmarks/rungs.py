"""What successive halving saves and loses, on recorded curves.

python benchmarks/rungs.py [--json FILE] [--quick] [--study PATH]

PATH is the folder of a study that was run with keep = 1 on all rungs, so that every rung of every
candidate was measured, or a file that --json wrote, which holds the curves. Without it a small
study of toy tasks is made: random candidates, rungs of an eighth, a quarter and half of the steps.

Every choice of one or two of the recorded rungs, keeps and bracket sizes is replayed. compute is
relative to scoring all candidates in full, in steps and in measured seconds; a promoted candidate
is scored anew from the start. hypervolume is relative to the front of all candidates scored in
full. Both are means over orders of asking: the recorded one (arm after arm) and 200 shuffled ones;
worst is the smallest hypervolume of them all. A star marks settings that save at least half of the
steps and lose at most 1 % of the hypervolume on the mean.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from search.candidates import Candidate
from search.candidates.rungs import replay
from search.study import Study

KEEPS = (0.25, 0.5)
BRACKETS = (8, 16, 32)
ORDERS = 200
QUICK = [
    "input_size=8", "backbone.args.width=4", "trunk.sgd.steps=60", "teachers.sgd.steps=60",
    "proxy.sgd.steps=96", "proxy.images=128", "candidates=32",
]  # fmt: skip


def curves(candidates: Sequence[Candidate], reference: tuple[float, float]) -> dict[str, Any]:
    """The candidates of which every rung was measured: N of them, R rungs.

    Returns:
        JSON: steps and seconds (R) with the median seconds of one scoring, quality (N, R), cost (N)
        and the hypervolume's reference point.

    Raises:
        ValueError: If there are no two rungs, or no candidate climbed them all.
    """
    most = max((len(candidate.rungs) for candidate in candidates), default=0)
    whole = [c for c in candidates if not c.failed and len(c.rungs) == most]
    if most < 2 or not whole:
        raise ValueError(
            "curves need a study with rungs and candidates that climbed them all, "
            f"got {len(candidates)} candidates with at most {most} rungs"
        )
    return {
        "steps": [rung.steps for rung in whole[0].rungs],
        "seconds": np.median([[rung.seconds for rung in c.rungs] for c in whole], axis=0).tolist(),
        "quality": [[rung.quality for rung in c.rungs] for c in whole],
        "cost": [c.cost for c in whole],
        "reference": list(reference),
    }


def table(recorded: dict[str, Any], orders: int) -> list[dict[str, Any]]:
    """A row for every choice of rungs, keeps and bracket size, the cheapest first."""
    quality_NR, cost_N = np.array(recorded["quality"]), np.array(recorded["cost"])
    steps_R, seconds_R = np.array(recorded["steps"]), np.array(recorded["seconds"])
    reference = (recorded["reference"][0], recorded["reference"][1])
    rng = np.random.default_rng(0)
    shuffled = [np.arange(len(cost_N)), *(rng.permutation(len(cost_N)) for _ in range(orders))]
    lower = range(len(steps_R) - 1)
    rows = []
    for chosen in [*combinations(lower, 1), *combinations(lower, 2)]:
        rungs = [*chosen, len(steps_R) - 1]
        for keeps, bracket in product(product(KEEPS, repeat=len(chosen)), BRACKETS):
            found = [
                replay(
                    quality_NR[order][:, rungs], cost_N[order], steps_R[rungs], keeps,
                    bracket=bracket, reference=reference,
                )
                for order in shuffled
            ]  # fmt: skip
            per_candidate = [np.cumsum(seconds_R[rungs])[f.reached_N].mean() for f in found]
            rows.append(
                {
                    "steps": steps_R[rungs].tolist(),
                    "keep": list(keeps),
                    "bracket": bracket,
                    "compute": float(np.mean([f.compute for f in found])),
                    "compute_seconds": float(np.mean(per_candidate) / seconds_R[-1]),
                    "hypervolume": float(np.mean([f.hypervolume for f in found])),
                    "worst": float(min(f.hypervolume for f in found)),
                    "n": len(cost_N),
                    "orders": len(found),
                }
            )
    return sorted(rows, key=lambda row: row["compute"])


def toy_study(folder: Path, *, quick: bool) -> Study:
    """A small study of which every rung is measured."""
    from search.commands.search import search
    from search.config import load_config

    steps = 96 if quick else 240
    rungs = ", ".join(f"{{steps: {steps // part}}}" for part in (8, 4, 2))
    config = load_config(
        "configs/quickstart.yaml",
        [
            f"output={folder}", "name=rungs", "strategies={random: {}}", "finish=null",
            "candidates=128", f"proxy.sgd.steps={steps}", f"rungs=[{rungs}]",
            *(QUICK if quick else []),
        ],
    )  # fmt: skip
    return search(config, console=Console(file=io.StringIO()))


def recorded_curves(path: Path | None, *, quick: bool) -> dict[str, Any]:
    """Curves of a study, of a file, or of a toy study."""
    if path is not None and path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())["curves"]
        return found
    if path is not None:
        study = Study(path)
        return curves(study.candidates(), study.reference())
    with tempfile.TemporaryDirectory() as folder:
        study = toy_study(Path(folder), quick=quick)
        return curves(study.candidates(), study.reference())


def main() -> None:
    """Print one line per setting; `--json` also writes them, and the curves, to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--quick", action="store_true", help="20 shuffled orders; a smaller toy study"
    )
    parser.add_argument("--study", type=Path, metavar="PATH")
    options = parser.parse_args()
    recorded = recorded_curves(options.study, quick=options.quick)
    rows = table(recorded, 20 if options.quick else ORDERS)
    print(f"{len(recorded['cost'])} candidates, rungs of {recorded['steps']} steps")
    for row in rows:
        good = row["compute"] <= 0.5 and row["hypervolume"] >= 0.99
        climb = "".join(
            f"{steps} ({keep:.0%}) -> "
            for steps, keep in zip(row["steps"][:-1], row["keep"], strict=True)
        )
        print(
            f"{'*' if good else ' '} {climb + str(row['steps'][-1]):34}  "
            f"bracket {row['bracket']:2}  compute {row['compute']:5.1%} of the steps, "
            f"{row['compute_seconds']:5.1%} of the seconds  hypervolume {row['hypervolume']:6.2%}, "
            f"worst {row['worst']:6.2%}"
        )
    if options.json:
        options.json.write_text(json.dumps({"curves": recorded, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
