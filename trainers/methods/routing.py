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

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from partitioning.settings import POSITIVE, at_least, checked, interval
from trainers import policy
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


class RoutingNetworks(SharedNetworks):
    """Blocks that are there several times, and a table of every task's choices.

    The first of each block is that of the backbone; the others begin with other weights. Norms
    within a block are those of task and function.

    Args:
        backbone: The network.
        part: Rows.
        classes: Of each row's head, (R,).
        state: Whole tensors by name that it begins with.
        seed: Of heads, and of the other blocks.
        device: Where it is kept.
    """

    part: RoutingPart

    def __init__(
        self,
        backbone: Backbone,
        part: RoutingPart,
        classes: Sequence[int],
        *,
        state: Mapping[str, Tensor],
        seed: int,
        device: torch.device,
    ) -> None:
        super().__init__(backbone, part, classes, state=state, seed=seed, device=device)
        self.blocks = [output.name for output in backbone.outputs]
        self._frame = Frame(backbone, self.blocks, self._run_block)
        self._modules = [resized(backbone.tail, {}).get_submodule(name) for name in self.blocks]
        self.logits = nn.Parameter(
            torch.zeros(len(part.masks.networks), len(self.blocks), part.functions, device=device),
            requires_grad=False,
        )
        inside = [name for name in self.shared if self._frame.within(name)]
        #: By task and function, from the second on: the norms that it has in its blocks.
        self._norms: list[list[dict[str, Tensor]]] = [[] for _ in self.rows]
        for function in range(1, part.functions):
            fresh = (
                backbone.initial(2, 1000 * function + seed)
                if not backbone.config.pretrained
                else state
            )
            for name in inside:
                weight = nn.Parameter(fresh[name].detach().to(device).clone())
                self.shared[f"{_of(function)}{name}"] = weight
            for norms, row in zip(self._norms, self.rows, strict=True):
                own: dict[str, Tensor] = {
                    name: nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
                    for name, tensor in row.own.items()
                    if self._frame.within(name)
                }
                own |= {n: t.clone() for n, t in row.buffers.items() if self._frame.within(n)}
                norms.append(own)
        self._choice: tuple[int, NDArray[np.int64], bool] | None = None

    def __call__(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits, the most probable way."""
        ways = self.logits[row].argmax(-1).expand(len(images), -1)
        return self.routed(images, row, ways)

    def routed(
        self, images: Tensor, row: int, ways_Bn: Tensor, *, training: bool = False
    ) -> Tensor:
        """Logits of images that take these function blocks."""
        own = self.rows[row]
        self._choice = row, ways_Bn.cpu().numpy(), training
        try:
            tensors = {**self.shared, **own.own, **own.buffers}
            plain = {name: t for name, t in tensors.items() if not name.startswith(_PREFIX)}
            features = self._frame(plain, images, training=training)
        finally:
            self._choice = None
        return F.linear(features.float(), *own.head)

    def _run_block(self, number: int, x: Tensor) -> Tensor:
        assert self._choice is not None
        row, ways_Bn, training = self._choice
        prefix = f"{self.blocks[number]}."

        def run(function: int, part: Tensor) -> Tensor:
            tensors = self._tensors(row, function)
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            smallest = self.backbone.smallest_map
            enough = smallest is None or len(part) * smallest >= 2
            self._modules[number].train(training and enough)
            found: Tensor = functional_call(self._modules[number], own, (part,))
            return found

        return by_choice(ways_Bn[:, number], x, run)

    def _tensors(self, row: int, function: int) -> dict[str, Tensor]:
        """The tensors of a function's blocks as a task has them, by the backbone's names."""
        own: dict[str, Tensor] = {**self.rows[row].own, **self.rows[row].buffers}
        if not function:
            return {**self.shared, **own}
        at = len(_of(function))
        shared = {n[at:]: t for n, t in self.shared.items() if n.startswith(_of(function))}
        return {**shared, **self._norms[row][function - 1]}

    def parameters(
        self, rows: Sequence[int], changes: str
    ) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """As of networks that share weights, and the norms of all functions."""
        decayed, others = super().parameters(rows, changes)
        more = [
            tensor
            for row in rows
            for norms in self._norms[row]
            for tensor in norms.values()
            if isinstance(tensor, nn.Parameter)
        ]
        return [*decayed, *(p for p in more if p.ndim > 1)], [
            *others,
            *(p for p in more if p.ndim <= 1),
        ]

    @torch.no_grad()
    def state(self, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """As of networks that share weights, with all functions and the routers' tables."""
        found = super().state(rows)
        for row in range(len(self.rows)) if rows is None else rows:
            for function, norms in enumerate(self._norms[row], start=1):
                for name, tensor in norms.items():
                    found[f"row{row}.{_of(function)}{name}"] = tensor.detach().cpu().contiguous()
        found["routers"] = self.logits.detach().cpu().clone()
        return found

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors that `state` gave; rows that are not among them stay as they are."""
        super().load(state)
        for row, norms_of_row in enumerate(self._norms):
            for function, norms in enumerate(norms_of_row, start=1):
                for name, tensor in norms.items():
                    if (given := state.get(f"row{row}.{_of(function)}{name}")) is not None:
                        tensor.copy_(given)
        self.logits.copy_(state["routers"])

    @torch.no_grad()
    def alone(self, row: int) -> dict[str, Tensor]:
        """A row's tensors as those of a `Network` of that row alone: its most probable blocks."""
        found = super().alone(row)
        found = {n: t for n, t in found.items() if not n.startswith(f"shared.{_PREFIX}")}
        for number, function in enumerate(self.logits[row].argmax(-1).tolist()):
            for name, tensor in self._tensors(row, function).items():
                if name.startswith(f"{self.blocks[number]}."):
                    of = "row0" if f"row0.{name}" in found else "shared"
                    found[f"{of}.{name}"] = tensor.detach().cpu().contiguous()
        return found

    @torch.no_grad()
    def stored(self, rows: Sequence[int]) -> int:
        """Numbers that must be kept for some rows: the blocks that their routers choose."""
        names = {
            (number, function)
            for row in rows
            for number, function in enumerate(self.logits[row].argmax(-1).tolist())
        }
        whole = {
            number: sum(t.numel() for n, t in self.shared.items() if n.startswith(f"{name}."))
            for number, name in enumerate(self.blocks)
        }
        outside = sum(
            t.numel()
            for n, t in self.shared.items()
            if not n.startswith(_PREFIX) and not self._frame.within(n)
        )
        own = sum(t.numel() for row in rows for t in self.rows[row].parameters())
        return outside + own + sum(whole[number] for number, _ in names)


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
            which, uniform, any_ = torch.rand(
                (3, *logits.shape[:2]), generator=self._generator, device=images.device
            )
            drawn = policy.draw(logits.detach(), uniform)
            ways = policy.explore(drawn, which, policy.draw_any(any_, part.part.functions), epsilon)
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


#: Before the names of weights of the functions from the second on.
_PREFIX = "function"


def _of(function: int) -> str:
    return f"{_PREFIX}{function}."
