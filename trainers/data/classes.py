"""Which of a dataset's classes make up a task, and which of them are one class of it.

Legend: N rows of a split, M those of the task's classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from partitioning import IntArray
from trainers.data.config import TaskConfig
from trainers.data.sources.base import DataError, some
from trainers.data.sources.labels import Encoded


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """The images of a task's classes, numbered as the task has them.

    Attributes:
        classes: names of the task's classes.
        rows: by split, int64 (M,), ascending: which of its N rows these are.
        labels: by split, int64 (M,), indices into `classes`.
        notes: what a user should know.
    """

    classes: tuple[str, ...]
    rows: dict[str, IntArray]
    labels: dict[str, IntArray]
    notes: tuple[str, ...]


def choose_classes(task: TaskConfig, encoded: Encoded) -> Chosen:
    """Leaves out images of classes that are not the task's, and merges those that are one.

    Args:
        task: `classes` and `merge` say which.
        encoded: all classes of the dataset, and the labels of all images.

    Raises:
        DataError: the dataset has not so many classes, fewer than two are left or have training
            images, or a split has no image of them.
    """
    count = len(encoded.classes)
    taken = _taken(task, encoded.classes)
    merged = [taken[start : start + task.merge] for start in range(0, len(taken), task.merge)]
    if len(merged) < 2:
        raise _error(
            task, f"merge must leave at least two classes of {len(taken)}, got {task.merge}"
        )
    names = tuple(_merged(encoded.classes[each[0]], encoded.classes[each[-1]]) for each in merged)
    label_of = np.full(count, -1, dtype=np.int64)
    for label, each in enumerate(merged):
        label_of[each] = label
    rows = {split: np.flatnonzero(label_of[found] >= 0) for split, found in encoded.labels.items()}
    labels = {split: label_of[encoded.labels[split][rows[split]]] for split in rows}
    if empty := [split for split, found in labels.items() if not len(found)]:
        raise _error(
            task, f"{' and '.join(empty)} must have an image of its classes ({some(names)})"
        )
    present = np.unique(labels["train"])
    if len(present) < 2:
        raise _error(
            task,
            "at least two of its classes must have training images, all "
            f"{len(labels['train'])} are of {names[present[0]]}; set classes or merge to others",
        )
    notes = []
    if task.classes is not None:
        notes.append(f"classes {taken[0]} to {taken[-1]} of {count}")
    if task.only is not None:
        notes.append(f"{len(taken)} of {count} classes")
    if task.merge > 1:
        notes.append(f"{len(taken)} classes merged into {len(names)}")
    return Chosen(classes=names, rows=rows, labels=labels, notes=tuple(notes))


def _taken(task: TaskConfig, classes: Sequence[str]) -> list[int]:
    """Which of a dataset's classes are the task's, in its order."""
    if task.only is None:
        first, stop = task.classes or (0, len(classes))
        if stop > len(classes):
            raise _error(
                task,
                f"the dataset has {len(classes)} classes, so that classes must be within "
                f"[0, {len(classes)}], got [{first}, {stop}]",
            )
        return list(range(first, stop))
    if absent := [name for name in task.only if name not in classes]:
        near = difflib.get_close_matches(absent[0], classes, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {some(tuple(classes))}"
        raise _error(task, f"only: the dataset has no class {absent[0]!r}{hint}")
    return [classes.index(name) for name in task.only]


def _merged(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _error(task: TaskConfig, message: str) -> DataError:
    return DataError(f"task {task.name!r}: {message}")
