"""A calibration's summary as tables on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from search.calibration.summary import KNOWN
from search.calibration.verdict import MEAN_ACCURACY, MEAN_OVER_TASKS

#: Headings, and what is below each: estimates by row.
Columns = list[tuple[str, Mapping[str, Any]]]

#: Among which candidates Pearson's correlation is shown, beside what costs alone reach there.
AMONG = {
    "cheapest half": "pearson_cheapest_half",
    "best quarter": "pearson_best_quarter",
    "same cost": "banded",
}
#: What decides a search, as headings.
DECISIONS = {
    "ndcg": "nDCG of the top",
    "regret": "regret of the pick",
    "regret_same_cost": "at equal cost",
}


def show_calibration(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what `summarise` found: correlations, decisions, noise and the verdict."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    stopped = {f"x{entry['multiple']:g}": entry for entry in summary["stopped"]}
    known = {f"{cost} alone": summary[cost] for cost in KNOWN}
    columns = {"proxy": summary["proxy"], **known, **stopped}
    count = summary["candidates"]
    say(f"Agreement with full training over {count} candidates, and 95 % intervals. Use alone and")
    say("parameters alone: a task's own predict the task, their mean the mean accuracy")
    if stopped:
        say("x1 and so on: full training stopped after so many times the proxy's wall time")
    for name, entry in stopped.items():
        if entry["candidates"] < count:
            say(f"{name}: training lasted so long for {entry['candidates']} candidates only")
    for statistic in ("pearson", "spearman", "kendall"):
        say(f"\n{statistic.capitalize()} correlation")
        console.print(_correlations(summary, [(k, v[statistic]) for k, v in columns.items()]))
    say("\nPearson given use: the mean accuracy given mean use, a task given mean use and its own;")
    say("the verdict is by the lower ends of the first column in the last two rows")
    console.print(_correlations(summary, _given_use(summary, stopped)))
    say("\nThe proxy more closely: Pearson's correlation among some candidates and within narrow")
    say("bands of cost, each beside what use alone and parameters alone reach there")
    console.print(_correlations(summary, _among(summary)))
    say("\nWhat decides a search: how good the first quarter of a ranking is (1 at best), and how")
    say("much mean accuracy its first pick loses, of all candidates and within bands of cost")
    console.print(_decisions(summary))
    if summary["trained_twice"]:
        say("\nFull training: standard deviation over candidates, and between seeds of one")
        say(f"({summary['trained_twice']} were trained twice); r that a perfect proxy would have")
        console.print(_noise(summary))
    for entry in summary["failed"]:
        where = f"candidate {entry['index']}, seed {entry['seed']}"
        say(f"left out: {where}: {entry['error']}")
    say("\n" + summary["verdict"])


def _given_use(summary: Mapping[str, Any], stopped: Mapping[str, Mapping[str, Any]]) -> Columns:
    return [
        ("proxy", summary["proxy"]["partial"]),
        ("its ranks", summary["proxy"]["partial_rank"]),
        ("parameters", summary["parameters"]["partial"]),
        *((name, entry["partial"]) for name, entry in stopped.items()),
    ]


def _among(summary: Mapping[str, Any]) -> Columns:
    columns = []
    for heading, name in AMONG.items():
        columns.append((heading, summary["proxy"][name]))
        columns += [(cost, summary[cost][name]) for cost in KNOWN]
    return columns


def _correlations(summary: Mapping[str, Any], columns: Columns) -> Table:
    """A row for each task and the means."""
    table = _table([heading for heading, _ in columns])
    for row in (*summary["tasks"], MEAN_ACCURACY, MEAN_OVER_TASKS):
        table.add_row(row, *(_cell(found[row]) for _, found in columns))
    return table


def _decisions(summary: Mapping[str, Any]) -> Table:
    table = _table(list(DECISIONS.values()))
    for name, found in summary["decisions"].items():
        losses = (found[key] for key in DECISIONS if key != "ndcg")
        row = name if name == "proxy" else f"{name} alone"
        table.add_row(row, _number(found["ndcg"]), *map(_loss, losses))
    return table


def _noise(summary: Mapping[str, Any]) -> Table:
    table = _table(["candidates", "seeds", "ratio", "best r"])
    for row, entry in summary["noise"].items():
        deviations = (entry["std"], entry["seed_std"])
        table.add_row(
            row, *map(_loss, deviations), *(_number(entry[key]) for key in ("ratio", "ceiling"))
        )
    return table


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


def _loss(value: float | None) -> str:
    """An accuracy's difference."""
    return "-" if value is None else f"{value:.4f}"
