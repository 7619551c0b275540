"""From a task's files to the task: labels understood, rows chosen, images decoded on one scale."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partitioning import IntArray
from trainers.data.brightness import scale_notes
from trainers.data.classes import choose_classes
from trainers.data.config import DataConfig, TaskConfig
from trainers.data.image_files import Put, pixels_key, traced
from trainers.data.soundness import check_images, missing_classes
from trainers.data.sources import SOURCES, DataError, RawSplit, Request
from trainers.data.sources.base import ByteArray, Pictures
from trainers.data.sources.labels import encode_labels
from trainers.data.sources.pixels import decode, measure, ranges_of
from trainers.data.sources.scale import Scale, choose_scales
from trainers.data.split import Split, mapped_split
from trainers.data.splitting import draw_parts, stratified
from trainers.data.tasks import Task, Understood

#: How much of a dataset without splits is held out for each of validation and test.
HELD_OUT = 0.1

#: Bytes of a task's decoded images above which they are mapped from files, where there is a folder.
MAPPED_ABOVE = 512 * 2**20

#: Pixel values that are summed at a time.
AT_ONCE = 2**18


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """A split as it will be: where its images come from, which rows, and their labels."""

    raw: RawSplit
    rows: IntArray
    labels: IntArray

    def pictures(self, size: int) -> Pictures:
        return self.raw.pictures(self.rows, size)

    def trace(self) -> Any:
        """The beginning of a hash of its images: of which they are, where they are not all."""
        # Files of two classes can be alike in name, size and times.
        is_all = len(self.rows) == len(self.raw.labels)
        return hashlib.sha256(b"" if is_all else self.rows.tobytes())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    classes: tuple[str, ...]
    parts: dict[str, _Part]
    notes: tuple[str, ...]


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


def load_task(task: TaskConfig, config: DataConfig, folder: Path | None = None) -> Task:
    """Loads one task, its images into memory or, where they are many, into files.

    Args:
        task: the task.
        config: root, input size, inputs and seed; its list of tasks is not looked at, so that the
            dataset a trunk is pretrained on need not be in it.
        folder: where images of a task that take more than `MAPPED_ABOVE` are kept decoded, to be
            mapped from there; it is made if it is missing. None holds all in memory.

    Raises:
        DataError: naming the task, the file, and the row where one is to blame; or all images of
            a split are alike, or those of one split are another's.
        OSError: the folder is read-only or full.
    """
    plan, size, inputs = _plan(task, config), task.size or config.input_size, config.inputs
    decoded = sum(len(part.rows) for part in plan.parts.values()) * 3 * size**2
    mapped = folder is not None and decoded > MAPPED_ABOVE
    traces = {name: part.trace() for name, part in plan.parts.items() if mapped}
    extents = {
        name: measure(traced(part.pictures(size), traces[name]) if mapped else part.pictures(size))
        for name, part in plan.parts.items()
    }
    ranges = {name: ranges_of(found) for name, found in extents.items()}
    try:
        scales = choose_scales(ranges, task.black, task.white)
    except ValueError as error:
        raise DataError(f"task {task.name!r}: {error}") from error
    splits = {}
    for name, part in plan.parts.items():
        labels = torch.from_numpy(part.labels)
        fill = functools.partial(_decode, part, size, scales, inputs.interpolation)
        if folder is not None and mapped:
            folder.mkdir(parents=True, exist_ok=True)
            key = pixels_key(traces[name].hexdigest(), scales, size, inputs.interpolation)
            path = folder / f"images-{task.name}-{name}-{key[:20]}.npy"
            splits[name] = mapped_split(path, labels, size, fill)
        else:
            splits[name] = Split(images=_in_memory(len(labels), size, fill), labels=labels)
    mean, std = _moments(splits["train"].images)
    seen = []
    if task.white is None:
        labels_of = {name: part.labels for name, part in plan.parts.items()}
        seen += scale_notes(plan.classes, extents, labels_of, scales)
    seen += check_images(task.name, plan.classes, splits, spread=255 * float(std.max()))
    return Task(
        name=task.name,
        classes=plan.classes,
        splits=splits,
        mean=mean if inputs.mean is None else torch.tensor(inputs.mean, dtype=torch.float32),
        std=std if inputs.std is None else torch.tensor(inputs.std, dtype=torch.float32),
        flip=task.flip,
        shift=task.shift,
        inputs=inputs,
        understood=Understood(scales=scales, notes=(*plan.notes, *seen)),
    )


def load_tasks(config: DataConfig, folder: Path | None = None) -> dict[str, Task]:
    """Loads all tasks as `load_task` does, by name, in the config's order."""
    return {task.name: load_task(task, config, folder) for task in config.tasks}


def _decode(
    part: _Part, size: int, scales: Mapping[str, Scale], interpolation: str, put: Put
) -> None:
    decode(part.pictures(size), put, size=size, scales=scales, interpolation=interpolation)


def _in_memory(count: int, size: int, fill: Callable[[Put], object]) -> Tensor:
    """All images that `fill` gives, uint8 (N, 3, S, S)."""
    images, done = np.empty((count, 3, size, size), dtype=np.uint8), 0

    def put(batch: ByteArray) -> None:
        nonlocal done
        images[done : done + len(batch)] = batch
        done += len(batch)

    fill(put)
    return torch.from_numpy(images)


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


