"""Tasks: images and labels as tensors on the device, drawn, varied and normalised there.

Legend: N images of a split, B images of a batch, S the input size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trainers.data.inputs import Inputs
from trainers.data.sources.scale import Scale, scale_words
from trainers.data.split import Split


@dataclass(frozen=True, kw_only=True)
class Understood:
    """What was made of a dataset's files, for a person to check.

    Attributes:
        scales: by type of values ("uint8", "uint16"), which of them are black and white.
        notes: what else there is to know: splits that were drawn, files that were left out, classes
            that a split does not have.
    """

    scales: Mapping[str, Scale] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A dataset ready to train on.

    Attributes:
        name: the task's name.
        classes: names of the classes, by label.
        splits: "train", "validation" and, where the source has one, "test".
        mean: float32 (3,), in units of [0, 1]: of the training images, or what `inputs` says.
        std: float32 (3,), likewise, greater than 0.
        flip: whether augmenting mirrors images.
        shift: by how many pixels at most augmenting moves them.
        inputs: what was asked for when the images were loaded.
        understood: what was made of the dataset's files.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    mean: Tensor
    std: Tensor
    flip: bool = False
    shift: int = 0
    inputs: Inputs = field(default_factory=Inputs)
    understood: Understood = Understood()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def size(self) -> int:
        """Height and width of the images, in pixels."""
        return int(next(iter(self.splits.values())).images.shape[-1])

    def summary(self) -> str:
        """What the task is and how its files were understood, in one line for people."""
        sizes = " / ".join(str(len(split)) for split in self.splits.values())
        scale = scale_words(self.understood.scales)
        classes = f"{self.num_classes} classes ({shown_classes(self.classes)})"
        parts = [classes, f"{sizes} images", *([scale] if scale else [])]
        return "; ".join([", ".join(parts), *self.understood.notes])

    def to(self, device: torch.device | str) -> Task:
        """The same task on a device, but for images that are mapped from files."""
        splits = {name: split.to(device) for name, split in self.splits.items()}
        return replace(self, splits=splits, mean=self.mean.to(device), std=self.std.to(device))

    def fingerprint(self) -> str:
        """Hash of all that a network trained on this task depends on, the same on every device.

        It is another one where images are mapped, since their file's hash stands for them.

        Returns:
            sha256 of name, classes, augmentation, mean and deviation where they are given, and
            every split's images and labels, in hex.
        """
        settings = [self.name, self.classes, self.flip, self.shift, sorted(self.splits)]
        given = [self.inputs.mean, self.inputs.std]
        if given != [None, None]:
            settings.append(given)
        digest = hashlib.sha256(json.dumps(settings).encode())
        for name in sorted(self.splits):
            split = self.splits[name]
            digest.update(json.dumps([name, *split.images.shape]).encode())
            if split.path is not None:
                digest.update(split.content.encode())
            else:
                digest.update(split.images.cpu().contiguous().numpy().data)
            digest.update(split.labels.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def shown_classes(classes: Sequence[str], most: int = 4) -> str:
    """Some names of classes for people, on one line: all where they are few, long ones cut short.

    >>> shown_classes(["oak", "elm"])
    'oak, elm'
    >>> shown_classes("0123456789")
    '0, 1, 2, ...'
    """
    few = classes if len(classes) <= most else [*classes[: most - 1], "..."]
    plain = [name if name.isprintable() else repr(name)[1:-1] for name in few]
    return ", ".join(name if len(name) <= 24 else f"{name[:21]}..." for name in plain)


def commonest_share(split: Split) -> float:
    """Accuracy of always answering the commonest class of a split, in (0, 1]."""
    return float(torch.bincount(split.labels).max()) / len(split)


def normalise(images: Tensor, task: Task) -> Tensor:
    """Takes the task's mean from images and divides them by its standard deviation.

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
        generator: on the device of the split's labels.

    Returns:
        images uint8 (B, 3, S, S) and labels int64 (B,), on that device.
    """
    return split.take(
        torch.randint(len(split), (batch_size,), generator=generator, device=split.labels.device)
    )
