"""Which of a dataset's classes make up a task, and which of them are one class of it.

Legend: N rows of a split, M those of the task's classes.
"""

from __future__ import annotations

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
    first, stop = task.classes or (0, count)
    if stop > count:
        raise _error(
            task,
            f"the dataset has {count} classes, so that classes must be within [0, {count}], got "
            f"[{first}, {stop}]",
        )
    starts = range(first, stop, task.merge)
    if len(starts) < 2:
        raise _error(
            task, f"merge must leave at least two classes of {stop - first}, got {task.merge}"
        )
    ends = [(start, min(start + task.merge, stop) - 1) for start in starts]
    names = tuple(_merged(encoded.classes[low], encoded.classes[high]) for low, high in ends)
    rows = {
        split: np.flatnonzero((first <= labels) & (labels < stop))
        for split, labels in encoded.labels.items()
    }
    labels = {split: (encoded.labels[split][rows[split]] - first) // task.merge for split in rows}
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
        notes.append(f"classes {first} to {stop - 1} of {count}")
    if task.merge > 1:
        notes.append(f"{stop - first} classes merged into {len(names)}")
    return Chosen(classes=names, rows=rows, labels=labels, notes=tuple(notes))


def _merged(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _error(task: TaskConfig, message: str) -> DataError:
    return DataError(f"task {task.name!r}: {message}")
