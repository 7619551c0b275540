"""Tasks that a small network learns in a few steps."""

import numpy as np
import torch

from trainers.data import Split, Task


def bright_task(name: str, seed: int, *, images: int = 96, size: int = 8) -> Task:
    """Two classes told apart by which half of the image is bright: learnt in a few steps."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        labels = np.arange(count) % 2
        pixels = rng.integers(0, 100, (count, 3, size, size))
        pixels[labels == 0, :, :, : size // 2] += 120
        pixels[labels == 1, :, :, size // 2 :] += 120
        return Split(
            images=torch.from_numpy(pixels.astype(np.uint8)),
            labels=torch.from_numpy(labels.astype(np.int64)),
        )

    return Task(
        name=name,
        classes=("left", "right"),
        splits={"train": split(images), "validation": split(48), "test": split(40)},
        mean=torch.full((3,), 0.43),
        std=torch.full((3,), 0.26),
        flip=False,
        shift=0,
    )