def _plan(task: TaskConfig, config: DataConfig) -> _Plan:
    """Reads and checks the labels of all splits, and chooses the rows of each."""
    raws, is_whole = _raw_splits(task, config)
    notes = [
        note if is_whole else f"{name}: {note}" for name, raw in raws.items() for note in raw.notes
    ]
    used = {*task.split_names().values()}
    if unused := sorted({name for raw in raws.values() for name in raw.beside} - used):
        notes.append(f"left out {len(unused)} beside its splits ({', '.join(unused[:8])})")
    encoded = encode_labels(task.name, raws)
    chosen = choose_classes(task, encoded)
    notes += [*encoded.notes, *chosen.notes]
    rng = np.random.default_rng([config.seed, *task.name.encode()])
    labels = chosen.labels["train"]
    if is_whole:
        rows = _divide(task, labels, rng)
        notes.append(f"{' and '.join([*rows][1:])} drawn from the images, which have no splits")
    else:
        rows = {"train": np.arange(len(labels))}
        if task.validation_fraction is not None:
            rows = _hold_out(task, task.validation_fraction, labels, rng)
            notes.append("validation drawn from the training images")
    rows["train"] = _limited(task, rows["train"], labels, rng)
    parts = {
        name: _Part(raw=raws["train"], rows=chosen.rows["train"][drawn], labels=labels[drawn])
        for name, drawn in rows.items()
    } | {
        name: _Part(raw=raw, rows=chosen.rows[name], labels=chosen.labels[name])
        for name, raw in raws.items()
        if name != "train"
    }
    parts = {name: parts[name] for name in ("train", "validation", "test") if name in parts}
    notes += missing_classes(chosen.classes, {name: part.labels for name, part in parts.items()})
    return _Plan(classes=chosen.classes, parts=parts, notes=tuple(notes))


def _raw_splits(task: TaskConfig, config: DataConfig) -> tuple[dict[str, RawSplit], bool]:
    """The splits as the source has them; or, as "train" alone, all of a dataset without splits."""
    source, names = SOURCES[task.source], task.split_names()
    try:
        if all(ours == theirs for ours, theirs in names.items()):
            whole = source.whole(_request(task, task.train, config))
            if whole is not None:
                return {"train": whole}, True
        opened = {name: source.open(_request(task, names[name], config)) for name in names}
    except OSError as error:  # a folder that may not be read, a disk that is gone
        raise DataError(f"task {task.name!r}: its files cannot be read: {error}") from error
    return opened, False


def _divide(task: TaskConfig, labels: IntArray, rng: np.random.Generator) -> dict[str, IntArray]:
    """Rows of the splits of a dataset that has none."""
    shares = {"validation": task.validation_fraction or HELD_OUT}
    if task.test is not None:
        shares["test"] = HELD_OUT
    rows = draw_parts(labels, shares, rng)
    if short := [name for name, chosen in rows.items() if not len(chosen)]:
        raise DataError(
            f"task {task.name!r}: its {len(labels)} images have no splits, and are too few to draw "
            f"{' and '.join(short)} from; a class needs three images"
        )
    return rows


def _hold_out(
    task: TaskConfig, fraction: float, labels: IntArray, rng: np.random.Generator
) -> dict[str, IntArray]:
    """Rows of the training split that stay, and those that are held out for validation."""
    total, present = len(labels), len(np.unique(labels))
    kept = total - round(total * fraction)
    if not present <= kept < total:
        raise DataError(
            f"task {task.name!r}: holding out {fraction} of {total} training "
            f"images must leave at least one image to validate on and {present}, one of each "
            f"class, to train on, but leaves {total - kept} and {kept}; change "
            "validation_fraction"
        )
    train = stratified(labels, kept, rng)
    return {"train": train, "validation": np.setdiff1d(np.arange(total), train)}


def _limited(
    task: TaskConfig, rows: IntArray, labels: IntArray, rng: np.random.Generator
) -> IntArray:
    """At most `limit` of the training rows."""
    if task.limit is None or task.limit >= len(rows):
        return rows
    present = len(np.unique(labels[rows]))
    if task.limit < present:
        raise DataError(
            f"task {task.name!r}: limit must be at least {present}, one training image of each "
            f"class, got {task.limit}"
        )
    return rows[stratified(labels[rows], task.limit, rng)]


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (3,) of uint8 images (N, 3, S, S), in units of [0, 1]."""
    total, squares = np.zeros(3), np.zeros(3)
    for chunk in images.split(max(AT_ONCE // images[0].numel(), 1)):
        # Sums of whole numbers are exact. NumPy takes one core: torch would wait for the others.
        values = chunk.numpy().astype(np.float64)
        total += values.sum(axis=(0, 2, 3))
        squares += np.einsum("nchw,nchw->c", values, values)
    count = images.numel() / 3
    mean = total / count / 255
    std = np.sqrt(np.maximum(squares / count / 255**2 - mean**2, 0))
    # A channel that never changes would divide by zero.
    return torch.from_numpy(mean).float(), torch.from_numpy(std).clamp(min=1 / 255).float()
