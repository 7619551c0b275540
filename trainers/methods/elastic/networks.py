"""Networks whose blocks have levels: every fixed level, and one that a selector puts together.

Kim et al. and Ahn et al. keep channels outside blocks as they are. A row of the masks is a level of
a task, the same in all blocks; for an image, blocks of several rows make a network. What lies
outside blocks, and the head, is a task's own; norms within a block are those of task and level,
since what they normalise has other statistics at each (as in slimmable networks, Yu et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.methods.elastic.blocks import LevelBlock, find_blocks
from trainers.methods.elastic.frame import Frame, by_choice
from trainers.methods.elastic.selector import Selector
from trainers.methods.networks import Part, SharedNetworks
from trainers.networks import Backbone


@dataclass(frozen=True, kw_only=True)
class ElasticPart(Part):
    """Rows that are levels of blocks, and for each task one or more that are chosen per image.

    Attributes:
        levels: How many of a task's rows are fixed levels, ascending; those after them have all
            channels, of which a selector takes some for every image.
        cost_weights: rho, for each of these, ascending in what they may cost.
        width: Channels of the selector's first block.
        tau: With how much more weight the selector begins with whole blocks.
    """

    levels: int
    cost_weights: tuple[float, ...]
    width: int
    tau: float

    def form(self, rows: Sequence[int]) -> list[object]:
        """All that decides what some rows compute, beside masks and weights."""
        own: list[object] = [self.levels, len(self.cost_weights), self.width, self.tau]
        if any(self.masks.networks[row].level >= self.levels for row in rows):
            own += self.cost_weights  # which say nothing of fixed levels
        return [*super().form(rows), *own]

    def networks(self, backbone: Backbone, classes: Sequence[int], **where: Any) -> SharedNetworks:
        """The networks, as training begins with them."""
        return ElasticNetworks(backbone, self, classes, **where)


class ElasticNetworks(SharedNetworks):
    """A backbone's weights once, the rows of all levels, and a selector.

    Args:
        backbone: The network.
        part: Rows.
        classes: Of each row's head, (R,).
        where: state, sizes, seed and device of `SharedNetworks`.
    """

    part: ElasticPart

    def __init__(
        self, backbone: Backbone, part: ElasticPart, classes: Sequence[int], **where: Any
    ) -> None:
        super().__init__(backbone, part, classes, **where)
        self.tasks = part.masks.tasks
        self.blocks = find_blocks(backbone)
        self._frame = Frame(backbone, [block.name for block in self.blocks])
        #: The position of what a task's masks begin with, by task.
        self._first = {
            task: [n.task for n in part.masks.networks].index(task) for task in self.tasks
        }
        kept_RU = backbone.kept(part.masks)
        made: dict[tuple[str, bytes], LevelBlock] = {}
        self._at: dict[tuple[int, int], LevelBlock] = {}
        for task in self.tasks:
            for level in range(part.levels):
                row = self.row_of(task, level)
                for number, block in enumerate(self.blocks):
                    key = block.name, kept_RU[row].tobytes()
                    if key not in made:
                        made[key] = LevelBlock(backbone, block, kept_RU[row])
                    self._at[row, number] = made[key]
        self._tie()
        self._leave_out(where["state"])
        self.selector = Selector(
            tasks=len(self.tasks),
            budgets=len(part.cost_weights),
            blocks=len(self.blocks),
            levels=part.levels,
            width=part.width,
            tau=part.tau,
            seed=[where["seed"], 1],
        ).to(where["device"])
        #: By task (n, h): share of a block's weights that a level uses, d of DEN's eq. 5.
        self.share = {task: self._shares(task) for task in self.tasks}

    def row_of(self, task: str, level: int) -> int:
        """The row of a task's level."""
        return self._first[task] + level

    def budget_of(self, row: int) -> int | None:
        """Which of a task's choices a row is; None for a fixed level."""
        level = row - self._first[self.part.masks.networks[row].task]
        return level - self.part.levels if level >= self.part.levels else None

    def __call__(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits; rows that are chosen, by the image."""
        budget = self.budget_of(row)
        if budget is None:
            return super().__call__(images, row)
        task = self.part.masks.networks[row].task
        return self.chosen(images, task, self.choose(images, task)[:, budget])

    @torch.no_grad()
    def choose(self, images: Tensor, task: str) -> Tensor:
        """The most probable levels (B, budgets, n) for normalised images."""
        return self.logits_of(images, task).argmax(-1)

    def logits_of(self, images: Tensor, task: str) -> Tensor:
        """What the selector says of levels, (B, budgets, n, h)."""
        found: Tensor = self.selector(images, self.tasks.index(task))
        return found

    def chosen(
        self, images: Tensor, task: str, levels_Bn: Tensor, *, training: bool = False
    ) -> Tensor:
        """Logits of images, each by the network that its levels make.

        In every block, images of one level are run together through its small module.

        Args:
            images: Normalised, (B, 3, S, S).
            task: Whose norms and head.
            levels_Bn: Of the blocks.
            training: Whether batch norms use the statistics of images run together.
        """
        level_Bn = levels_Bn.cpu().numpy()

        def block(number: int, x: Tensor) -> Tensor:
            def at_level(level: int, part: Tensor) -> Tensor:
                row = self.row_of(task, level)
                return self._at[row, number](
                    self.shared,
                    {**self.rows[row].own, **self.rows[row].buffers},
                    part,
                    training=training and self.backbone.can_normalise(len(part)),
                )

            return by_choice(level_Bn[:, number], x, at_level)

        tensors, head = self.outside(task)
        features = self._frame(tensors, images, block, training=training)
        return F.linear(features.float(), *head)

    def outside(self, task: str) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """A task's tensors outside blocks, by name, and weight and bias of its head."""
        top = self.rows[self.row_of(task, self.part.levels - 1)]
        shared = self.read(self.row_of(task, self.part.levels - 1))
        tensors: dict[str, Tensor] = {**shared, **top.own, **top.buffers}
        weight, bias = top.head
        return {n: t for n, t in tensors.items() if not self._frame.within(n)}, (weight, bias)

    def block_modules(self, task: str, number: int) -> list[nn.Module]:
        """A block of a task at each level, as modules with copies of their tensors."""
        found = []
        for level in range(self.part.levels):
            row = self.rows[self.row_of(task, level)]
            block = self._at[self.row_of(task, level), number]
            found.append(block.alone(self.shared, {**row.own, **row.buffers}))
        return found

    def alone(self, row: int) -> dict[str, Tensor]:
        """A row's tensors as those of a `Network` of that row alone.

        Raises:
            ValueError: The row is chosen per image.
        """
        if self.budget_of(row) is not None:
            raise ValueError(f"{self.part.masks.networks[row]} is chosen per image, no one network")
        return super().alone(row)

    def parameters(
        self, rows: Sequence[int], changes: str
    ) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """As of networks that share weights, each once."""
        both = super().parameters(rows, changes)
        decayed, others = (list({id(p): p for p in found}.values()) for found in both)
        return decayed, others

    @torch.no_grad()
    def state(self, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """As of networks that share weights, and the selector's tensors."""
        found = super().state(rows)
        own = self.selector.state_dict()
        found |= {f"selector.{n}": t.detach().cpu().contiguous().clone() for n, t in own.items()}
        return found

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors that `state` gave."""
        super().load(state)
        at = len("selector.")
        own = {n[at:]: t for n, t in state.items() if n.startswith("selector.")}
        self.selector.load_state_dict(own)

    @torch.no_grad()
    def stored(self, rows: Sequence[int]) -> int:
        """Numbers that must be kept for some rows; the selector's where it chooses one."""
        selects = any(self.budget_of(row) is not None for row in rows)
        own = sum(p.numel() for p in self.selector.parameters()) if selects else 0
        return super().stored(rows) + own

    def kept_by(self, task: str, levels_Bn: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(B, units): what the networks of some images have."""
        kept_RU = self.backbone.kept(self.part.masks)
        found = np.repeat(kept_RU[[self.row_of(task, self.part.levels - 1)]], len(levels_Bn), 0)
        for number, block in enumerate(self.blocks):
            rows_B = self.row_of(task, 0) + levels_Bn[:, number]
            for each in self.backbone.division.groups:
                if each.group.name in block.groups:
                    found[:, each.units] = kept_RU[rows_B][:, each.units]
        return found

    def _tie(self) -> None:
        """Give all rows of a task the norms outside blocks and the head of its highest level.

        Rows that are chosen have no tensors of their own.
        """
        for task in self.tasks:
            top = self.rows[self.row_of(task, self.part.levels - 1)]
            for level in range(self.part.levels + len(self.part.cost_weights)):
                at = self.row_of(task, level)
                if level >= self.part.levels:
                    self.rows[at] = top
                    continue
                row = self.rows[at]
                row.head = top.head
                row.own |= {n: t for n, t in top.own.items() if not self._frame.within(n)}
                row.buffers |= {n: t for n, t in top.buffers.items() if not self._frame.within(n)}

    @torch.no_grad()
    def _leave_out(self, state: Mapping[str, Tensor]) -> None:
        """Let blocks without channels be their shortcuts: norms of nothing give nothing.

        Args:
            state: Whole tensors by name, on the CPU.
        """
        reads = _inputs_of(self.backbone, [block.name for block in self.blocks])
        nothing: dict[LevelBlock, list[str]] = {}
        for (row, number), block in self._at.items():
            if block not in nothing:
                nothing[block] = block.norms_of_nothing(state, reads[number])
            for name in nothing[block]:
                for tensor in ("weight", "bias"):
                    if (own := self.rows[row].own.get(f"{name}.{tensor}")) is not None:
                        own.zero_()
                        own.requires_grad_(False)

    def _shares(self, task: str) -> Tensor:
        found = torch.zeros(len(self.blocks), self.part.levels)
        for level in range(self.part.levels):
            used = self.used(self.row_of(task, level))
            for number, block in enumerate(self.blocks):
                own = [u for n, u in used.items() if n.startswith(f"{block.name}.") and u.ndim > 1]
                own = [u for u in own if u.numel()]
                total = sum(u.numel() for u in own)
                found[number, level] = sum(int(u.sum()) for u in own) / total
        return found


@torch.no_grad()
def _inputs_of(backbone: Backbone, names: Sequence[str]) -> list[Tensor]:
    """What blocks read of two random images."""
    found: dict[str, Tensor] = {}

    def note(name: str, given: Tensor) -> None:
        found[name] = given.clone()

    hooks = [
        backbone.tail.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: note(name, args[0])
        )
        for name in names
    ]
    training = backbone.tail.training
    backbone.tail.eval()
    try:
        backbone.tail(torch.rand(2, *backbone.boundary))
    finally:
        for hook in hooks:
            hook.remove()
        backbone.tail.train(training)
    return [found[name] for name in names]
