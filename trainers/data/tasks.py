"""Tasks: images and labels as tensors on the device, drawn, varied and normalised there.

Legend: N images of a split, B images of a batch, S the input size.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from partitioning import IntArray
from partitioning.settings import Rule, Unit, at_least, checked, interval, one_of
from trainers.data.sources import SOURCES, RawSplit, Request
from trainers.data.sources import DataError as DataError
from trainers.data.sources.labels import encode_labels, stratified

#: Height and width that images are resized to.
InputSize = Annotated[int, at_least(8), Unit("pixels")]


NAME = Rule(
    words="letters, digits, '_', '.' and '-' (files are named after it), the first a letter or "
    "digit",
    holds=lambda name, own: re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) is not None,
)


@dataclass(frozen=True, kw_only=True)
@checked("task {self.name!r}: {field}")
class TaskConfig:
    """One task: where its images are, and how its training images are varied.

    Attributes:
        name: Name of the task in configs, records and file names.
        source: Where its images come from: toy (drawn by the program), parquet (a folder of
            `<split>.parquet` files), hub (a dataset of the Hugging Face Hub, or a folder in its
            layout), folder (`<split>/<class>/<image>` files) or npz (a file of arrays).
        path: Folder, file or Hub dataset id, relative to `data_root`; of source toy the name of the
            toy task. None takes the task's name.
        subset: The Hub's configuration name, for datasets that have several.
        image_column: Column that holds the images (parquet, hub).
        label_column: Column that holds the labels (parquet, hub).
        train: The source's name of the training split.
        validation: The source's name of the validation split; None where there is none, and then
            `validation_fraction` of the training split is held out.
        test: The source's name of the test split; None where there is none.
        limit: At most so many training images, chosen with the seed, none of the classes lost. None
            is no limit.
        validation_fraction: How much of the training split is held out for validation; only where
            `validation` is None.
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
    limit: Annotated[int | None, at_least(2), Unit("images")] = None
    validation_fraction: Annotated[float | None, interval("(0, 1)")] = None
    flip: bool = False
    shift: Annotated[int, at_least(0), Unit("pixels")] = 2

    def _check(self) -> None:
        if (self.validation is None) != (self.validation_fraction is not None):
            raise self._error(
                "either validation names a split, or validation is null and validation_fraction "
                "says how much of the training split to hold out, got "
                f"validation={self.validation!r} and validation_fraction={self.validation_fraction}"
            )
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

    Raises:
        ValueError: A value is outside its range, or a task is listed twice or does not go with the
            input size.
    """

    tasks: tuple[TaskConfig, ...]
    root: str | None = None
    input_size: InputSize = 32
    seed: Annotated[int, at_least(0)] = 0

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
            if task.shift >= self.input_size:
                raise ValueError(
                    f"task {task.name!r}: shift must be smaller than the input size "
                    f"{self.input_size}, got {task.shift}"
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,), indices into the task's classes.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """The same split on a device."""
        return Split(images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A dataset ready to train on.

    Attributes:
        name: the task's name.
        classes: names of the classes, by label.
        splits: "train", "validation" and, where the source has one, "test".
        mean: float32 (3,), of the training images, in units of [0, 1].
        std: float32 (3,), likewise, greater than 0.
        flip: whether augmenting mirrors images.
        shift: by how many pixels at most augmenting moves them.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    mean: Tensor
    std: Tensor
    flip: bool = False
    shift: int = 0

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def to(self, device: torch.device | str) -> Task:
        """The same task on a device."""
        splits = {name: split.to(device) for name, split in self.splits.items()}
        return replace(self, splits=splits, mean=self.mean.to(device), std=self.std.to(device))

    def fingerprint(self) -> str:
        """Hash of all that a network trained on this task depends on, the same on every device.

        Returns:
            sha256 of name, classes, augmentation and every split's images and labels, in hex.
        """
        settings = [self.name, self.classes, self.flip, self.shift, sorted(self.splits)]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for name in sorted(self.splits):
            split = self.splits[name]
            digest.update(json.dumps([name, *split.images.shape]).encode())
            for tensor in (split.images, split.labels):
                digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def check_tasks(config: DataConfig) -> None:
    """Finds what is wrong with the tasks' data without decoding an image or using the network.

    A dataset of the Hub is only looked at when it is loaded, since that may download it.

    Raises:
        DataError: of the first task that has something wrong, saying what and how to mend it.
    """
    for task in config.tasks:
        source = SOURCES[task.source]
        if source.probe is None:
            _plan(task, config)
        else:
            for split in task.split_names().values():
                source.probe(_request(task, split, config))


def load_task(task: TaskConfig, config: DataConfig) -> Task:
    """Loads one task into memory.

    Args:
        task: the task.
        config: root, input size and seed; its list of tasks is not looked at, so that the dataset
            a trunk is pretrained on need not be in it.

    Raises:
        DataError: naming the task, the file, and the row where one is to blame.
    """
    classes, parts = _plan(task, config)
    splits = {}
    for name, (raw, rows, labels) in parts.items():
        images = torch.from_numpy(raw.pixels(rows, config.input_size))
        splits[name] = Split(images=images, labels=torch.from_numpy(labels))
    mean, std = _moments(splits["train"].images)
    return Task(
        name=task.name,
        classes=classes,
        splits=splits,
        mean=mean,
        std=std,
        flip=task.flip,
        shift=task.shift,
    )


def load_tasks(config: DataConfig) -> dict[str, Task]:
    """Loads all tasks, by name, in the config's order."""
    return {task.name: load_task(task, config) for task in config.tasks}


