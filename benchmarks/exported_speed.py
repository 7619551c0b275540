"""How fast exported networks are beside each other, in milliseconds of the processor for an image.

python benchmarks/exported_speed.py [FOLDER ...] [--batch N] [--rounds N] [--json FILE] [--quick]

A folder is what `apportion export` or `finish.export` wrote: a network for each task. The mean over
a folder's tasks is shown, and what it is of the first folder's; name one of share_all first.
Networks take turns, in an order drawn anew every round, on one thread.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from trainers.methods import ChosenPerImage
from trainers.networks import build_model


def main() -> None:
    """Print a line per folder; `--json` also writes them to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="images (16)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="turns of each (20)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="two turns of two tiny networks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if options.quick:
            options.rounds = 2
            options.folders += [tiny(Path(made), width) for width in (8, 4)]
        rows = measure(options.folders, options.batch, options.rounds)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


def tiny(folder: Path, width: int) -> Path:
    """A folder with a network of random weights."""
    path = folder / str(width) / "a" / "network.pt2"
    path.parent.mkdir(parents=True)
    model = build_model("resnet14", {"width": width})
    size = {0: torch.export.Dim("batch", min=1)}
    example = (torch.zeros(2, 3, 16, 16),)
    torch.export.save(torch.export.export(model, example, dynamic_shapes=(size,)), path)
    return path.parents[1]


def measure(folders: Sequence[Path], batch: int, rounds: int) -> list[dict[str, object]]:
    """Time all networks of the folders, and print a line per folder."""
    torch.set_num_threads(1)
    programs, images = {}, {}
    for folder in folders:
        for file in sorted(folder.glob("*/network.pt2")):
            exported = torch.export.load(file)
            example = exported.example_inputs[0][0]
            shape = (batch, *example.shape[1:])
            chosen = (file.parent / "selector.pt2").is_file()
            module = ChosenPerImage(file.parent) if chosen else exported.module()
            programs[folder, file.parent.name] = module
            images[folder] = torch.zeros(shape, dtype=example.dtype)
        if folder not in images:
            raise SystemExit(f"{folder} has no TASK/network.pt2")
    times: dict[tuple[Path, str], list[float]] = {key: [] for key in programs}
    rng = np.random.default_rng(0)
    keys = list(programs)
    with torch.no_grad():
        for turn in range(rounds + 1):
            for number in rng.permutation(len(keys)):
                started = time.process_time()
                programs[keys[number]](images[keys[number][0]])
                if turn:  # the first is to get warm
                    times[keys[number]].append(time.process_time() - started)
    rows: list[dict[str, object]] = []
    first = np.zeros(0)
    for folder in folders:
        tasks = [key for key in keys if key[0] == folder]
        # Of the same round, so that what else the machine does falls on both.
        turns = np.mean([times[key] for key in tasks], axis=0) * 1e3 / batch
        first = turns if folder == folders[0] else first
        low, middle, high = np.quantile(turns / first, (0.25, 0.5, 0.75))
        row = {"folder": str(folder), "ms": float(np.median(turns)), "ratio": float(middle)}
        rows.append({**row, "quartiles": [float(low), float(high)], "tasks": len(tasks)})
        print(f"{folder}: {row['ms']:.3f} ms, {middle:.2f} ({low:.2f} to {high:.2f}) of the first")
    return rows


if __name__ == "__main__":
    main()
