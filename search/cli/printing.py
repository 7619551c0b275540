"""What is printed of trainings."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from search.report import by_level, compared_split
from search.study import Study, TrainedPick, Tried, method_points

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd


def print_trained(trained: TrainedPick) -> None:
    """Print a line per split: the mean accuracy, and how much it differs from seed to seed."""
    seeds = len(trained.accuracy)
    for split, mean in trained.mean.items():
        std = trained.std[split]
        deviation = "" if math.isnan(std) else f" +- {std:.4f} (standard deviation)"
        print(f"{trained.candidate}: {split} {mean:.4f}{deviation}, {seeds} seeds")


def print_tried(tried: Sequence[Tried], console: Console) -> None:
    """Print all trained candidates against sharing every channel, where there is more than one."""
    if len(tried) < 2:
        return
    seeds = f"{tried[0].split} accuracy, all {len(tried)} candidates that were trained in full"
    table = Table(title=seeds, title_justify="left", box=None, pad_edge=False)
    for name in ("candidate", "seeds", "mean", "std", "over share_all", "p", "adjusted"):
        table.add_column(name, justify="right" if name != "candidate" else "left", no_wrap=True)
    for entry in tried:
        values = (entry.mean, entry.std, entry.difference, entry.p, entry.p_adjusted)
        cells = ["-" if math.isnan(value) else f"{value:.4f}" for value in values]
        table.add_row(entry.candidate, str(entry.seeds), *cells)
    console.print(table)
    print("p: Welch's t-test over seeds against share_all; adjusted by Holm's method over all")


def print_standing(table: "pd.DataFrame", console: Console) -> None:
    """Print what picks reach beside what they are held against, the mean over tasks and its costs.

    Args:
        table: As `search.report.standing` gives it.
        console: Where to.
    """
    split = compared_split(table)
    shown = Table(
        title=f"mean {split} accuracy over tasks; Delta_m: relative to single-task networks, %",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("row", overflow="fold")
    for name in ("seeds", "mean", "std", "Delta_m", "use", "weights", "stored", "MACs"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in table[table["split"] == split].to_dict("records"):
        cells = [
            f"{row['mean']:.4f}",
            "-" if math.isnan(row["mean_std"]) else f"{row['mean_std']:.4f}",
        ]
        cells += [f"{row['delta_m']:+.1f}", f"{row['use']:.2f}"]
        cells += map(_short, (row["parameters"], row["stored"], row["macs"]))
        shown.add_row(row["row"], str(row["seeds"]), *cells)
    console.print(shown)


def print_methods(study: Study, console: Console) -> None:
    """Print what every level of every method reaches, the mean over tasks, and what it costs."""
    points = method_points(study)
    if points.empty:
        return
    table = Table(
        title="mean accuracy over tasks, and a network's mean costs; stored: weights that the "
        "method keeps for all",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", overflow="fold")
    names = ("level", "seeds", "validation", "test", "std", "MACs", "weights", "stored")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in by_level(points).itertuples():
        accuracies = (row.validation, row.test, row.std)
        cells = ["-" if math.isnan(value) else f"{value:.3f}" for value in accuracies]
        costs = map(_short, (row.macs, row.parameters, row.stored))
        table.add_row(row.method, str(row.level), str(row.seeds), *cells, *costs)
    console.print(table)
    print(f"every network: {study.folder / 'methods.csv'}; picture: methods.png beside it")


def _short(count: float) -> str:
    """A number in thousands or millions, with three digits or more."""
    return f"{count / 1e6:.3g}M" if count >= 999_500 else f"{count / 1e3:.3g}k"
