"""The labels of a task's splits -> indices into one list of classes.

Legend: N rows of a split.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.sources.base import DataError, RawSplit, RowArray
from trainers.data.sources.lookalikes import doubtful, likeness

Label = int | str

#: What pandas writes as text, and reads, where there is no label.
MISSING = (
    "", "nan", "NaN", "-nan", "-NaN", "NaT", "<NA>", "NA", "#NA", "N/A", "n/a", "#N/A", "#N/A N/A",
    "None", "NULL", "null", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)  # fmt: skip
#: Numbers that stand for "no label": -1, and what C makes of NaN in whole numbers.
NO_LABEL = {-1, -(2**31), -(2**63), 2**63}


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """The labels of all splits, numbered alike.

    Attributes:
        classes: names of the classes.
        labels: by split, int64 (N,), indices into `classes`.
        notes: what a user should know, such as names that were taken for one.
    """

    classes: tuple[str, ...]
    labels: dict[str, RowArray]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Column:
    """The labels of one split: row r has the label values[index[r]]."""

    raw: RawSplit
    values: list[Label]
    index: RowArray

    @property
    def is_text(self) -> bool:
        return isinstance(self.values[0], str)

    def replaced(self, values: Sequence[Label]) -> _Column:
        return _Column(raw=self.raw, values=list(values), index=self.index)


def as_labels(values: NDArray[Any]) -> NDArray[Any]:
    """Labels of any type of array as whole numbers or text.

    Args:
        values: (N,) integers, booleans, floats that are whole numbers, text, or bytes of UTF-8.

    Returns:
        (N,) int64, uint64 where one does not fit into int64, or text.

    Raises:
        ValueError: they are none of these; the text says what one row has.
    """
    kind = values.dtype.kind
    if kind == "u" and len(values) and values.max() > np.iinfo(np.int64).max:
        return values.astype(np.uint64)
    if kind in "biu":
        return values.astype(np.int64)
    if kind == "f":
        if len(missing := np.flatnonzero(np.isnan(values))):
            raise ValueError(f"row {missing[0]} has no label")
        broken = np.flatnonzero((values != np.rint(values)) | (np.abs(values) > 2.0**53))
        if len(broken):
            raise ValueError(
                f"labels must be whole numbers or text, row {broken[0]} has {values[broken[0]]} "
                f"({values.dtype})"
            )
        return values.astype(np.int64)
    if kind == "S":
        return as_text(np.char.decode(values, "utf-8").tolist())
    if kind == "U":
        return as_text(values.tolist())
    raise ValueError(f"labels must be whole numbers or text, got {values.dtype}")


def as_text(values: Sequence[str]) -> NDArray[np.str_]:
    """Labels that are text.

    Args:
        values: N of them.

    Returns:
        (N,)

    Raises:
        ValueError: one holds the character NUL, which NumPy drops at the end of a text.
    """
    row = next((row for row, value in enumerate(values) if "\0" in value), None)
    if row is not None:
        raise ValueError(
            f"row {row} has the label {values[row]!a}, whose character NUL nobody sees; remove it"
        )
    return np.array(values, dtype=np.str_)


def join_labels(parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The labels of the files of one split, one after another.

    Args:
        parts: by file, as `as_labels` gives them.

    Raises:
        ValueError: they are text in one file and numbers in another.
    """
    kinds = {array.dtype.kind: file for file, array in parts.items() if len(array)}
    if "U" in kinds and len(kinds) > 1:
        other = next(file for kind, file in kinds.items() if kind != "U")
        raise ValueError(
            f"labels are text in {kinds['U']} and whole numbers in {other}; make them one"
        )
    arrays = [array for array in parts.values() if len(array)] or list(parts.values())
    if {"i", "u"} <= set(kinds):  # NumPy would make floats of both
        whole = [int(value) for array in arrays for value in array]
        if min(whole) < 0:
            raise ValueError("labels are negative in one file and above 2^63 in another")
        return np.array(whole, dtype=np.uint64)
    return np.concatenate(arrays)


