"""A network whose blocks are run from outside, and batches of which images go different ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from trainers.networks import Backbone, resized


class Frame:
    """What a backbone is but for some blocks.

    Args:
        backbone: The network.
        names: Of the blocks.
        run: Maps the number of a block and what it reads to what it gives.
    """

    def __init__(
        self, backbone: Backbone, names: Sequence[str], run: Callable[[int, Tensor], Tensor]
    ) -> None:
        self._backbone, self._module = backbone, resized(backbone.tail, {})
        self._inside = tuple(f"{name}." for name in names)
        for number, name in enumerate(names):
            self._module.set_submodule(name, _Place(number, run))

    def within(self, name: str) -> bool:
        """Whether a tensor is one of the blocks'."""
        return name.startswith(self._inside)

    def __call__(
        self, tensors: Mapping[str, Tensor], images: Tensor, *, training: bool = False
    ) -> Tensor:
        """Map normalised images (B, 3, S, S) to feature vectors (B, F).

        Args:
            tensors: By name; those of the blocks are left out.
            images: Of any size that the network has a stride for.
            training: Whether batch norms use the batch's statistics.
        """
        self._backbone.set_stride(self._module, images.shape[-1])
        self._module.train(training)
        own = {name: tensor for name, tensor in tensors.items() if not self.within(name)}
        features: Tensor = functional_call(self._module, own, (images,))[1]
        return features


class _Place(nn.Module):
    """Where a block stands."""

    def __init__(self, number: int, run: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self._number, self._run = number, run

    def forward(self, x: Tensor) -> Tensor:
        """Map what the block reads to what it gives."""
        return self._run(self._number, x)


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
