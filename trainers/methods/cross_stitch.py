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


class CrossStitchNetworks(SharedNetworks):
    """A backbone for every task, all with the same first weights, and how their maps are mixed.

    An image of a task goes through all networks with the norms that these have for that task: a
    network of T tasks has T times its norms. What a task's own has is its row's.

    Args:
        backbone: The network.
        part: Rows.
        classes: Of each row's head, (R,).
        state: Whole tensors by name that it begins with.
        seed: Of heads, and of weights.
        device: Where it is kept.
    """

    part: CrossStitchPart

    def __init__(
        self,
        backbone: Backbone,
        part: CrossStitchPart,
        classes: Sequence[int],
        *,
        state: Mapping[str, Tensor],
        seed: int,
        device: torch.device,
    ) -> None:
        super().__init__(backbone, part, classes, state=state, seed=seed, device=device)
        count = part.copies
        first = dict(self.shared)
        for network in range(1, count):
            pretrained = backbone.config.pretrained
            fresh = state if pretrained else backbone.initial(2, 1000 * network + seed)
            for name in first:
                weight = fresh[name].detach().to(device).clone()
                self.shared[f"{_of(network)}{name}"] = nn.Parameter(weight)
        #: Norms by row, and by the network that they are in: the row's own are in its own network.
        self._norms = [
            [
                {
                    **{
                        n: nn.Parameter(t.detach().clone(), t.requires_grad)
                        for n, t in row.own.items()
                    },
                    **{n: t.clone() for n, t in row.buffers.items()},
                }
                for _ in range(count - 1)
            ]
            for row in self.rows
        ]
        names = [output.name for output in backbone.outputs]
        off = (1 - part.own) / max(1, count - 1)
        for name in names:
            alpha = torch.full((count, count), off, device=device)
            self.shared[f"{_ALPHA}{name}"] = nn.Parameter(
                alpha.fill_diagonal_(part.own if count > 1 else 1.0)
            )
        self._lockstep = _Lockstep(resized(backbone.tail, {}), frozenset(names))

    def __call__(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes of the row)."""
        plain = {n: t for n, t in self.shared.items() if not n.startswith((_PREFIX, _ALPHA))}
        networks: list[dict[str, Tensor]] = []
        others = iter(self._norms[row])
        for number in range(self.part.copies):
            weights = {n: self.shared[f"{_of(number)}{n}"] for n in plain} if number else plain
            own = self.rows[row]
            norms = {**own.own, **own.buffers} if number == row else next(others)
            networks.append({**weights, **norms})
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
        for row in rows:
            for norms in self._norms[row]:
                others += [t for t in norms.values() if isinstance(t, nn.Parameter)]
        return [p for p in decayed if id(p) not in alphas], others

    @torch.no_grad()
    def state(self, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """As of networks that share weights, with the norms of all networks."""
        found = super().state(rows)
        for row in range(len(self.rows)) if rows is None else rows:
            for number, norms in enumerate(self._norms[row]):
                found |= {
                    f"row{row}.{_of(number)}{n}": t.detach().cpu().contiguous()
                    for n, t in norms.items()
                }
        return found

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors that `state` gave; rows that are not among them stay as they are."""
        super().load(state)
        for row, others in enumerate(self._norms):
            for number, norms in enumerate(others):
                for name, tensor in norms.items():
                    if (given := state.get(f"row{row}.{_of(number)}{name}")) is not None:
                        tensor.copy_(given)

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
        shared = sum(t.numel() for t in self.shared.values())
        own = sum(t.numel() for row in rows for t in self.rows[row].parameters())
        norms = [t for row in rows for each in self._norms[row] for t in each.values()]
        return shared + own + sum(t.numel() for t in norms if isinstance(t, nn.Parameter))


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


#: Before the names of weights of the networks from the second on, and of what mixes them.
_PREFIX, _ALPHA = "network", "alpha."


def _of(number: int) -> str:
    return f"{_PREFIX}{number}."
