"""Where cached features are read from while students train: the device if they fit, else the host.

Legend of shapes: N images, B batch, C channels, H and W of a map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.device import compute_type
from trainers.network import to_channels_last
from trainers.proxy.features import FeatureCache, as_tensor, channels_last

#: Positions of images, or a run of them.
Index: TypeAlias = NDArray[np.int64] | Tensor | slice

# What students need beside the features: at least half of a GPU's memory.
SHARE_OF_DEVICE = 0.5


class PlacedFeatures:
    """Batches of cached features on the device.

    On a GPU the features are copied there once, as float16, when they take no more than half of the
    memory that is free; otherwise, and on a CPU, batches are read from the cache's arrays (which
    may be memory-mapped), on a GPU one step ahead of their use.

    Args:
        cache: The features.
        device: Where batches are wanted.
        precision: "bf16" to have inputs in what convolutions compute in.
    """

    def __init__(self, cache: FeatureCache, device: torch.device, precision: str) -> None:
        self._cache, self._device = cache, device
        self._input_type = compute_type(precision)
        self.on_device = False
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self.on_device = cache.nbytes <= SHARE_OF_DEVICE * free
        self._ahead = device.type != "cpu" and not self.on_device
        self._arrays = {name: channels_last(array) for name, array in _named(cache)}
        self._tensors: dict[str, Tensor] = {}
        if self.on_device:
            for name, array in _named(cache):
                self._tensors[name] = to_channels_last(as_tensor(array).to(device))

    def inputs(self, task: str, index: Index) -> Tensor:
        """Trunk features of cached training images, (B, C, H, W)."""
        return self._inputs(f"{task}.inputs", index)

    def validation(self, task: str, index: Index) -> Tensor:
        """Trunk features of validation images, (B, C, H, W)."""
        return self._inputs(f"{task}.validation", index)

    def training(self, task: str, index: Index) -> tuple[Tensor, list[Tensor]]:
        """Trunk features of training images, and the teacher's output of every block for them."""
        count = len(self._cache.tasks[task].targets)
        targets = [self._batch(f"{task}.targets.{k}", index) for k in range(count)]
        return self.inputs(task, index), targets

    def stream(
        self, draws: Iterable[tuple[str, NDArray[np.int64]]]
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Training batches in the order of `draws`, each a task and the positions of its images."""
        if self.on_device:
            # All positions in one copy: one per step would wait for the device every time.
            every = list(draws)
            index_NB = torch.from_numpy(np.stack([index for _, index in every])).to(self._device)
            for (task, _), index_B in zip(every, index_NB, strict=True):
                yield self.training(task, index_B)
            return
        if not self._ahead:
            for task, index in draws:
                yield self.training(task, index)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[tuple[Tensor, list[Tensor]]] | None = None
            for task, index in draws:
                following = reader.submit(self.training, task, index)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _inputs(self, name: str, index: Index) -> Tensor:
        # By way of single precision: from half straight to bfloat16 takes a CPU five times as long.
        return self._batch(name, index).float().to(self._input_type)

    def _batch(self, name: str, index: Index) -> Tensor:
        if name in self._tensors:
            if isinstance(index, np.ndarray):
                index = torch.from_numpy(index).to(self._device)
            return to_channels_last(self._tensors[name][index])
        assert not isinstance(index, Tensor), "positions go to the device with the features"
        # NumPy copies the images that are asked for and nothing else of a memory-mapped file.
        batch = torch.from_numpy(self._arrays[name][index])
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(self._device, non_blocking=True)
        return batch.permute(0, 3, 1, 2) if batch.ndim == 4 else batch


def _named(cache: FeatureCache) -> Iterator[tuple[str, NDArray[np.float16]]]:
    """Every array of a cache with a name of its own."""
    for task, features in cache.tasks.items():
        yield f"{task}.inputs", features.inputs
        yield f"{task}.validation", features.validation
        for k, target in enumerate(features.targets):
            yield f"{task}.targets.{k}", target
