"""Cross-stitch networks: a network for each task, whose maps are mixed behind every block.

Misra et al. 2016, "Cross-stitch networks for multi-task learning", eq. 1: the input of task a's
next block is sum_b alpha_ab x_b, with x_b what task b's block gives, and alpha learnt, here one
matrix behind every block. An image of any task goes through all networks, so that a task costs as
many multiply-accumulates and weights as all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

from partitioning.settings import checked, interval
from trainers.methods.copies import CopiedNetworks
from trainers.methods.networks import Part, SharedNetworks
from trainers.methods.plan import Plan, Problem, all_together, undivided
from trainers.networks import Backbone, resized


@dataclass(frozen=True, kw_only=True)
@checked()
class CrossStitchSettings:
    """How networks begin to be mixed.

    Attributes:
        own: alpha of a task's own network as training begins; the others share the rest.
    """

    own: Annotated[float, interval("[0, 1]")] = 0.9


@dataclass(frozen=True, kw_only=True)
class CrossStitchPart(Part):
    """A network for every task, each with maps of all.

    Attributes:
        own: alpha of a task's own network as training begins.
    """

    own: float

    @property
    def copies(self) -> int:
        """All networks are computed for an image of any task."""
        return len(self.masks.networks)

    def form(self, rows: Sequence[int]) -> list[object]:
        """All that decides what some rows compute, beside masks and weights."""
        return [*super().form(rows), self.own]

    def networks(self, backbone: Backbone, classes: Sequence[int], **where: Any) -> SharedNetworks:
        """The networks, as training begins with them."""
        return CrossStitchNetworks(backbone, self, classes, **where)


def plan_cross_stitch(problem: Problem, settings: CrossStitchSettings) -> Plan:
    """All networks together."""
    return all_together(CrossStitchPart(masks=undivided(problem), own=settings.own))


class CrossStitchNetworks(CopiedNetworks):
    """A backbone for every task, and how their maps are mixed.

    An image of a task goes through all networks with the norms that these have for that task. The
    head is the task's own.

    Args:
        backbone: The network.
        part: Rows.
        classes: Of each row's head, (R,).
        where: state, seed and device of `SharedNetworks`.
    """

    part: CrossStitchPart

    def __init__(
        self, backbone: Backbone, part: CrossStitchPart, classes: Sequence[int], **where: Any
    ) -> None:
        count = part.copies
        if set(where["sizes"]) != {backbone.boundary[-1]}:
            raise ValueError("cross-stitch networks mix maps of images of one size: leave out size")
        super().__init__(backbone, part, classes, copies=count, copied=lambda name: True, **where)
        names = [output.name for output in backbone.outputs]
        for name in names:
            alpha = torch.full((count, count), (1 - part.own) / max(1, count - 1))
            alpha.fill_diagonal_(part.own if count > 1 else 1.0)
            self.shared[f"{_ALPHA}{name}"] = nn.Parameter(alpha.to(where["device"]))
        self._lockstep = _Lockstep(resized(backbone.tail, {}), frozenset(names))

    def __call__(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes of the row)."""
        networks = [self.tensors(row, copy) for copy in range(self.part.copies)]
        alphas = {n[len(_ALPHA) :]: t for n, t in self.shared.items() if n.startswith(_ALPHA)}
        training = self.rows[row].row.module.training
        features = self._lockstep.features(networks, alphas, images, row, training=training)
        return F.linear(features.float(), *self.rows[row].head)

    def parameters(
        self, rows: Sequence[int], changes: str
    ) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """As of networks that share weights; what mixes them is not decayed."""
        decayed, others = super().parameters(rows, changes)
        alphas = {id(t) for n, t in self.shared.items() if n.startswith(_ALPHA)}
        others = [*others, *(p for p in decayed if id(p) in alphas)]
        return [p for p in decayed if id(p) not in alphas], others

    def alone(self, row: int) -> dict[str, Tensor]:
        """Refused: a row is no network without the others.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"the network of {self.part.masks.networks[row].task} is mixed with those of all tasks "
            "behind every block, so it is none alone: cross-stitch networks are not exported"
        )

    @torch.no_grad()
    def stored(self, rows: Sequence[int]) -> int:
        """Numbers that must be kept for some rows: all networks for any of them."""
        own = (t for row in rows for t in (*self.rows[row].parameters(), *self.norms(row)))
        return sum(t.numel() for t in (*self.shared.values(), *own))


class _Lockstep(fx.Interpreter):
    """Runs a network for several sets of tensors at once; blocks are where these are mixed.

    Args:
        module: Of the tail.
        blocks: Names.
    """

    def __init__(self, module: nn.Module, blocks: frozenset[str]) -> None:
        assert isinstance(module, fx.GraphModule)
        super().__init__(module)
        self._blocks = blocks

    def features(
        self,
        networks: Sequence[Mapping[str, Tensor]],
        alphas: Mapping[str, Tensor],
        images: Tensor,
        row: int,
        *,
        training: bool,
    ) -> Tensor:
        """Feature vectors (B, F) of one of the networks."""
        self._networks, self._alphas = networks, alphas
        assert isinstance(self.module, nn.Module)
        self.module.train(training)
        found: list[Any] = self.run(_Each([images] * len(networks)))
        features: Tensor = found[row][1]
        return features

    def run_node(self, n: fx.Node) -> Any:
        """The node for every network, then the mixed maps where it is a block."""
        if n.op == "placeholder":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        count = len(self._networks)
        found = _Each(
            [self._one(n, _of_network(args, k), _of_network(kwargs, k), k) for k in range(count)]
        )
        if n.op == "call_module" and n.target in self._blocks:
            alpha = self._alphas[str(n.target)]
            stacked = torch.stack(list(found))  # (T, B, ...)
            mixed = torch.tensordot(alpha.to(stacked.dtype), stacked, dims=1)
            return _Each(list(mixed.unbind()))
        return found

    def _one(self, n: fx.Node, args: Any, kwargs: Any, number: int) -> Any:
        if n.op == "call_module":
            assert isinstance(n.target, str)
            prefix = f"{n.target}."
            own = {
                name.removeprefix(prefix): tensor
                for name, tensor in self._networks[number].items()
                if name.startswith(prefix)
            }
            assert isinstance(self.module, nn.Module)
            return functional_call(self.module.get_submodule(n.target), own, args, kwargs)
        if n.op == "get_attr":
            return self._networks[number][str(n.target)]
        return getattr(self, n.op)(n.target, args, kwargs)


class _Each(list[Any]):
    """What a node gives for every network."""


def _of_network(values: Any, number: int) -> Any:
    """Arguments of one network, of those that hold them for all."""
    if isinstance(values, _Each):
        return values[number]
    if isinstance(values, tuple | list):
        return type(values)(_of_network(value, number) for value in values)
    if isinstance(values, dict):
        return {key: _of_network(value, number) for key, value in values.items()}
    return values


#: Before the names of what mixes networks.
_ALPHA = "alpha."
