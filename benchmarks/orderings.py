"""Which orderings of the papers on virtual networks hold in studies of methods.

python benchmarks/orderings.py STUDY ... [--json FILE] [--quick]

For every study a table of its methods' levels, then what the papers say of them: the difference of
test accuracies, the mean over tasks, seed by seed, with Student's 95 % interval (of sizes, in
hundredths of the whole network's multiply-accumulates). An ordering holds
where the interval is above 0, fails where it is below, and is open else. Studies are those of
`apportion train`, of the scenarios' reduced configs or of others with methods of these names.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from search.commands.train import train_methods
from search.config import parse_config
from search.report import by_level, difference, measure_of, of_compared_split
from search.stats import Estimate, paired_interval
from search.study import Study, chosen_points, method_points

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
    "DEN >= single networks": (("den", -1), ("single", -1)),
    "DEN >= NestedNet": (("den", -1), ("nested_net", -1)),
    "DEN >= PackNet+": (("den", -1), ("packnet_grouped", -1)),
    "DEN >= one network for all": (("den", -1), ("shared", -1)),
    "DEN >= routing": (("den", -1), ("routing", -1)),
    "DEN >= cross-stitch": (("den", -1), ("cross_stitch", -1)),
    "rho .1 >= rho 1": (("den", -1), ("den_small", -1)),
    "rho .1 >= rho .3": (("den", -1), ("den_middle", -1)),
    "rho .3 >= rho 1": (("den_middle", -1), ("den_small", -1)),
    "tau .75 at first >= uniform": (("den_middle", -1), ("den_uniform", -1)),
    "four levels >= two": (("den_middle", -1), ("den_two", -1)),
    "four levels >= five": (("den_middle", -1), ("den_five", -1)),
    "Auto-VirtualNet >= DEN": (("auto_virtualnet", -1), ("den", -1)),
    "Auto-VirtualNet >= one network for all": (("auto_virtualnet", -1), ("shared", -1)),
    "Auto-VirtualNet >= routing": (("auto_virtualnet", -1), ("routing", -1)),
    "Auto-VirtualNet >= cross-stitch": (("auto_virtualnet", -1), ("cross_stitch", -1)),
}
#: What is said to have fewer multiply-accumulates, and than what.
SMALLER = {
    "size falls from rho .1 to 1": (("den_small", -1), ("den", -1)),
    "size falls from rho .1 to .3": (("den_middle", -1), ("den", -1)),
    "size falls from rho .3 to 1": (("den_small", -1), ("den_middle", -1)),
}
#: What is said to be better, and than what, each network of the third held against the network of
#: the other method, for the same task, that has most nearly as many weights.
EQUAL = {
    "DVN >= NestedNet, task by task at equal weights": ("dvn", "nested_net", "nested_net"),
    "DVN >= PackNet+, task by task at equal weights": ("dvn", "packnet_grouped", "packnet_grouped"),
    "Auto-VirtualNet >= DVN, task by task at equal weights": (
        "auto_virtualnet", "dvn", "auto_virtualnet",
    ),
}  # fmt: skip


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
            points, chosen = method_points(study), chosen_points(study)
            print(f"## {study.name}\n")
            print_levels(points)
            if not chosen.empty:
                print_chosen(chosen)
            found[study.name] = [
                print_ordering(words, estimate) for words, estimate in orderings(points, chosen)
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
            "methods": {"shared": {}, "dvn": {}, "nested_net": {}, "auto_virtualnet": {}},
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


def print_chosen(chosen: pd.DataFrame) -> None:
    """A Markdown table of the levels that are chosen per image, means over tasks and seeds."""
    _, own = of_compared_split(chosen)
    numbers = ["chosen", "shuffled", "random", "macs", "selector_macs", "different"]
    print("| method | level | chosen | shuffled | random | MACs | selector's | structures |")
    print("|---|---|---|---|---|---|---|---|")
    for (method, level), row in (
        own.groupby(["method", "level"], sort=False)[numbers].mean().iterrows()
    ):
        print(
            f"| {method} | {level} | {row['chosen']:.3f} | {row['shuffled']:.3f} | "
            f"{row['random']:.3f} | {row['macs'] / 1e6:.3g}M | {row['selector_macs'] / 1e6:.2g}M | "
            f"{row['different']:.1f} |"
        )
    print()


def orderings(points: pd.DataFrame, chosen: pd.DataFrame) -> Iterator[tuple[str, Estimate]]:
    """What the papers say of the methods that there are, with the differences."""
    split = measure_of(points)
    methods = set(points["method"])
    for words, (better, worse) in ORDERINGS.items():
        if {better[0], worse[0]} <= methods:
            yield words, difference(points, better, worse, split)
    for words, (smaller, larger) in SMALLER.items():
        if {smaller[0], larger[0]} <= methods:
            yield words, smaller_by(points, smaller, larger)
    picked = set(zip(chosen["method"], chosen["level"], strict=True))
    selects = {method for method, _ in picked}
    is_meant = [  # of methods with a selector what it chooses, without the fixed levels
        method not in selects or (method, level) in picked
        for method, level in zip(points["method"], points["level"], strict=True)
    ]
    for words, (better_one, worse_one, held) in EQUAL.items():
        if {better_one, worse_one} <= methods:
            yield words, at_equal_weights(points[is_meant], better_one, worse_one, held, split)
    for method in sorted(selects):  # budgets, the highest last
        levels = sorted(level for name, level in picked if name == method)
        for low, high in pairwise(levels):
            words = f"{method}'s level {high} >= {low}"
            yield words, difference(points, (method, high), (method, low), split)
            smaller = smaller_by(points, (method, low), (method, high))
            yield f"{method}'s level {low} smaller than {high}", smaller
    _, own = of_compared_split(chosen)
    for (method, level), rows in own.groupby(["method", "level"], sort=False):
        by_seed = rows.groupby("seed")[["chosen", "shuffled", "random"]].mean()
        for other in ("random", "shuffled"):
            estimate = paired_interval(by_seed["chosen"].to_numpy(), by_seed[other].to_numpy())
            yield f"{method}, level {level}: chosen >= {other} at equal cost", estimate


def smaller_by(points: pd.DataFrame, smaller: tuple[str, int], larger: tuple[str, int]) -> Estimate:
    """How many multiply-accumulates less, as a share of the larger method's whole network."""
    found = difference(points, larger, smaller, "macs")
    own = points[points["method"] == larger[0]]
    whole = own.groupby("level")["macs"].mean().max()
    return Estimate(value=found.value / whole, low=found.low / whole, high=found.high / whole)


def at_equal_weights(
    points: pd.DataFrame, better: str, worse: str, held: str, split: str
) -> Estimate:
    """One method against another, each network of `held` against the nearest of the other."""
    differences: list[float] = []
    other = worse if held == better else better
    for _, own in points[points["method"] == held].groupby("seed"):
        seed = own["seed"].iloc[0]
        others = points[(points["method"] == other) & (points["seed"] == seed)]
        if others.empty:
            continue
        more = []
        for network in own.itertuples():
            of_task = others[others["task"] == network.task]
            nearest = (of_task["parameters"] - network.parameters).abs().idxmin()
            more.append(getattr(network, split) - of_task.loc[nearest, split])
        differences.append(sum(more) / len(more) * (1 if held == better else -1))
    return paired_interval(differences, [0.0] * len(differences))


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
