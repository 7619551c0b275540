"""What several test files need: small networks, masks and tasks."""

import os
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from partitioning import ChannelGroup, Masks, VirtualNetwork
from trainers.backbones import BackboneConfig, channel_groups
from trainers.data import Split, Task
from trainers.device import ComputeConfig

torch.set_num_threads(1)

# The clusters of tests neither join one that runs on this machine nor leave their address there.
os.environ.pop("RAY_ADDRESS", None)
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="apportion-")


@pytest.fixture(scope="session", autouse=True)
def ray_folder() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


@pytest.fixture
def backbone() -> BackboneConfig:
    """A ResNet-14 of width 4: seven blocks' worth of code paths in milliseconds."""
    return BackboneConfig(family="resnet14", width=4)


@pytest.fixture
def compute() -> ComputeConfig:
    return ComputeConfig(device="cpu", threads=1)


def random_masks(
    groups: tuple[ChannelGroup, ...],
    tasks: tuple[str, ...],
    seed: int,
    *,
    use: float = 0.5,
    backward: bool = False,
) -> Masks:
    """Masks in which every channel joins every task with probability `use`."""
    rng = np.random.default_rng(seed)
    forward = {g.name: rng.random((len(tasks), g.width)) < use for g in groups}
    return Masks(
        networks=tuple(VirtualNetwork(task=name) for name in tasks),
        groups=groups,
        forward=forward,
        backward={k: v & (rng.random(v.shape) < 0.5) for k, v in forward.items()}
        if backward
        else None,
    )


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


@pytest.fixture
def groups(backbone: BackboneConfig) -> tuple[ChannelGroup, ...]:
    return channel_groups(backbone)
