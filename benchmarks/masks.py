"""How long the step from P to masks takes, and how close the masks come, on random refined P.

python benchmarks/masks.py [--json FILE] [--quick]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from partitioning import SolverConfig, refine, solve

SIZES = ((3, 64), (5, 64), (9, 64), (9, 256))
TIME_LIMIT = 60.0


def measure(tasks: int, channels: int, repeats: int, rng: np.random.Generator) -> dict[str, Any]:
    """Solve for `repeats` random P of T tasks and C channels; one row of the table."""
    solutions = []
    for _ in range(repeats):
        raw = np.triu(rng.uniform(size=(tasks, tasks)))
        target = refine(raw + np.triu(raw, 1).T)
        solutions.append(solve(target, channels, SolverConfig(time_limit=TIME_LIMIT)))
    seconds = [solution.seconds for solution in solutions]
    return {
        "tasks": tasks,
        "channels": channels,
        "method": "exact",
        "deviation": float(np.mean([solution.deviation for solution in solutions])),
        "bound": float(np.mean([solution.bound for solution in solutions])),
        "gap": max(solution.gap for solution in solutions),
        "median_s": float(np.median(seconds)),
        "max_s": max(seconds),
        "n": repeats,
    }


def main() -> None:
    """Print one line per size; `--json` also writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="two P per size instead of ten")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for tasks, channels in SIZES:
        row = measure(tasks, channels, 2 if options.quick else 10, rng)
        rows.append(row)
        print(
            f"{tasks:2} tasks x {channels:4} channels: median {row['median_s']:.3f} s, worst "
            f"{row['max_s']:.3f} s, deviation {row['deviation']:.1f}, gap {row['gap']:.1%}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
