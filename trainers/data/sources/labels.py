"""The labels of a task's splits -> indices into one list of classes; choosing rows by class.

Legend: N rows of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.sources.base import DataError, RawSplit, RowArray


def encode_labels(
    task: str, splits: Mapping[str, RawSplit]
) -> tuple[tuple[str, ...], dict[str, RowArray]]:
    """Checks the labels of all splits against each other and numbers the classes.

    Where the training split declares its classes they are taken as they are; else the classes are
    the distinct training labels in ascending order.

    Args:
        task: name of the task, for messages.
        splits: "train" and others.

    Returns:
        names of the classes, and for each split int64 (N,) indices into them.

    Raises:
        DataError: a split is empty, a label is negative or beyond the declared classes, there is
            one class only, or a split's classes are not those of the training split.
    """
    train = splits["train"]
    for raw in splits.values():
        if not len(raw.labels):
            raise _error(task, raw, "a split must hold at least one image, this one is empty")
    distinct = np.unique(train.labels)
    declared = train.classes
    for raw in splits.values():
        # The names first: out of range of other classes would be the wrong thing to mend.
        _check_same_classes(task, raw, train)
        _check_range(task, raw, declared)
    if len(distinct) < 2:
        raise _error(
            task,
            train,
            f"there must be at least two classes, all {len(train.labels)} training labels are "
            f"{distinct[0]}; check label_column",
        )
    if declared is not None:
        return declared, {name: raw.labels.astype(np.int64) for name, raw in splits.items()}
    encoded = {}
    for name, raw in splits.items():
        if len(unknown := np.setdiff1d(raw.labels, distinct)):
            raise _error(
                task,
                raw,
                f"every class must occur in the training split, {_listed(unknown)} does not; "
                f"its classes are {_listed(distinct)}",
            )
        encoded[name] = np.searchsorted(distinct, raw.labels).astype(np.int64)
    return tuple(str(label) for label in distinct), encoded


def stratified(labels: RowArray, count: int, rng: np.random.Generator) -> RowArray:
    """Chooses rows at random so that each class keeps its share.

    Args:
        labels: int64 (N,).
        count: at least the number of classes, at most N.
        rng: decides which rows of a class.

    Returns:
        int64 (count,), ascending; every class is among them.
    """
    shuffled = rng.permutation(len(labels))
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        quantile[rows] = np.arange(len(rows)) / len(rows)  # a first row of 0 keeps every class
    ranked = shuffled[np.argsort(quantile[shuffled], kind="stable")]
    return np.sort(ranked[:count]).astype(np.int64)


def _check_same_classes(task: str, raw: RawSplit, train: RawSplit) -> None:
    same_kind = raw.labels.dtype.kind == train.labels.dtype.kind
    if same_kind and (None in (raw.classes, train.classes) or raw.classes == train.classes):
        return
    raise _error(
        task,
        raw,
        "the classes must be those of the training split, "
        f"{_listed(train.classes or np.unique(train.labels))}, got "
        f"{_listed(raw.classes or np.unique(raw.labels))}",
    )


def _check_range(task: str, raw: RawSplit, declared: Sequence[str] | None) -> None:
    if raw.labels.dtype.kind != "i":
        return
    high = np.inf if declared is None else len(declared)
    wrong = np.flatnonzero((raw.labels < 0) | (raw.labels >= high))
    if len(wrong):
        bounds = "0 or more" if declared is None else f"from 0 to {len(declared) - 1}"
        raise _error(
            task,
            raw,
            f"labels must be {bounds}, row {wrong[0]} has {raw.labels[wrong[0]]} "
            f"({len(wrong)} such rows); where the test split carries no labels, set test to null",
        )


def _error(task: str, raw: RawSplit, message: str) -> DataError:
    return DataError(f"task {task!r}: {raw.where}: {message}")


def _listed(values: Sequence[str] | NDArray[Any], most: int = 8) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"