def encode_labels(task: str, splits: Mapping[str, RawSplit]) -> Encoded:
    """Checks the labels of all splits against each other and numbers the classes.

    Where the training split declares its classes they are taken as they are; else the classes are
    the distinct training labels in ascending order. Names that differ only in how Unicode composes
    a letter, or in blanks around them, are one. Where one split has numbers and another text, they
    are understood if the text is those numbers, or the names that are declared for them.

    Args:
        task: name of the task, for messages.
        splits: "train" and others.

    Raises:
        DataError: a split is empty, a label is missing, negative or beyond the declared classes,
            there is one class only, names look alike and are not, or a split's classes are not
            those of the training split.
    """
    for raw in splits.values():
        if not len(raw.labels):
            raise _error(task, raw, "a split must hold at least one image, this one is empty")
    named = {name for raw in splits.values() for name in raw.classes or ()}
    columns = {name: _clean(task, raw, named) for name, raw in splits.items()}
    declared = {
        name: None if raw.classes is None else tuple(map(_plain, raw.classes))
        for name, raw in splits.items()
    }
    _check_names(task, columns, declared)
    classes = declared["train"]
    columns = _understood(task, columns, declared)
    train = columns["train"]
    for name, column in columns.items():
        # The names first: out of range of other classes would be the wrong thing to mend.
        if None not in (classes, declared[name]) and classes != declared[name]:
            raise _unlike(task, column.raw, declared[name] or (), classes or ())
        _check_range(task, column, classes)
    if len(set(train.values)) < 2:
        raise _error(
            task,
            train.raw,
            f"there must be at least two classes, all {len(train.index)} training labels are "
            f"{train.values[0]}; check label_column",
        )
    known: list[Label] = sorted(set(train.values)) if classes is None else [*range(len(classes))]
    numbers = {label: number for number, label in enumerate(known)}
    labels = {}
    for name, column in columns.items():
        if unknown := sorted(set(column.values) - set(known)):
            raise _error(
                task,
                column.raw,
                f"every class must occur in the training split, {_listed(unknown)} does not; "
                f"its classes are {_listed(known)}",
            )
        labels[name] = np.array([numbers[v] for v in column.values], dtype=np.int64)[column.index]
    names = classes or tuple(map(str, known))
    notes = (*_spellings(splits), *doubtful(names))
    return Encoded(classes=names, labels=labels, notes=notes)


def _clean(task: str, raw: RawSplit, declared: Container[str]) -> _Column:
    """The distinct labels of a split, names that are the same made one."""
    distinct, index = np.unique(raw.labels, return_inverse=True)
    values: list[Label] = distinct.tolist()
    column = _Column(raw=raw, values=values, index=index.reshape(-1).astype(np.int64))
    if not column.is_text:
        return column
    cleaned = [_plain(str(value)) for value in values]
    missing = [k for k, text in enumerate(cleaned) if _is_missing(text, declared)]
    if missing:
        rows = np.flatnonzero(np.isin(column.index, missing))
        text = cleaned[column.index[rows[0]]]
        raise _error(
            task,
            raw,
            f"row {rows[0]} has no label, its text is {text if likeness(text) else 'empty'} "
            f"({len(rows)} such rows); give it one, or take it out; if that is the name of a "
            "class, rename the class, for example to 'none of them'",
        )
    return column.replaced(cleaned)


def _is_missing(text: str, declared: Container[str]) -> bool:
    """Whether a text says that there is no label, or nothing at all, and is no declared name."""
    return text not in declared and (text in MISSING or not likeness(text))


def _spellings(splits: Mapping[str, RawSplit]) -> list[str]:
    """Notes of names that are written in several ways, in all splits together."""
    found: dict[str, set[str]] = {}
    for raw in splits.values():
        texts = np.unique(raw.labels).tolist() if raw.labels.dtype.kind == "U" else []
        for text in (*texts, *(raw.classes or ())):
            found.setdefault(_plain(text), set()).add(text)
    return [
        f"class {name!r} is written in several ways, which were taken for one: "
        + ", ".join(map(ascii, sorted(ways)))
        for name, ways in sorted(found.items())
        if len(ways) > 1
    ]


