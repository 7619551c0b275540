"""A study's front as a terminal shows it: what its members are, and what was made of them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.candidates import Candidate, describe, front, picks_of
from search.study import Say, Study, read_exports

logger = logging.getLogger(__name__)

#: What a candidate may be marked with, and how that is shortened.
MARKS = {"knee": "K", "best": "B", "trained": "T", "exported": "E"}
#: Columns that a task's name is shortened to, one after the other, where there is no room.
SHORTER = (99, 12, 8, 6, 5)


def print_front(study: Study, console: Console) -> None:
    """Print a study's front as a table, as much of it as there is room for, and what its picks are.

    Args:
        study: The study.
        console: Where to.
    """
    candidates = study.candidates()
    summary = study.summary()
    marks = marks_of(study, candidates)
    repeated = f" ({summary['repeated']} of a design scored already)" * bool(summary["repeated"])
    console.print(
        f"{len(summary['front'])} of {summary['candidates']} candidates{repeated} on the front, "
        f"hypervolume {summary['hypervolume']:.4f}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    layout = _fitting(summary["front"], marks, console.width)
    if layout.rows:
        console.print(_table(layout))
    for line in _notes(layout, summary, candidates, marks):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def marks_of(study: Study, candidates: Sequence[Candidate]) -> dict[str, list[str]]:
    """By candidate: which of `MARKS` hold, in that order; those of which none does are left out.

    Args:
        study: Whose folder says what was trained and exported.
        candidates: All of the study.
    """
    picked = picks_of(candidates)
    exported = _exported(study.folder)
    marks: dict[str, list[str]] = {}
    for candidate in candidates:
        trained = study.folder / "trained" / candidate.id
        holds = {
            **{name: candidate.id == one.id for name, one in picked.items()},
            "trained": any(trained.glob("*/seed*.json")),
            "exported": candidate.id in exported,
        }
        if own := [name for name, is_so in holds.items() if is_so]:
            marks[candidate.id] = own
    return marks


def fixed_picks(candidates: Sequence[Candidate], marks: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for knee and best each that is a fixed baseline.

    Args:
        candidates: All of the study.
        marks: As `marks_of` gives them.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    return [
        _fixed(name, by_id[one])
        for name in ("knee", "best")
        for one, own in marks.items()
        if name in own and by_id[one].label
    ]


def say_fixed(study: Study, picks: Sequence[str], say: Say) -> None:
    """Say of each pick that is not a name, and still comes to a fixed baseline, that it does.

    Args:
        study: The study.
        picks: What `Study.pick` takes.
        say: Called with a line.

    Raises:
        StudyError: There is no such candidate.
    """
    for pick in picks:
        if pick.partition("@")[0] in ("knee", "best") and (candidate := study.pick(pick)).label:
            say(_fixed(pick, candidate))


def _fixed(pick: str, candidate: Candidate) -> str:
    """That a pick has not been found by a strategy."""
    return (
        f"{pick} is the baseline {candidate.label} ({candidate.id}), which no strategy had to find"
    )


def _exported(folder: Path) -> set[str]:
    """Candidates of which the study's folder, or its list of exports, has networks."""
    found = {path.name for path in (folder / "exported").glob("*/")}
    return found | {one["candidate"] for one in read_exports(folder, logger.warning)}


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """A front's table in so many columns.

    Attributes:
        heads: Of the columns.
        rows: Their texts.
        has_tasks: Whether every task's accuracy is among them.
        has_letters: Whether marks are letters.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    has_tasks: bool
    has_letters: bool

    @property
    def width(self) -> int:
        """Columns of the terminal that it takes."""
        columns = zip(self.heads, *self.rows, strict=True)
        return sum(max(map(len, column)) + 2 for column in columns) - 2


def _fitting(
    members: Sequence[Mapping[str, Any]], marks: Mapping[str, Sequence[str]], width: int
) -> _Layout:
    """The fullest layout that fits: other costs go first, names are shortened, tasks go last."""
    tried = [(True, "both", False, SHORTER[0]), (False, "both", False, SHORTER[0])]
    tried += [(False, "label", False, SHORTER[0]), (False, "label", True, SHORTER[0])]
    tried += [(False, "label", True, letters) for letters in SHORTER[1:]]
    for costs, names, letters, longest in tried:
        layout = _layout(members, marks, costs, names, letters, longest)
        if layout.width <= width:
            return layout
    return _layout(members, marks, False, "label", True, 0)


def _layout(
    members: Sequence[Mapping[str, Any]],
    marks: Mapping[str, Sequence[str]],
    costs: bool,
    names: str,
    letters: bool,
    longest: int,
) -> _Layout:
    """A layout.

    Args:
        members: Of the front, as `Study.summary` gives them.
        marks: By candidate.
        costs: Show all costs.
        names: "both" the candidate's name and a baseline's, or the "label" in its place.
        letters: Show marks as letters.
        longest: Letters of a task's name; 0 leaves tasks out.
    """
    if not members:
        return _Layout(heads=(), rows=(), has_tasks=True, has_letters=False)
    labelled = names == "both" and any(member["label"] for member in members)
    marked = any(member["candidate"] in marks for member in members)
    others = list(members[0]["costs"]) if costs else []
    tasks = list(dict.fromkeys(task for member in members for task in member["accuracy"]))
    heads = ["candidate", *(["baseline"] if labelled else []), *([""] if marked else [])]
    heads += ["quality", "cost", *others]
    heads += shortened(tasks, longest) if longest else []
    rows = []
    for member in members:
        own = marks.get(member["candidate"], [])
        label = member["label"] or ""
        shown = label if names == "label" and label else member["candidate"]
        row = [shown, *([label] if labelled else [])]
        if marked:
            row.append("".join(MARKS[m] for m in own) if letters else " ".join(own))
        values = [member["quality"], member["cost"], *(member["costs"].get(o) for o in others)]
        values += [member["accuracy"].get(task) for task in tasks] if longest else []
        rows.append(row + ["" if value is None else f"{value:.3f}" for value in values])
    return _Layout(
        heads=heads,
        rows=rows,
        has_tasks=bool(longest),
        has_letters=letters and marked,
    )


def shortened(names: Sequence[str], longest: int) -> list[str]:
    """Names of at most so many letters, whose ends are kept where their beginnings are alike.

    Example:
        >>> shortened(["cifar10", "cifar100", "omniglot"], 6)
        ['cif…10', 'cif…00', 'omnig…']
    """
    found = []
    for name in names:
        short = name if len(name) <= longest else f"{name[: longest - 1]}…"
        alike = [other for other in names if other[: longest - 1] == name[: longest - 1]]
        if len(name) > longest and len(alike) > 1:
            short = f"{name[: longest - 3]}…{name[-2:]}"
        found.append(short)
    return found


def _table(layout: _Layout) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    numbers = layout.heads.index("quality")
    for index, head in enumerate(layout.heads):
        table.add_column(head, justify="left" if index < numbers else "right", no_wrap=True)
    for row in layout.rows:
        table.add_row(*row)
    return table


def _notes(
    layout: _Layout,
    summary: Mapping[str, Any],
    candidates: Sequence[Candidate],
    marks: Mapping[str, Sequence[str]],
) -> list[str]:
    """What is said below the table."""
    notes = fixed_picks(candidates, marks)
    off = {one for one in marks if one not in {member.id for member in front(candidates)}}
    for name in ("trained", "exported"):
        if others := [one for one in marks if one in off and name in marks[one]]:
            notes.append(f"{name}, but not on the front: {', '.join(others)}")
    if layout.has_letters:
        notes.append(", ".join(f"{letter} {name}" for name, letter in MARKS.items()))
    if layout.rows and not layout.has_tasks:
        notes.append(
            "accuracy per task: a wider terminal, --json, or front.csv in the study's folder"
        )
    if summary["evaluators"]:
        notes.append(describe(summary["evaluators"]))
    return notes
