"""A calibration's summary as tables on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from search.calibration.trust import MEAN_ACCURACY, MEAN_OVER_TASKS

#: What the second table shows of the proxy: heading and the name in the summary.
CLOSER = {
    "Spearman": "spearman",
    "Kendall": "kendall",
    "cheapest half": "pearson_cheapest_half",
    "best quarter": "pearson_best_quarter",
    "same cost": "banded",
    "given use": "partial",
}


def show_calibration(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what `trust.summarise` found: correlations, noise and the verdict."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    rows = [*summary["tasks"], MEAN_ACCURACY, MEAN_OVER_TASKS]
    stopped = {f"x{entry['multiple']:g}": entry for entry in summary["stopped"]}
    columns = {"proxy": summary["proxy"], **stopped}
    count = summary["candidates"]
    say(f"Pearson correlation with full training over {count} candidates, and 95 % interval")
    if stopped:
        say("x1 and so on: full training stopped after so many times the proxy's wall time")
    for name, entry in stopped.items():
        if entry["candidates"] < count:
            say(f"{name}: training lasted so long for {entry['candidates']} candidates only")
    table = _table(list(columns))
    for row in rows:
        table.add_row(row, *(_cell(found["pearson"][row]) for found in columns.values()))
    console.print(table)
    say("\nThe proxy more closely: rank correlations, then Pearson's among some candidates, within")
    say("narrow bands of cost, and of what use alone does not explain")
    table = _table(list(CLOSER))
    for row in rows:
        table.add_row(row, *(_cell(summary["proxy"][name][row]) for name in CLOSER.values()))
    console.print(table)
    if summary["trained_twice"]:
        say("\nFull training: standard deviation over candidates, and between seeds of one")
        say(f"({summary['trained_twice']} were trained twice); r that a perfect proxy would have")
        table = _table(["candidates", "seeds", "ratio", "best r"])
        for row, entry in summary["noise"].items():
            deviations = (entry["std"], entry["seed_std"])
            table.add_row(
                row,
                *("-" if value is None else f"{value:.4f}" for value in deviations),
                *(_number(entry[key]) for key in ("ratio", "ceiling")),
            )
        console.print(table)
    for entry in summary["failed"]:
        where = f"candidate {entry['index']}, seed {entry['seed']}"
        say(f"left out: {where}: {entry['error']}")
    say("\n" + summary["verdict"])


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _cell(estimate: Mapping[str, float | None]) -> str:
    """A value, and below it its interval."""
    low, high = (_number(estimate[key]) for key in ("low", "high"))
    return f"{_number(estimate['value'])}\n[dim]{low} {high}[/dim]"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    sign = "-" if value < 0 else ""
    return sign + f"{abs(value):.2f}".removeprefix("0")
