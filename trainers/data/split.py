"""The images and labels of a split, in memory or mapped from a file.

Legend: N images of the split, B images of a batch, M chosen ones, S the input size.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.data.image_files import Put, images_hash, keep_images, map_images

#: Images that are copied from file to file at a time.
AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and labels of one split.

    Images that are mapped from a file stay there whatever the device; `batch` and `take` give them
    beside their labels.

    Attributes:
        images: uint8 (N, 3, S, S); those of a file must not be written.
        labels: int64 (N,), indices into the task's classes.
        path: the file that the images are mapped from, and read again from by any process that the
            split is sent to; None where they are in memory.
        content: of mapped images, what `digests` says of them; else empty.
    """

    images: Tensor
    labels: Tensor
    path: Path | None = None
    content: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Callable[..., Split], tuple[Any, ...]]:
        """Send the path of mapped images, not what it holds."""
        if self.path is not None:
            return _mapped, (self.path, self.content, self.labels)
        return functools.partial(Split, images=self.images, labels=self.labels), ()

    def to(self, device: torch.device | str) -> Split:
        """The same split with labels, and images that are in memory, on a device."""
        images = self.images if self.path is not None else self.images.to(device)
        return replace(self, images=images, labels=self.labels.to(device))

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, 3, S, S) and labels int64 (B,) of these rows, on the labels' device."""
        images, labels = self.images[start:stop], self.labels[start:stop]
        return images.to(labels.device), labels

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of some rows, on the labels' device.

        Args:
            rows: int64 (B,), on any device.

        Returns:
            images uint8 (B, 3, S, S) and labels int64 (B,).
        """
        labels = self.labels[rows.to(self.labels.device)]
        return self.images[rows.to(self.images.device)].to(labels.device), labels

    def select(self, rows: Tensor) -> Split:
        """A split of some rows; those of mapped images are written to a file beside theirs.

        Args:
            rows: int64 (M,), on any device.

        Raises:
            OSError: there is no room for that file.
        """
        if self.path is None:
            images, labels = self.take(rows)
            return Split(images=images, labels=labels)
        rows = rows.cpu()
        chosen = hashlib.sha256(self.content.encode() + rows.numpy().tobytes()).hexdigest()
        path = self.path.with_name(f"{self.path.stem}-{chosen[:20]}.npy")

        def fill(put: Put) -> None:
            for some in rows.split(AT_ONCE):
                put(self.images[some].numpy())

        labels = self.labels[rows.to(self.labels.device)]
        return mapped_split(path, labels, self.images.shape[-1], fill)

    def digests(self) -> dict[str, str]:
        """Hashes (sha256, hex) of shape and content of "images" and of "labels"."""
        images = self.content or _tensor_digest(self.images)
        return {"images": images, "labels": _tensor_digest(self.labels)}


def mapped_split(path: Path, labels: Tensor, size: int, fill: Callable[[Put], object]) -> Split:
    """A split whose images are in a file, which is made if it is not there, or is damaged.

    Args:
        path: the file, named after what decides its images; its folder exists.
        labels: int64 (N,).
        size: S.
        fill: is given a function, and calls it with all images, some at a time.

    Raises:
        OSError: there is no room for the file.
    """
    path = path.absolute()
    return _mapped(path, keep_images(path, (len(labels), 3, size, size), fill), labels)


def _mapped(path: Path, content: str, labels: Tensor) -> Split:
    return Split(images=map_images(path), labels=labels, path=path, content=content)


def _tensor_digest(tensor: Tensor) -> str:
    digest = images_hash(tensor.shape)
    digest.update(tensor.cpu().contiguous().numpy().data)
    found: str = digest.hexdigest()
    return found
