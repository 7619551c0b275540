"""Which orderings of the papers on virtual networks hold in studies of methods.

python benchmarks/orderings.py STUDY ... [--json FILE] [--quick]

For every study a table of its methods' levels, then what the papers say of them: the difference of
test accuracies, the mean over tasks, seed by seed, with Student's 95 % interval. An ordering holds
where the interval is above 0, fails where it is below, and is open else. Studies are those of
`apportion train`, of the scenarios' reduced configs or of others with methods of these names.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from search.commands.train import train_methods
from search.config import parse_config
from search.report import by_level, difference, measure_of
from search.stats import Estimate, paired_interval
from search.study import Study, method_points

#: What is said to be better, and than what: methods with levels (-1 is the highest).
ORDERINGS = {
    "sharing loses to single networks": (("single", -1), ("shared", -1)),
    "DVN's highest level >= NestedNet, as much stored": (("dvn", -1), ("nested_net", -1)),
    "DVN's highest level >= PackNet+, as much stored": (("dvn", -1), ("packnet_grouped", -1)),
    "DVN's highest level >= single networks": (("dvn", -1), ("single", -1)),
    "the rule's order >= random ones, highest level": (("dvn", -1), ("dvn_random", -1)),
    "the rule's order >= random ones, lowest level": (("dvn", 0), ("dvn_random", 0)),
    "the rule's order >= the searched, highest level": (("dvn", -1), ("dvn_searched", -1)),
    "the rule's order >= the searched, lowest level": (("dvn", 0), ("dvn_searched", 0)),
    "DVN's levels >= NestedNet for budgets, highest": (("dvn", -1), ("nested_net_budgets", -1)),
    "DVN's levels >= NestedNet for budgets, lowest": (("dvn", 0), ("nested_net_budgets", 0)),
    "sequential DVN, all units, >= LwF": (("dvn_sequential", -1), ("lwf", -1)),
    "sequential DVN, one unit, >= LwF": (("dvn_sequential", 0), ("lwf", -1)),
    "sequential DVN, all units, >= NestedNet": (("dvn_sequential", -1), ("nested_sequential", -1)),
    "LwF >= feature extraction": (("lwf", -1), ("feature_extraction", -1)),
    "DA-CNN >= feature extraction": (("da_cnn", -1), ("feature_extraction", -1)),
}
#: Likewise, where a task's network is held against the level that has as many weights.
EQUAL = {
    "DVN >= NestedNet, task by task at equal weights": ("dvn", "nested_net"),
    "DVN >= PackNet+, task by task at equal weights": ("dvn", "packnet_grouped"),
}


def main() -> int:
    """Print tables; `--json` also writes the orderings to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", type=Path, metavar="STUDY")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="a tiny study, trained first")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        studies = [Study(path) for path in options.studies]
        if options.quick:
            studies.append(train_methods(tiny(folder), say=lambda line: None))
        for study in studies:
            points = method_points(study)
            print(f"## {study.name}\n")
            print_levels(points)
            found[study.name] = [
                print_ordering(words, estimate) for words, estimate in orderings(points)
            ]
            print()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def tiny(folder: str) -> Any:
    """A study of seconds."""
    names = ("digits", "colours")
    return parse_config(
        {
            "name": "quick",
            "output": folder,
            "tasks": [{"name": name, "source": "toy", "limit": 60} for name in names],
            "input_size": 8,
            "backbone": {
                "model": "resnet14", "args": {"width": 8}, "partition": ["stage*"],
                "stream": True, "trunk": "train",
            },
            "train": {"sgd": {"steps": 4, "batch_size": 8}},
            "methods": {"shared": {}, "single": {}, "dvn": {}, "nested_net": {}},
            "seeds": [0, 1],
        }
    )  # fmt: skip


def print_levels(points: pd.DataFrame) -> None:
    """A Markdown table of every method's levels, and of every task's test accuracy."""
    split = measure_of(points)
    tasks = list(dict.fromkeys(points["task"]))
    print(f"| method | level | seeds | {split} | {' | '.join(tasks)} | MACs | weights | stored |")
    print("|---|---|---|---|" + "---|" * len(tasks) + "---|---|---|")
    own = points.groupby(["method", "level", "task"], sort=False)[split].mean()
    for row in by_level(points).itertuples():
        spread = "" if pd.isna(row.std) else f" ± {row.std:.3f}"
        each = (f"{own[row.method, row.level, task]:.3f}" for task in tasks)
        costs = (f"{value / 1e6:.3g}M" for value in (row.macs, row.parameters, row.stored))
        print(
            f"| {row.method} | {row.level} | {row.seeds} | {getattr(row, split):.3f}{spread} | "
            f"{' | '.join(each)} | {' | '.join(costs)} |"
        )
    print()


def orderings(points: pd.DataFrame) -> Iterator[tuple[str, Estimate]]:
    """What the papers say of the methods that there are, with the differences."""
    split = measure_of(points)
    methods = set(points["method"])
    for words, (better, worse) in ORDERINGS.items():
        if {better[0], worse[0]} <= methods:
            yield words, difference(points, better, worse, split)
    for words, (levels, one) in EQUAL.items():
        if {levels, one} <= methods:
            yield words, at_equal_weights(points, levels, one, split)


def at_equal_weights(points: pd.DataFrame, levels: str, one: str, split: str) -> Estimate:
    """A method of several levels against one, at each task's level with as many weights."""
    ours, theirs = [], []
    for _, own in points[points["method"] == one].groupby("seed"):
        seed = own["seed"].iloc[0]
        all_levels = points[(points["method"] == levels) & (points["seed"] == seed)]
        if all_levels.empty:
            continue
        pairs = []
        for network in own.itertuples():
            task = all_levels[all_levels["task"] == network.task]
            nearest = (task["parameters"] - network.parameters).abs().idxmin()
            pairs.append((task.loc[nearest, split], getattr(network, split)))
        a, b = zip(*pairs, strict=True)
        ours.append(sum(a) / len(a))
        theirs.append(sum(b) / len(b))
    return paired_interval(ours, theirs)


def print_ordering(words: str, found: Estimate) -> dict[str, Any]:
    """A line about an ordering; returns it for a file."""
    verdict = "open"
    if found.low > 0:
        verdict = "holds"
    elif found.high < 0:
        verdict = "fails"
    interval = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    if math.isnan(found.low):
        interval = "(one seed)"
    print(f"- {words}: {verdict}, {100 * found.value:+.1f} points {interval}")
    return {"ordering": words, "verdict": verdict, **vars(found)}


if __name__ == "__main__":
    sys.exit(main())
