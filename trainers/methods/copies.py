"""Networks of which a backbone's weights, or those of its blocks, are there several times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers.methods.networks import Part, SharedNetworks
from trainers.networks import Backbone

#: Before the names of weights of the copies from the second on.
PREFIX = "copy"


class CopiedNetworks(SharedNetworks):
    """Weights several times, and for each row the norms that it has in every copy.

    The first copy is the backbone's; the others begin with other weights, or with the same ones if
    these are given.

    Args:
        backbone: The network.
        part: Rows.
        classes: Of each row's head, (R,).
        copies: How many.
        copied: Whether a tensor is, by its name; others are there once.
        state: Whole tensors by name that it begins with.
        seed: Of heads, and of the other copies.
        device: Where it is kept.
        where: sizes of `SharedNetworks`.
    """

    def __init__(
        self,
        backbone: Backbone,
        part: Part,
        classes: Sequence[int],
        *,
        copies: int,
        copied: Callable[[str], bool],
        state: Mapping[str, Tensor],
        seed: int,
        device: torch.device,
        **where: Any,
    ) -> None:
        super().__init__(backbone, part, classes, state=state, seed=seed, device=device, **where)
        for copy in range(1, copies):
            given = backbone.config.pretrained
            fresh = state if given else backbone.initial(2, 1000 * copy + seed)
            for name in filter(copied, self.plain):
                weight = fresh[name].detach().to(device).clone()
                self.shared[f"{_of(copy)}{name}"] = nn.Parameter(weight)
        #: By row and copy, from the second on.
        self._norms: list[list[dict[str, Tensor]]] = [
            [
                {
                    name: nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
                    for name, tensor in row.own.items()
                    if copied(name)
                }
                | {name: tensor.clone() for name, tensor in row.buffers.items() if copied(name)}
                for _ in range(1, copies)
            ]
            for row in self.rows
        ]

    def tensors(self, row: int, copy: int) -> dict[str, Tensor]:
        """A copy's tensors as a row has them, by the backbone's names."""
        own = self.rows[row]
        found: dict[str, Tensor] = {**self.read(row), **own.own, **own.buffers}
        if copy:
            at = len(_of(copy))
            found |= {n[at:]: t for n, t in self.shared.items() if n.startswith(_of(copy))}
            found |= self._norms[row][copy - 1]
        return found

    def parameters(
        self, rows: Sequence[int], changes: str
    ) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """As of networks that share weights, and the norms of all copies."""
        decayed, others = super().parameters(rows, changes)
        return decayed, [*others, *(p for row in rows for p in self.norms(row))]

    def norms(self, row: int) -> list[nn.Parameter]:
        """What a row trains of its norms in the copies from the second on."""
        found = (tensor for norms in self._norms[row] for tensor in norms.values())
        return [tensor for tensor in found if isinstance(tensor, nn.Parameter)]

    @torch.no_grad()
    def state(self, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """As of networks that share weights, with the norms of all copies."""
        found = super().state(rows)
        for row in range(len(self.rows)) if rows is None else rows:
            for name, tensor in self._named_norms(row).items():
                found[name] = tensor.detach().cpu().contiguous()
        return found

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors that `state` gave; rows that are not among them stay as they are."""
        super().load(state)
        for row in range(len(self.rows)):
            for name, tensor in self._named_norms(row).items():
                if name in state:
                    tensor.copy_(state[name])

    def _named_norms(self, row: int) -> dict[str, Tensor]:
        return {
            f"row{row}.{_of(copy)}{name}": tensor
            for copy, norms in enumerate(self._norms[row], start=1)
            for name, tensor in norms.items()
        }


def _of(copy: int) -> str:
    return f"{PREFIX}{copy}."