def commonest_share(split: Split) -> float:
    """Accuracy of always answering the commonest class of a split, in (0, 1]."""
    return float(torch.bincount(split.labels).max()) / len(split)


def normalise(images: Tensor, task: Task) -> Tensor:
    """Shifts and scales images to mean 0 and standard deviation 1 over the task's training images.

    Args:
        images: uint8 (B, 3, S, S).
        task: on the same device.

    Returns:
        float32 (B, 3, S, S).
    """
    return (images.float() / 255 - task.mean[:, None, None]) / task.std[:, None, None]


def augment(images: Tensor, task: Task, generator: torch.Generator) -> Tensor:
    """Mirrors and moves each image by its own chance, then normalises; what moves in is 0.

    Args:
        images: uint8 (B, 3, S, S).
        task: on the same device; `flip` and `shift` say what is done.
        generator: on the same device.

    Returns:
        float32 (B, 3, S, S), normalised; pixels from outside the image are 0, the mean colour.
    """
    batch, _, height, width = images.shape
    device = images.device
    out = normalise(images, task)

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (batch, 1), generator=generator, device=device)

    if task.flip:
        mirrored = draw(0, 2).bool()[:, :, None, None]  # (B, 1, 1, 1)
        out = torch.where(mirrored, out.flip(3), out)
    if task.shift:
        # Pixel i of the result is pixel i + move of the image.
        rows = torch.arange(height, device=device) + draw(-task.shift, task.shift + 1)  # (B, S)
        columns = torch.arange(width, device=device) + draw(-task.shift, task.shift + 1)
        inside = ((rows >= 0) & (rows < height))[:, None, :, None] & (
            (columns >= 0) & (columns < width)
        )[:, None, None, :]  # (B, 1, S, S)
        out = out.gather(2, rows.clamp(0, height - 1)[:, None, :, None].expand_as(out))
        out = out.gather(3, columns.clamp(0, width - 1)[:, None, None, :].expand_as(out))
        out = out * inside
    return out


def draw_batch(split: Split, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws images uniformly, with replacement.

    Args:
        split: N images.
        batch_size: B.
        generator: on the split's device.

    Returns:
        images uint8 (B, 3, S, S) and labels int64 (B,).
    """
    index = torch.randint(
        len(split), (batch_size,), generator=generator, device=split.labels.device
    )
    return split.images[index], split.labels[index]


def _request(task: TaskConfig, split: str, config: DataConfig) -> Request:
    return Request(
        task=task.name,
        path=task.path if task.path is not None else task.name + SOURCES[task.source].suffix,
        root=None if config.root is None else Path(config.root),
        subset=task.subset,
        image_column=task.image_column,
        label_column=task.label_column,
        split=split,
        seed=config.seed,
    )


def _plan(
    task: TaskConfig, config: DataConfig
) -> tuple[tuple[str, ...], dict[str, tuple[RawSplit, IntArray, IntArray]]]:
    """Reads and checks the labels of all splits, and chooses the rows of each.

    Returns:
        the classes, and for each split: where its images come from, which rows, and their labels.
    """
    opened = SOURCES[task.source].open
    raws = {
        ours: opened(_request(task, theirs, config)) for ours, theirs in task.split_names().items()
    }
    classes, labels = encode_labels(task.name, raws)
    rows = {name: np.arange(len(values)) for name, values in labels.items()}
    rng = np.random.default_rng([config.seed, *task.name.encode()])
    present = len(np.unique(labels["train"]))
    if task.validation_fraction is not None:
        total = len(rows["train"])
        kept = total - round(total * task.validation_fraction)
        if not present <= kept < total:
            raise DataError(
                f"task {task.name!r}: holding out {task.validation_fraction} of {total} training "
                f"images must leave at least one image to validate on and {present}, one of each "
                f"class, to train on, but leaves {total - kept} and {kept}; change "
                "validation_fraction"
            )
        train = stratified(labels["train"], kept, rng)
        rows["validation"] = np.setdiff1d(rows["train"], train)
        raws["validation"] = raws["train"]
        labels["validation"] = labels["train"]
        rows["train"] = train
    if task.limit is not None and task.limit < len(rows["train"]):
        if task.limit < present:
            raise DataError(
                f"task {task.name!r}: limit must be at least {present}, one training image of each "
                f"class, got {task.limit}"
            )
        train = stratified(labels["train"][rows["train"]], task.limit, rng)
        rows["train"] = rows["train"][train]
    order = [name for name in ("train", "validation", "test") if name in rows]
    return classes, {name: (raws[name], rows[name], labels[name][rows[name]]) for name in order}


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (3,) of uint8 images (N, 3, S, S), in units of [0, 1]."""
    total, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for chunk in torch.split(images, 1024):  # all at once would take eight times the images' memory
        values = chunk.double() / 255
        total += values.sum(dim=(0, 2, 3))
        squares += values.square().sum(dim=(0, 2, 3))
    count = images.numel() / 3
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    # A channel that never changes would divide by zero.
    return mean.float(), variance.sqrt().clamp(min=1 / 255).float()
