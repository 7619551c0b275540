"""A network that is chosen per image, with its selector, as programs that need torch alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from partitioning import write_atomically, write_json
from trainers.data import Task, normalise
from trainers.export import (
    ExportCheck,
    ExportError,
    RawImages,
    check_export,
    checked_split,
    described,
)
from trainers.methods.elastic.choices import chosen_costs
from trainers.methods.elastic.networks import ElasticNetworks
from trainers.network import contiguous_copy
from trainers.networks import bound, resized


class ExportedSelector(RawImages):
    """Says which levels the blocks of images' networks have.

    Args:
        part: Trained networks, on the CPU.
        row: One that is chosen per image.
        task: Its task.
    """

    def __init__(self, part: ElasticNetworks, row: int, task: Task) -> None:
        super().__init__(task)
        self.selector = part.selector
        self._task = part.tasks.index(task.name)
        self._budget = part.budget_of(row)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 RGB images (B, 3, S, S) to levels (B, n), int64."""
        logits: Tensor = self.selector(self.normalised(images), self._task)
        return logits[:, self._budget].argmax(-1)


class ExportedNetwork(RawImages):
    """Computes the network that some levels make; what a level does not have is not computed.

    Args:
        part: Trained networks, on the CPU.
        row: One that is chosen per image.
        task: Its task.
    """

    def __init__(self, part: ElasticNetworks, row: int, task: Task) -> None:
        super().__init__(task)
        tensors, head = part.outside(task.name)
        tail = part.backbone.tail
        assert isinstance(tail, fx.GraphModule)
        frame, graph = resized(tail, {}), fx.Graph()
        _, features = graph.graph_copy(tail.graph, {})  # type: ignore[misc]
        (images,) = graph.find_nodes(op="placeholder")
        with graph.inserting_after(images):
            levels = graph.placeholder("levels")
        for number, block in enumerate(part.blocks):
            branches = _Branches(part.block_modules(task.name, number), number)
            frame.set_submodule(block.name, branches)
            for node in graph.find_nodes(op="call_module", target=block.name):
                node.args = (*node.args, levels)
        graph.output(features)
        part.backbone.set_stride(frame, task.size)
        found = fx.GraphModule(frame, graph)
        self.frame = bound(found, {n: contiguous_copy(t) for n, t in tensors.items()}).eval()
        weight, bias = head
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def forward(self, images: Tensor, levels: Tensor) -> Tensor:
        """Map uint8 RGB images (B, 3, S, S), all with the levels (n,), to logits (B, classes)."""
        logits: Tensor = self.head(self.frame(self.normalised(images), levels))
        return logits


class _Branches(nn.Module):
    """A block at all its levels, of which one is computed."""

    def __init__(self, levels: list[nn.Module], number: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self._number = number

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        """Map what the block reads to what it gives."""
        chosen = levels[self._number]

        def branch(at: int) -> Callable[[Tensor], Tensor]:
            def own(x: Tensor) -> Tensor:
                found: Tensor = self.levels[at](x)
                return found.contiguous()

            if at == len(self.levels) - 1:
                return own
            return lambda x: torch.cond(chosen == at, own, branch(at + 1), (x,))

        return branch(0)(x)


class ChosenPerImage:
    """An exported selector with its network: images of equal levels are run together.

    Args:
        folder: Of one network, as `export_chosen` wrote it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.selector, self.network = (
            torch.export.load(Path(folder) / f"{name}.pt2").module()
            for name in ("selector", "network")
        )

    @torch.no_grad()  # torch runs branches a thousand times slower where gradients may be wanted
    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 RGB images (B, 3, S, S) to logits (B, classes).

        Raises:
            ValueError: There are no images.
        """
        if not len(images):
            raise ValueError("there are no images to classify")
        levels, which_B = self.selector(images).unique(dim=0, return_inverse=True)
        groups = [(which_B == number).nonzero()[:, 0] for number in range(len(levels))]
        found = [self.network(images[at], own) for at, own in zip(groups, levels, strict=True)]
        logits = torch.empty(len(images), found[0].shape[1], dtype=found[0].dtype)
        for at, own in zip(groups, found, strict=True):
            logits[at] = own
        return logits


@torch.no_grad()
def export_chosen(part: ElasticNetworks, row: int, task: Task, folder: Path) -> ExportCheck:
    """Write a network that is chosen per image, checked as it would be loaded.

    `<folder>/` holds `selector.pt2` (uint8 images to levels), `network.pt2` (uint8 images and the
    levels of all of them to logits; what lies beyond a level is not computed) and `network.json`.
    `ChosenPerImage` runs both.

    Args:
        part: Trained networks, on the CPU, in evaluation mode.
        row: One that is chosen per image.
        task: Its task; the test split is used for the check where there is one.
        folder: Made if it is not there.

    Raises:
        ExportError: The programs do not choose or compute what the networks do.
    """
    split = checked_split(task)
    folder.mkdir(parents=True, exist_ok=True)
    size = torch.export.Dim("batch", min=1)
    images = torch.zeros(2, *task.splits[split].images.shape[1:], dtype=torch.uint8)
    levels = torch.zeros(len(part.blocks), dtype=torch.int64)
    with write_atomically(folder / "selector.pt2") as partial:
        module = ExportedSelector(part, row, task).eval()
        torch.export.save(
            torch.export.export(module, (images,), dynamic_shapes=({0: size},)), partial
        )
    with write_atomically(folder / "network.pt2") as partial:
        network = ExportedNetwork(part, row, task).eval()
        shapes = ({0: size}, None)
        torch.export.save(
            torch.export.export(network, (images, levels), dynamic_shapes=shapes), partial
        )
    check = _check(part, row, task, split, ChosenPerImage(folder))
    description = {
        **described(task, part.part.masks.networks[row].level),
        "chosen_per_image": True,
        "blocks": [block.name for block in part.blocks],
        "levels": part.part.levels,
        **chosen_costs(part, row, task, split),
        "split": split,
        "accuracy": check.accuracy,
        "max_logit_difference": check.max_difference,
    }
    write_json(folder / "network.json", description)
    return check


def _check(
    part: ElasticNetworks, row: int, task: Task, split: str, exported: ChosenPerImage
) -> ExportCheck:
    """Run both over a split, and compare every choice and every logit."""
    data, batch = task.splits[split], part.backbone.batch
    budget = part.budget_of(row)
    for start in range(0, len(data), batch):
        images, _ = data.batch(start, start + batch)
        wanted = part.choose(normalise(images, task), task.name)[:, budget]
        if not torch.equal(exported.selector(images), wanted):
            raise ExportError(f"the selector of {task.name} does not choose what was chosen")
    return check_export(exported, lambda images: part(images, row), task, split, batch)
