"""What a source is asked for, what it answers, and how it complains.

Legend: N images of a split, S the input size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ByteArray = NDArray[np.uint8]
RowArray = NDArray[np.int64]

#: An image as a source has it: encoded in bytes or in a file, or an array (H, W) or (H, W, 3) of
#: numbers; None where the source has none, which is an error once it is decoded.
Picture = bytes | Path | NDArray[Any] | None
#: Images one after another, each with where it is, for messages.
Pictures = Iterable[tuple[str, Picture]]


def some(names: Sequence[str], most: int = 8) -> str:
    """The first names of a list, for people, and dots where there are more.

    >>> some(["a", "b", "c"], most=2)
    'a, b, ...'
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


class DataError(ValueError):
    """A task's data is missing or is not what the config says; names the task and the file."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One split of one task, asked of a source.

    Attributes:
        task: name of the task, for messages.
        path: folder, file, Hub dataset id or toy task; the task's name where the config has none.
        root: folder that relative paths start from, None for the working directory.
        subset: the Hub's configuration name.
        image_column: column that holds the images (parquet, hub).
        label_column: column that holds the labels (parquet, hub).
        split: the source's own name of the split.
        seed: seed of what is drawn (toy).
    """

    task: str
    path: str
    split: str
    root: Path | None = None
    subset: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    seed: int = 0

    @property
    def location(self) -> Path:
        """The path below the root."""
        path = Path(self.path).expanduser()
        return path if self.root is None else self.root.expanduser() / path

    def error(self, message: str) -> DataError:
        """A DataError that names the task."""
        return DataError(f"task {self.task!r}: {message}")

    def folder(self) -> Path:
        """The location, which must be a folder.

        Raises:
            DataError: where there is none.
        """
        if self.location.is_file():
            raise self.error(
                f"{self.location} is a file, where a folder of splits is looked for; set the "
                "task's path, or its source"
            )
        if not self.location.is_dir():
            raise self.error(
                f"folder {self.location} does not exist; set the task's path, or the folder that "
                "holds the datasets"
            )
        return self.location

    def missing_split(self, absent: Path, found: Iterable[str], hint: str = "") -> DataError:
        """The error for a split that is not there; the hint says what else would be read."""
        listed = ", ".join(sorted(found)) or "nothing of the kind"
        return self.error(
            f"split {self.split!r} is missing: there is no {absent}; found {listed}; set train, "
            "validation or test to what is there, or test to null, or validation to null and "
            f"validation_fraction to the part of the training split to hold out{hint}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RawSplit:
    """A split as its source has it: labels read, images not yet decoded.

    Attributes:
        labels: (N,) int64, or uint64 where one is above its range, or strings where the source
            names the class of each image.
        classes: names of the classes 0, 1, ... where the source declares them, else None.
        where: the file or folder, for messages.
        pictures: (rows, S) -> the images of these rows, rows being indices into `labels`; only
            sources that draw their images need S.
        notes: what a user should know of the split, such as files that were left out.
        beside: names of all that could be a split of the same dataset, this one among them.
    """

    labels: NDArray[Any]
    classes: tuple[str, ...] | None
    where: str
    pictures: Callable[[RowArray, int], Pictures]
    notes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A kind of source.

    Attributes:
        summary: one line for the help.
        open: reads the labels of a split; raises DataError.
        whole: reads the labels of a dataset without splits, of which splits are then drawn; None
            where there are splits, or where it cannot be told; raises DataError.
        suffix: what a task's name is followed by where the config gives no path.
        probe: stands in for `open` in checks where opening would download; raises DataError.
    """

    summary: str
    open: Callable[[Request], RawSplit]
    whole: Callable[[Request], RawSplit | None] = lambda request: None
    suffix: str = ""
    probe: Callable[[Request], None] | None = None
