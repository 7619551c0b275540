"""A network whose blocks are run from outside, and batches of which images go different ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from trainers.networks import Backbone, resized

#: Maps the number of a block and what it reads to what it gives.
Run = Callable[[int, Tensor], Tensor]


class Frame:
    """What a backbone is but for some blocks.

    Args:
        backbone: The network.
        names: Of the blocks.
    """

    def __init__(self, backbone: Backbone, names: Sequence[str]) -> None:
        self._backbone, self._names = backbone, tuple(names)
        self._inside = tuple(f"{name}." for name in names)
        self._run: Run | None = None
        #: By the size of images, whose stem has a stride of its own.
        self._modules: dict[int, nn.Module] = {}

    def within(self, name: str) -> bool:
        """Whether a tensor is one of the blocks'."""
        return name.startswith(self._inside)

    def __call__(
        self, tensors: Mapping[str, Tensor], images: Tensor, run: Run, *, training: bool
    ) -> Tensor:
        """Map normalised images (B, 3, S, S) to feature vectors (B, F).

        Args:
            tensors: By name; those of the blocks are left out.
            images: Of any size that the network has a stride for.
            run: Maps the number of a block and what it reads to what it gives.
            training: Whether batch norms use the batch's statistics.
        """
        size = images.shape[-1]
        if size not in self._modules:
            self._modules[size] = self._new(size)
        own = {name: tensor for name, tensor in tensors.items() if not self.within(name)}
        self._run = run
        try:
            features: Tensor = functional_call(self._modules[size].train(training), own, (images,))[
                1
            ]
        finally:
            self._run = None
        return features

    def _new(self, size: int) -> nn.Module:
        module = resized(self._backbone.tail, {})
        self._backbone.set_stride(module, size)
        for number, name in enumerate(self._names):
            module.set_submodule(name, _Place(partial(self._block, number)))
        return module

    def _block(self, number: int, x: Tensor) -> Tensor:
        assert self._run is not None
        return self._run(number, x)


class _Place(nn.Module):
    """Where a block stands."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = run

    def forward(self, x: Tensor) -> Tensor:
        """Map what the block reads to what it gives."""
        return self._run(x)


def by_choice(
    choice_B: NDArray[np.int64], x: Tensor, run: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """What images come to that go different ways, those of one way together.

    Args:
        choice_B: The way of every image.
        x: (B, ...), of the images.
        run: Maps a way and its images' part of x to what they come to.
    """
    outs, order = [], []
    for choice in np.unique(choice_B):
        at = np.flatnonzero(choice_B == choice)
        part = x if len(at) == len(x) else x.index_select(0, _index(at, x.device))
        outs.append(run(int(choice), part))
        order.append(at)
    if len(outs) == 1:
        return outs[0]
    back = np.argsort(np.concatenate(order), kind="stable")
    return torch.cat(outs).index_select(0, _index(back, x.device))


def _index(at: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(at).to(device)
