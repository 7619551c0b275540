"""Networks that are put together per image against fixed levels, formulas and one by one."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from partitioning import Masks
from trainers.methods import METHODS, Problem
from trainers.methods.elastic import ElasticNetworks, ElasticPart
from trainers.networks import Backbone, BackboneConfig, build_backbone

SIZE = 32
TASKS = ("one", "two")
CPU = torch.device("cpu")
SIZES: dict[str, dict[str, Any]] = {
    "resnet14": {"width": 8},
    "wrn32": {"widen": 1},
    "resnet42": {"width": 8, "stem_stride": 2},
    "resnext29": {"groups": 4, "width": 4, "stem_stride": 2},
    "vgg16": {"width": 8, "hidden": 16},
    "simple_convnet": {"size": SIZE, "width": 8, "hidden": 16},
}
BESIDE_SHORTCUTS = ("resnet14", "wrn32", "resnet42", "resnext29")


def backbone_of(model: str, *, stream: bool = False) -> Backbone:
    """A small network, all of it trained."""
    blocks = "blocks.*" if model in ("vgg16", "simple_convnet") else "stage*"
    config = BackboneConfig(
        model=model, args=SIZES[model], partition=(blocks,), stream=stream, trunk="train"
    )
    return build_backbone(config, SIZE)


def networks_of(backbone: Backbone, method: str = "den", **settings: Any) -> ElasticNetworks:
    """Networks as training begins with them, whose norms have seen something."""
    problem = Problem(tasks=TASKS, backbone=backbone, seed=0, masks=Masks.load)
    plan = METHODS[method].build(problem, METHODS[method].settings(**settings))
    part = plan.parts["all"]
    assert isinstance(part, ElasticPart)
    classes = [3 if network.task == "one" else 5 for network in part.masks.networks]
    found = part.networks(
        backbone,
        classes,
        state=backbone.initial(2, 0),
        sizes=[SIZE] * len(classes),
        seed=0,
        device=CPU,
    )
    assert isinstance(found, ElasticNetworks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for row in found.rows:
            for own in (row.own, row.buffers):
                for name, tensor in own.items():
                    if tensor.is_floating_point() and bool(tensor.any() or "mean" in name):
                        tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for parameter in row.head:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            row.row.module.eval()
    return found


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def close(found: Tensor, wanted: Tensor) -> bool:
    """Whether logits agree within 1e-4 of the largest."""
    return bool((found - wanted).abs().max() <= 1e-4 * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("model", SIZES)
@torch.no_grad()
def test_a_model_of_one_level_is_that_levels_row(model: str) -> None:
    part = networks_of(backbone_of(model))
    for task in TASKS:
        for level in range(part.part.levels):
            levels = torch.full((6, len(part.blocks)), level)
            wanted = part(images(), part.row_of(task, level))
            assert close(part.chosen(images(), task, levels), wanted)


@pytest.mark.parametrize("model", SIZES)
@torch.no_grad()
def test_a_batch_is_image_by_image(model: str) -> None:
    part = networks_of(backbone_of(model), "auto_virtualnet")
    levels = torch.randint(
        part.part.levels, (6, len(part.blocks)), generator=torch.Generator().manual_seed(1)
    )
    together = part.chosen(images(), "two", levels)
    for at in range(6):
        alone = part.chosen(images()[at : at + 1], "two", levels[at : at + 1])
        assert close(together[at : at + 1], alone)


@pytest.mark.parametrize("model", BESIDE_SHORTCUTS)
@torch.no_grad()
def test_the_lowest_level_beside_a_shortcut_is_the_shortcut(model: str) -> None:
    part = networks_of(backbone_of(model))
    assert part.part.levels == 4
    x = torch.rand(2, *_reads(part, 1), generator=torch.Generator().manual_seed(2))
    row = part.row_of("one", 0)
    own = {**part.rows[row].own, **part.rows[row].buffers}
    block = part._at[row, 1]
    assert torch.equal(block(part.shared, own, x, training=False), x)
    assert torch.equal(block(part.shared, own, x, training=True), x)
    assert part.share["one"][1, 0] == 0


@torch.no_grad()
def test_blocks_in_a_row_keep_a_part_of_their_channels() -> None:
    part = networks_of(backbone_of("simple_convnet"), groups=2)
    assert part.part.levels == 2
    assert np.allclose(part.share["one"][0], [0.5, 1])


def test_one_level_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="groups must be at least 2 where blocks do not lie"):
        networks_of(backbone_of("simple_convnet"), groups=1)
    assert networks_of(backbone_of("resnet14"), groups=1).part.levels == 2


@pytest.mark.parametrize("model", ["resnet14", "wrn32"])
def test_densities_are_those_of_parameters(model: str) -> None:
    """By hand, of two convolutions and the shortcut's."""
    part = networks_of(backbone_of(model))
    for task, (number, block) in product(TASKS, enumerate(part.blocks)):
        weights = {
            name: tensor.numel()
            for name, tensor in part.shared.items()
            if name.startswith(f"{block.name}.") and tensor.ndim > 1
        }
        beside = sum(count for name, count in weights.items() if "shortcut" in name)
        whole = sum(weights.values())
        for level in range(part.part.levels):
            width = next(g.width for g in part.backbone.groups if g.name == block.groups[0])
            share = -(-level * width // 3) / width
            wanted = (beside + share * (whole - beside)) / whole
            assert float(part.share[task][number, level]) == pytest.approx(wanted)


@pytest.mark.parametrize("model", SIZES)
def test_densities_are_each_tasks_own(model: str) -> None:
    """Where channels cannot be split evenly, a task that begins with another part has more."""
    part = networks_of(backbone_of(model), "auto_virtualnet")
    for task, (number, block) in product(TASKS, enumerate(part.blocks)):
        for level in range(part.part.levels):
            used = part.used(part.row_of(task, level))
            own = [u for n, u in used.items() if n.startswith(f"{block.name}.") and u.ndim > 1]
            wanted = sum(int(u.sum()) for u in own) / sum(u.numel() for u in own)
            assert float(part.share[task][number, level]) == pytest.approx(wanted)
    if model == "wrn32":
        assert not torch.equal(part.share["one"], part.share["two"])


def test_streams_stay_whole_where_they_are_divided() -> None:
    part = networks_of(backbone_of("resnet14", stream=True))
    for group in part.backbone.groups:
        whole = part.part.masks.forward[group.name].all(axis=1)
        if group.kind == "stream":
            assert whole.all()
        else:
            assert whole.reshape(2, -1).tolist() == [[False] * 3 + [True] * 2] * 2


def test_a_step_changes_what_a_model_has_and_nothing_else() -> None:
    part = networks_of(backbone_of("wrn32"))
    levels = torch.zeros(6, len(part.blocks), dtype=torch.int64)
    levels[:, 2] = 1
    levels[:3, 7] = 2
    part.chosen(images(), "one", levels, training=True).square().mean().backward()
    for number, block in enumerate(part.blocks):
        used = part.used(part.row_of("one", int(levels[:, number].max())))
        for name, weight in part.shared.items():
            if name.startswith(f"{block.name}.conv"):
                gradient = weight.grad
                assert gradient is None or not gradient[~used[name]].any()
                if number in (2, 7):
                    assert gradient is not None
                    assert bool(gradient[used[name]].any())
    for level, number in ((1, 2), (2, 7)):
        name = f"{part.blocks[number].name}.bn2.weight"
        own = part.rows[part.row_of("one", level)].own[name]
        assert own.grad is not None
        assert part.rows[part.row_of("one", 3)].own[name].grad is None
        assert part.rows[part.row_of("two", level)].own[name].grad is None


@torch.no_grad()
def test_the_state_is_taken_again() -> None:
    backbone = backbone_of("resnet14")
    part, other = networks_of(backbone), networks_of(backbone)
    for parameter in other.selector.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(5))
    part.load(other.state())
    row = part.row_of("two", part.part.levels)
    assert torch.equal(part(images(), row), other(images(), row))
    assert part.budget_of(row) == 0
    assert part.stored([row]) - part.stored([row - 1]) == sum(
        parameter.numel() for parameter in part.selector.parameters()
    )


def test_tasks_of_auto_virtualnet_begin_with_parts_of_their_own() -> None:
    part = networks_of(backbone_of("resnet14"), "auto_virtualnet", groups=2)
    name = part.blocks[0].groups[0]
    first = part.part.masks.forward[name][part.row_of("one", 1)]
    second = part.part.masks.forward[name][part.row_of("two", 1)]
    assert (first ^ second).all()


def _reads(part: ElasticNetworks, number: int) -> tuple[int, ...]:
    """What a block of equal input and output reads."""
    outputs = {output.name: output.shape for output in part.backbone.outputs}
    return outputs[part.blocks[number].name]
