"""The config of tasks: where their images are, and how they are read and varied."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

from partitioning.settings import (
    FINITE,
    Rule,
    Unit,
    at_least,
    checked,
    interval,
    one_of,
)
from trainers.data.inputs import Inputs
from trainers.data.sources import SOURCES

#: What the height and width that images are resized to must be.
SIZE = at_least(8)


NAME = Rule(
    words="letters, digits, '_', '.' and '-' (files are named after it), the first a letter or "
    "digit",
    holds=lambda name, own: re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) is not None,
)

CLASSES = Rule(
    words="a first class, 0 or more, and an end, at least 2 above it",
    holds=lambda ends, own: len(ends) == 2 and 0 <= ends[0] <= ends[1] - 2,
)
NAMES = Rule(
    words="two or more different names",
    holds=lambda names, own: names is None or len(set(names)) == len(names) >= 2,
)


@dataclass(frozen=True, kw_only=True)
@checked("task {self.name!r}: {field}")
class TaskConfig:
    """One task: where its images are, and how its training images are varied.

    Attributes:
        name: Name of the task in configs, records and file names.
        source: Where its images come from: toy (drawn by the program), parquet (a folder of
            `<split>.parquet` files, or one file without splits), hub (a dataset of the Hugging Face
            Hub, or a folder in its layout), folder (`<split>/<class>/<image>` files, or
            `<class>/<image>` without splits) or npz (a file of arrays). Where there are no splits,
            a tenth of every class is drawn for validation, and another for test.
        path: Folder, file or Hub dataset id, relative to `data_root`; of source toy the name of the
            toy task. None takes the task's name.
        subset: The Hub's configuration name, for datasets that have several.
        image_column: Column that holds the images (parquet, hub).
        label_column: Column that holds the labels (parquet, hub).
        train: The source's name of the training split.
        validation: The source's name of the validation split; None where there is none, and then
            `validation_fraction` of the training split is held out.
        test: The source's name of the test split; None where there is none.
        black: The value that is black in images. None takes 0, or the smallest value where some are
            negative.
        white: The value that is white in images of more than 8 bits and in arrays. None takes what
            the values of all splits say, such as 1, 255, 4095 or 65535; a search prints it.
        classes: Which of the dataset's classes make up the task: from the first up to, but without,
            the second, in the dataset's own order, counted from 0. [0, 25] is the first quarter of
            100. Images of other classes are left out of every split. None takes all.
        only: In place of `classes`: names of those that make up the task, in the task's order.
        merge: So many classes in a row, of those that are taken, are one class of the task,
            as coarse labels are; the last one has what is left. 1 keeps all apart.
        size: Height and width that the task's images are resized to, where it is another than the
            network's input_size. Such a task has a first convolution of its own, of a stride that
            makes maps of one size; in studies of methods only. None takes the network's.
        limit: At most so many training images, chosen with the seed, none of the classes lost. None
            is no limit.
        validation_fraction: How much of the training split is held out for validation; only where
            `validation` is None. Of a dataset without splits, how much is drawn for validation.
        flip: Mirror training images left to right, each with probability 1/2.
        shift: Move training images by up to so many pixels along each axis, at the input size.

    Raises:
        ValueError: A value is outside its range, or the splits do not go together; the text names
            the task.
    """

    name: Annotated[str, NAME]
    source: Annotated[str, one_of(SOURCES)] = "parquet"
    path: str | None = None
    subset: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    train: str = "train"
    validation: str | None = "validation"
    test: str | None = "test"
    black: Annotated[float | None, FINITE] = None
    white: Annotated[float | None, FINITE] = None
    classes: Annotated[tuple[int, int] | None, CLASSES] = None
    only: Annotated[tuple[str, ...] | None, NAMES] = None
    merge: Annotated[int, at_least(1)] = 1
    size: Annotated[int | None, SIZE, Unit("pixels")] = None
    limit: Annotated[int | None, at_least(2), Unit("images")] = None
    validation_fraction: Annotated[float | None, interval("(0, 1)")] = None
    flip: bool = False
    shift: Annotated[int, at_least(0), Unit("pixels")] = 2

    def _check(self) -> None:
        if None not in (self.classes, self.only):
            raise self._error("classes or only says which classes make it up, not both")
        if (self.validation is None) != (self.validation_fraction is not None):
            raise self._error(
                "either validation names a split, or validation is null and validation_fraction "
                "says how much of the training split to hold out, got "
                f"validation={self.validation!r} and validation_fraction={self.validation_fraction}"
            )
        if None not in (self.black, self.white) and not self.black < self.white:  # type: ignore[operator]
            raise self._error(f"black must be below white, got {self.black:g} and {self.white:g}")
        names = list(self.split_names().values())
        if len(set(names)) < len(names):
            raise self._error(
                "train, validation and test must be different splits, since images trained on "
                f"cannot measure accuracy, got {', '.join(names)}"
            )

    def split_names(self) -> dict[str, str]:
        """Our split name -> the source's, for the splits that the source is asked for."""
        asked = {"train": self.train, "validation": self.validation, "test": self.test}
        return {ours: theirs for ours, theirs in asked.items() if theirs is not None}

    def _error(self, message: str) -> ValueError:
        return ValueError(f"task {self.name!r}: {message}")


@dataclass(frozen=True, kw_only=True)
@checked()
class DataConfig:
    """The tasks of a study.

    Attributes:
        tasks: At least one, each with its own name.
        root: Folder that the tasks' paths start from; None for the working directory.
        input_size: S, height and width of the network's input.
        seed: Seeds toy tasks, limits and held-out validation images.
        inputs: How images are resized and normalised.

    Raises:
        ValueError: A value is outside its range, or a task is listed twice or does not go with the
            input size.
    """

    tasks: tuple[TaskConfig, ...]
    root: str | None = None
    input_size: Annotated[int, SIZE, Unit("pixels")] = 32
    seed: Annotated[int, at_least(0)] = 0
    inputs: Inputs = field(default_factory=Inputs)

    def _check(self) -> None:
        if not self.tasks:
            raise ValueError("there must be at least one task, got none; list some under tasks")
        names = [task.name for task in self.tasks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"each task must be listed once, got {', '.join(twice)} more than once; give the "
                "second one another name, or remove it"
            )
        for task in self.tasks:
            size = task.size or self.input_size
            if task.shift >= size:
                raise ValueError(
                    f"task {task.name!r}: shift must be smaller than the input size {size}, got "
                    f"{task.shift}"
                )