def _understood(
    task: str, columns: Mapping[str, _Column], declared: Mapping[str, tuple[str, ...] | None]
) -> dict[str, _Column]:
    """All splits in the terms of the training split: all numbers, or all text."""
    found = dict(columns)
    for name, column in found.items():  # names of numbers that are declared beside the text
        names = declared[name] or declared["train"] or ()
        if column.is_text and set(column.values) <= set(names):
            found[name] = column.replaced([names.index(str(value)) for value in column.values])
    train = found["train"]
    if declared["train"] is None and train.is_text:
        for name, column in found.items():  # and the other way about
            names = declared[name] or ()
            if not column.is_text and set(column.values) <= set(range(len(names))):
                found[name] = column.replaced([names[int(value)] for value in column.values])
    if len({column.is_text for column in found.values()}) == 1:
        return found
    if not (declared["train"] and any(column.is_text for column in found.values())):
        numbers = {name: _numbers(column) for name, column in found.items()}
        if None not in numbers.values():
            return {name: column.replaced(numbers[name] or []) for name, column in found.items()}
    other = next(column for column in found.values() if column.is_text != train.is_text)
    raise _unlike(
        task, other.raw, other.values, declared["train"] or train.values,
        f"{_kind(other)} here and {_kind(train)} in {train.raw.where}; make them one type",
    )  # fmt: skip


def _numbers(column: _Column) -> list[int] | None:
    """Labels as whole numbers where that is what they are, even as text, and none is lost."""
    if not column.is_text:
        return [int(value) for value in column.values]
    texts = [str(value) for value in column.values]
    if not all(re.fullmatch(r"-?[0-9]{1,20}", text) for text in texts):
        return None
    numbers = [int(text) for text in texts]
    return numbers if len(set(numbers)) == len(numbers) else None


def _plain(name: str) -> str:
    """A name as it is meant: letters composed one way, no blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def _check_names(
    task: str, columns: Mapping[str, _Column], declared: Mapping[str, tuple[str, ...] | None]
) -> None:
    """Names that look alike must be the same, unless they are single letters, 'a' and 'A'."""
    seen: dict[str, tuple[str, RawSplit]] = {}
    for split, column in columns.items():
        names = declared[split]
        if names is not None and len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise _error(
                task,
                column.raw,
                f"the names of classes must differ, got {_listed(twice)} twice",
            )
        texts = [str(value) for value in column.values] if column.is_text else []
        for name in (*(names or ()), *texts):
            before, where = seen.setdefault(likeness(name), (name, column.raw))
            # Declared names of one split stand for numbers, which tell them apart.
            told_apart = where is column.raw and not column.is_text
            if name != before and not told_apart and max(len(name), len(before)) > 1:
                raise _error(
                    task,
                    column.raw,
                    f"the class {name!a} looks like {before!a} of {where.where} and is "
                    "another; give them one name if they are one class, and clearly different "
                    "ones if they are two",
                )


def _check_range(task: str, column: _Column, declared: Sequence[str] | None) -> None:
    """Numbers, also those that are kept as text, must be classes, and not stand for no label."""
    numbers = _numbers(column)
    if numbers is None or (column.is_text and declared is not None):
        return
    high = np.inf if declared is None else len(declared)
    # Where nothing is declared numbers may be hashes; but some stand for "no label".
    bad = [value in NO_LABEL if declared is None else not 0 <= value < high for value in numbers]
    rows = np.flatnonzero(np.array(bad)[column.index])
    if len(rows):
        value = numbers[column.index[rows[0]]]
        bounds = "0 or more" if declared is None else f"from 0 to {len(declared) - 1}"
        why = ", which is what NaN becomes" if value in NO_LABEL - {-1} else ""
        raise _error(
            task,
            column.raw,
            f"labels must be {bounds}, row {rows[0]} has {value}{why} ({len(rows)} such rows); "
            "where the test split carries no labels, set test to null"
            + ("; if that is a class, rename it, for example to minus_1" if column.is_text else ""),
        )


def _unlike(
    task: str, raw: RawSplit, found: Iterable[Any], expected: Iterable[Any], why: str = ""
) -> DataError:
    return _error(
        task,
        raw,
        "the classes must be those of the training split, "
        f"{_listed(list(expected))}, got {_listed(list(found))}" + (f": {why}" if why else ""),
    )


def _kind(column: _Column) -> str:
    return "text" if column.is_text else "whole numbers"


def _error(task: str, raw: RawSplit, message: str) -> DataError:
    return DataError(f"task {task!r}: {raw.where}: {message}")


def _listed(values: Sequence[Any], most: int = 8) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"
