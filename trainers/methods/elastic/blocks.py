"""The blocks of a backbone, what masks divide of each, and how a block is run at a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from trainers.network import contiguous_copy
from trainers.networks import NORMS, Backbone, Row, bound, tensors_of, used_by


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block whose channels have levels.

    Attributes:
        name: Of its module.
        groups: Names of the groups of channels that its layers make, but for residual streams.
    """

    name: str
    groups: tuple[str, ...]


def find_blocks(backbone: Backbone) -> tuple[Block, ...]:
    """The divided blocks of a backbone that have channels of their own.

    Raises:
        ValueError: There are none.
    """
    found = []
    for output in backbone.outputs:
        groups = tuple(
            group.name
            for group in backbone.groups
            if group.kind != "stream" and group.name.startswith(f"{output.name}.")
        )
        if groups:
            found.append(Block(name=output.name, groups=groups))
    if not found:
        raise ValueError(
            f"no divided block of {backbone.config.model} has channels of its own; name blocks in "
            "backbone.partition"
        )
    return tuple(found)


@torch.no_grad()
def can_be_left_out(backbone: Backbone, blocks: Sequence[Block]) -> bool:
    """Whether images still tell apart what a network gives that has no channel within its blocks.

    So it is where all blocks lie beside a shortcut.
    """
    kept = np.ones(backbone.division.units, dtype=np.bool_)
    names = {name for block in blocks for name in block.groups}
    for each in backbone.division.groups:
        if each.group.name in names:
            kept[each.units] = False
    row = Row(backbone.tail, backbone.division, kept)
    row.module.eval()
    images = torch.rand(2, *backbone.boundary, generator=torch.Generator().manual_seed(0))
    first, second = row(row.gather(tensors_of(backbone.tail)), images)[1]
    return not torch.equal(first, second)


class LevelBlock:
    """One block at one level: its module with smaller tensors, which reads and gives all channels.

    Args:
        backbone: The network.
        block: Which.
        kept: (units,): what a row of that level uses.
    """

    def __init__(self, backbone: Backbone, block: Block, kept: NDArray[np.bool_]) -> None:
        here = np.ones_like(kept)
        for each in backbone.division.groups:
            if each.group.name in block.groups:
                here[each.units] = kept[each.units]
        self._row = Row(backbone.tail, backbone.division, here)
        self._module = self._row.module.get_submodule(block.name)
        self._prefix = f"{block.name}."
        self._names = [n for n in tensors_of(backbone.tail) if n.startswith(self._prefix)]
        (output,) = (each for each in backbone.outputs if each.name == block.name)
        self._places: _Widen | None = None
        if output.owner is not None and output.dim is not None:
            alone = backbone.division.alone(here[None])[0]
            places = np.flatnonzero(used_by(output.owner, alone))
            if len(places) < output.owner.size:
                self._places = _Widen(torch.from_numpy(places), output.dim, output.owner.size)

    def norms_of_nothing(self, tensors: Mapping[str, Tensor], x: Tensor) -> list[str]:
        """Norms that are given zeros alone, whatever the block reads: behind layers without input.

        Args:
            tensors: Of the whole network, by name.
            x: What the block might read.
        """
        found: dict[str, bool] = {}

        def look(name: str, given: Tensor) -> None:
            found[name] = not bool(given.any())

        hooks = [
            module.register_forward_pre_hook(lambda _, args, name=name: look(name, args[0]))
            for name, module in self._module.named_modules()
            if isinstance(module, NORMS)
        ]
        try:
            self(tensors, {}, x, training=False)
        finally:
            for hook in hooks:
                hook.remove()
        return [f"{self._prefix}{name}" for name, zeros in found.items() if zeros]

    def __call__(
        self,
        shared: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        x: Tensor,
        *,
        training: bool,
    ) -> Tensor:
        """What the block gives, with zeros for channels that it does not have.

        Args:
            shared: Whole tensors by name, of which the block's part is gathered.
            own: Tensors by name that are as small as the level's already.
            x: What it reads.
            training: Whether batch norms use the batch's statistics.
        """
        self._module.train(training)
        out: Tensor = functional_call(self._module, self._tensors(shared, own), (x,))
        return out if self._places is None else self._places(out)

    def alone(self, shared: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> nn.Module:
        """The block as a module with copies of its tensors, in evaluation."""
        tensors = {n: contiguous_copy(t) for n, t in self._tensors(shared, own).items()}
        found = bound(self._module, tensors).eval()
        return found if self._places is None else nn.Sequential(found, self._places)

    def _tensors(
        self, shared: Mapping[str, Tensor], own: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """By the names that the block itself has for them."""
        found = self._row.gather({n: shared[n] for n in self._names if n in shared})
        found |= {n: own[n] for n in self._names if n in own}
        return {n.removeprefix(self._prefix): t for n, t in found.items()}


class _Widen(nn.Module):
    """Puts channels in their places among zeros.

    Args:
        places: Of each channel.
        dim: Of channels.
        width: With the zeros.
    """

    places: Tensor

    def __init__(self, places: Tensor, dim: int, width: int) -> None:
        super().__init__()
        self.register_buffer("places", places)
        self._dim, self._width = dim, width

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., channels, ...) to (..., width, ...)."""
        shape = list(x.shape)
        shape[self._dim] = self._width
        return x.new_zeros(shape).index_copy(self._dim, self.places.to(x.device), x)
