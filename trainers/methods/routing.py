"""Routing networks: at every depth one of several blocks, chosen for a task by its own router.

Rosenbaum, Klinger and Riemer 2018, "Routing networks: adaptive selection of non-linear functions
for multi-task learning": every block of a network is there several times (function blocks), all
tasks may use all of them, and each task has a router (an agent of its own for each task, with a
table of probabilities for each depth), which is trained by policy gradient while the blocks are.
The reward is what the image comes to; here minus the cross-entropy, less the mean of other images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from partitioning.settings import POSITIVE, at_least, checked, interval
from trainers import policy
from trainers.methods.copies import CopiedNetworks
from trainers.methods.elastic.frame import Frame, by_choice
from trainers.methods.networks import Part, SharedNetworks
from trainers.methods.phase_run import PhaseRun
from trainers.methods.plan import Phase, Plan, Problem, undivided
from trainers.networks import Backbone, resized


@dataclass(frozen=True, kw_only=True)
@checked()
class RoutingSettings:
    """Function blocks, and how routers learn.

    Attributes:
        functions: How many there are at every depth; None takes as many as tasks.
        rate: Learning rate of the routers' tables, without momentum.
        epsilon: Share of the choices that are drawn uniformly as training begins; falls to zero
            linearly.
    """

    functions: Annotated[int | None, at_least(1)] = None
    rate: Annotated[float, POSITIVE] = 0.1
    epsilon: Annotated[float, interval("[0, 1]")] = 0.2


@dataclass(frozen=True, kw_only=True)
class RoutingPhase(Phase):
    """A phase of blocks and routers together; attributes as of `RoutingSettings`."""

    rate: float
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class RoutingPart(Part):
    """A row for every task, whose blocks are there several times.

    Attributes:
        functions: How often.
    """

    functions: int

    def form(self, rows: Sequence[int]) -> list[object]:
        """All that decides what some rows compute, beside masks and weights."""
        return [*super().form(rows), self.functions]

    def networks(self, backbone: Backbone, classes: Sequence[int], **where: Any) -> SharedNetworks:
        """The networks, as training begins with them."""
        return RoutingNetworks(backbone, self, classes, **where)


def plan_routing(problem: Problem, settings: RoutingSettings) -> Plan:
    """All tasks, blocks and routers together."""
    functions = settings.functions or len(problem.tasks)
    part = RoutingPart(masks=undivided(problem), functions=functions)
    rows = tuple(range(len(problem.tasks)))
    phase = RoutingPhase(part="all", rows=rows, rate=settings.rate, epsilon=settings.epsilon)
    return Plan(parts={"all": part}, phases=(phase,))


class RoutingNetworks(CopiedNetworks):
    """Blocks that are there several times, and a table of every task's choices.

    Args:
        backbone: The network.
        part: Rows.
        classes: Of each row's head, (R,).
        where: state, seed and device of `SharedNetworks`.
    """

    part: RoutingPart

    def __init__(
        self, backbone: Backbone, part: RoutingPart, classes: Sequence[int], **where: Any
    ) -> None:
        self.blocks = [output.name for output in backbone.outputs]
        self._frame = Frame(backbone, self.blocks)
        super().__init__(
            backbone, part, classes, copies=part.functions, copied=self._frame.within, **where
        )
        self._modules = [resized(backbone.tail, {}).get_submodule(name) for name in self.blocks]
        #: Of every task's router, (T, n, functions).
        self.logits = torch.zeros(len(self.rows), len(self.blocks), part.functions)
        self.logits = self.logits.to(where["device"])

    def __call__(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits, the most probable way."""
        return self.routed(images, row, self.logits[row].argmax(-1).expand(len(images), -1))

    def routed(
        self, images: Tensor, row: int, ways_Bn: Tensor, *, training: bool = False
    ) -> Tensor:
        """Logits of images that take these function blocks."""
        way_Bn = ways_Bn.cpu().numpy()
        tensors = [self.tensors(row, function) for function in range(self.part.functions)]

        def block(number: int, x: Tensor) -> Tensor:
            module, prefix = self._modules[number], f"{self.blocks[number]}."

            def by_function(function: int, part: Tensor) -> Tensor:
                own = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in tensors[function].items()
                    if name.startswith(prefix)
                }
                module.train(training and self.backbone.can_normalise(len(part)))
                found: Tensor = functional_call(module, own, (part,))
                return found

            return by_choice(way_Bn[:, number], x, by_function)

        features = self._frame(tensors[0], images, block, training=training)
        return F.linear(features.float(), *self.rows[row].head)

    @torch.no_grad()
    def state(self, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """As of networks that share weights, with all functions and the routers' tables."""
        return {**super().state(rows), "routers": self.logits.cpu().clone()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors that `state` gave; rows that are not among them stay as they are."""
        super().load(state)
        self.logits.copy_(state["routers"])

    @torch.no_grad()
    def alone(self, row: int) -> dict[str, Tensor]:
        """A row's tensors as those of a `Network` of that row alone: its most probable blocks."""
        found = super().alone(row)
        for number, function in enumerate(self.logits[row].argmax(-1).tolist()):
            for name, tensor in self.tensors(row, function).items():
                if name.startswith(f"{self.blocks[number]}."):
                    of = "row0" if f"row0.{name}" in found else "shared"
                    found[f"{of}.{name}"] = tensor.detach().cpu().contiguous()
        return found

    @torch.no_grad()
    def stored(self, rows: Sequence[int]) -> int:
        """Numbers that must be kept for some rows: the blocks that their routers choose."""
        chosen = {
            (name, function)
            for row in rows
            for name, function in zip(
                self.blocks, self.logits[row].argmax(-1).tolist(), strict=True
            )
        }
        size = {name: self.shared[name].numel() for name in self.plain}
        blocks = sum(n for name, _ in chosen for of, n in size.items() if of.startswith(f"{name}."))
        read = {key for row in rows for n, key in self._keys(row).items() if n in self.plain}
        outside = sum(self.shared[key].numel() for key in read if not self._frame.within(key))
        own = sum(t.numel() for row in rows for t in self.rows[row].parameters())
        return outside + blocks + own


class RoutingRun(PhaseRun):
    """A phase of blocks and routers together."""

    _part: RoutingNetworks
    _phase: RoutingPhase

    def _backward(self, batches: Mapping[str, tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
        part, phase, losses = self._part, self._phase, {}
        epsilon = phase.epsilon * (1 - self._step / self._sgd.steps)
        for row in phase.rows:
            images, labels = batches[self._tasks[row]]
            table = part.logits[row].detach().requires_grad_()
            logits = table.expand(len(images), -1, -1)
            ways = policy.act(logits.detach(), epsilon, self._generator)
            with self._precision():
                found = part.routed(images, row, ways, training=True)
            each = F.cross_entropy(
                found.float(), labels, reduction="none", label_smoothing=self._sgd.label_smoothing
            )
            log_p = policy.log_probability(logits, ways, epsilon).sum(-1)
            loss = each.mean()
            (loss + policy.surrogate(log_p[None], each[None], baseline=True)).backward()
            with torch.no_grad():
                assert table.grad is not None
                part.logits[row] -= phase.rate * table.grad
            losses[row] = loss.detach()
        return losses
