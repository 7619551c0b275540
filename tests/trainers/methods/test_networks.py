"""Networks that share weights against what their papers say of gradients, sizes and layers."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partitioning import virtual_masks
from tests.trainers.methods.helpers import (
    BUILT,
    CPU,
    NAMES,
    networks_of,
    part_of,
    plan_of,
    row_alone,
    same,
)
from trainers.data import Task
from trainers.methods import Part, SharedNetworks
from trainers.network import cross_entropy
from trainers.networks import BackboneConfig, bound, build_backbone

ORDER = np.array([[0, 1, 2], [1, 0, 2], [0, 1, 2]])


def batches(tasks: Mapping[str, Task]) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: (torch.randn(6, 3, 8, 8, generator=generator), task.splits["train"].labels[:6])
        for name, task in tasks.items()
    }


def moved(part: SharedNetworks) -> SharedNetworks:
    """The networks with everything of theirs drawn anew, so that no two things are alike."""
    generator = torch.Generator().manual_seed(2)
    state = {
        name: t if not t.is_floating_point() else torch.rand(t.shape, generator=generator) + 0.1
        if name.endswith("running_var")
        else 0.2 * torch.randn(t.shape, generator=generator)
        for name, t in part.state().items()
    }  # fmt: skip
    part.load(state)
    for row in part.rows:
        row.row.module.eval()
    return part


@pytest.mark.parametrize(("widen", "units"), [(2, 2), (4, 2), (2, 4), (4, 4)])
def test_a_level_has_the_square_of_its_share_of_the_weights(widen: int, units: int) -> None:
    config = BackboneConfig(
        model="wrn32", args={"widen": widen}, partition=("stage*",), stream=True, trunk="train"
    )
    found = build_backbone(config, 32)
    tasks = [f"t{i}" for i in range(units)]
    masks = virtual_masks(tasks, found.groups, [list(range(1, units + 1))] * units)
    parameters = found.counter.count(found.kept(masks)).parameters.reshape(units, units)
    shares = parameters / parameters[:, -1:]
    # Those of the stem and of norms are linear in the share.
    np.testing.assert_allclose(shares, [(np.arange(units) + 1) ** 2 / units**2] * units, atol=0.003)


def test_the_joint_gradient_is_the_sum_over_levels(tasks: Mapping[str, Task]) -> None:
    """Kim et al. 2019, eq. 5; and exactly 0 where no level has a unit."""
    masks = virtual_masks(NAMES, BUILT.groups, [[1, 2], [1, 2], [1, 1]], order_TU=ORDER)
    data = batches(tasks)
    together = part_of(masks, tasks)
    rows = range(len(masks.networks))
    alone = []
    for row in rows:
        one = part_of(masks, tasks)
        images, labels = data[masks.networks[row].task]
        cross_entropy(one(images, row), labels).backward()
        cross_entropy(together(images, row), labels).backward()
        alone.append(one)
    for name, weight in together.shared.items():
        assert weight.grad is not None
        grads = [one.shared[name].grad for one in alone]
        expected = sum(g for g in grads if g is not None)
        torch.testing.assert_close(weight.grad, expected)
        used = torch.stack([together.used(row)[name] for row in rows])
        assert (weight.grad[~used.any(dim=0)] == 0).all()
        for row, grad in enumerate(grads):
            assert grad is None or (grad[~used[row]] == 0).all()
            assert grad is None or (grad[used[row]] != 0).any()
    unused = torch.cat([(~together.used(1)[n]).flatten() for n in together.shared])
    assert unused.float().mean() > 0.4, "the third unit is nobody's"


def test_a_level_s_weights_are_entries_of_the_next_level_s(tasks: Mapping[str, Task]) -> None:
    masks = virtual_masks(NAMES, BUILT.groups, [[1, 2, 3]] * 3, order_TU=ORDER)
    part = moved(part_of(masks, tasks))
    for task in NAMES:
        rows = [masks.row(task, level) for level in range(3)]
        modules = [row_alone(part, row).row(0)[1] for row in rows]
        places = [part.rows[row].row.places for row in rows]
        for small, large, below, above in zip(
            modules[:-1], modules[1:], places[:-1], places[1:], strict=True
        ):
            larger = dict(large.named_parameters())
            for name, weight in small.named_parameters():
                if name not in part.shared:
                    continue
                entries = larger[name].detach()
                for dim, of_row in below.get(name, {}).items():
                    has = above[name][dim].index_KN[0].tolist()
                    at = torch.tensor([has.index(i) for i in of_row.index_KN[0].tolist()])
                    assert len(at) < len(has)
                    entries = entries.index_select(dim, at)
                assert torch.equal(weight, entries), (task, name)


def test_rows_are_networks_with_these_masks(tasks: Mapping[str, Task]) -> None:
    masks = virtual_masks(NAMES, BUILT.groups, [[1, 2, 3]] * 3)
    part = moved(part_of(masks, tasks))
    images = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        for row in range(len(masks.networks)):
            torch.testing.assert_close(row_alone(part, row)(images, 0), part(images, row))


def test_what_is_kept_is_what_any_of_the_rows_uses(tasks: Mapping[str, Task]) -> None:
    masks = virtual_masks(NAMES, BUILT.groups, [[1, 2], [1, 2], [1, 1]], order_TU=ORDER)
    part = part_of(masks, tasks)
    classes = [tasks[network.task].num_classes for network in masks.networks]
    for row, count in enumerate(classes):
        head = (int(BUILT.read_by_head(BUILT.kept(masks))[row]) + 1) * count
        whole = BUILT.counter.count(BUILT.kept(masks)).parameters[row] + head
        assert part.stored([row]) == whole
    both = part.stored([0, 1])
    assert both < part.stored([0]) + part.stored([1]), "a level is within the next"
    assert both > part.stored([1]), "but for norms and heads"
    assert part.stored([0, 2]) > both - part.stored([1]) + part.stored([0])


def test_adapters_run_beside_the_convolutions(tasks: Mapping[str, Task]) -> None:
    """Rebuffi et al. 2018: y = f * x + a * x, here computed as such."""
    masks = virtual_masks(NAMES, BUILT.groups, [[1, 2], [2, 3], [1, 3]])
    part = moved(part_of(masks, tasks, adapters=True))
    images = torch.randn(5, 3, 8, 8)
    for number, row in enumerate(part.rows):
        shared = {n: t.detach() for n, t in row.row.gather(part.shared).items()}
        beside = bound(row.row.module, {**shared, **row.own, **row.buffers}).eval()
        assert len(row.adapters) > 10
        for name, adapter in row.adapters.items():
            add_beside(beside.get_submodule(name.removesuffix(".weight")), adapter.detach())
        with torch.no_grad():
            expected = F.linear(beside(images)[1], *row.head)
            torch.testing.assert_close(part(images, number), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(
                row_alone(part, number)(images, 0), expected, rtol=1e-4, atol=1e-4
            )


def add_beside(convolution: nn.Module, weight: Tensor) -> None:
    """Let a 1x1 convolution of the same input and stride run beside a convolution."""
    assert isinstance(convolution, nn.Conv2d)

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + F.conv2d(inputs[0], weight, stride=convolution.stride)

    convolution.register_forward_hook(add)


def test_adapters_begin_as_if_there_were_none() -> None:
    adapted = networks_of(plan_of("residual_adapters"))["all"]
    plain = networks_of(plan_of("shared"))["all"]
    images = torch.randn(5, 3, 8, 8)
    for row in range(len(NAMES)):
        assert torch.equal(adapted(images, row), plain(images, row))
        assert adapted.stored([row]) > plain.stored([row])


def test_the_largest_of_the_free_weights_are_taken(tasks: Mapping[str, Task]) -> None:
    part = part_of(virtual_masks(NAMES, BUILT.groups, [[1]] * 3), tasks, pruned=True)
    before = {name: weight.detach().clone() for name, weight in part.shared.items()}
    part.prune(0, 0.4)
    first = {name: owner == 1 for name, owner in part.owner.items()}
    for name, owner in first.items():
        assert int(owner.sum()) == round(0.4 * owner.numel())
        size = before[name].abs()
        assert size[owner].min() >= size[~owner].max()
        assert torch.equal(part.shared[name], before[name] * owner)
    with torch.no_grad():
        for name, weight in part.shared.items():  # all that was given back is there to be trained
            weight += torch.where(first[name], 0.0, 1 + before[name])
    part.prune(1, 0.5)
    for name, owner in part.owner.items():
        assert torch.equal(owner == 1, first[name]), "what is taken stays"
        free = owner.numel() - int(first[name].sum())
        assert int((owner == 2).sum()) == round(0.5 * free)
        assert (part.read(0)[name][owner == 2] == 0).all(), "the first reads its own alone"
        assert torch.equal(part.read(1)[name], part.shared[name])


def test_what_a_row_gives_is_loaded_and_the_others_stay(tasks: Mapping[str, Task]) -> None:
    masks = virtual_masks(NAMES, BUILT.groups, [[1, 2]] * 3)
    part, other = moved(part_of(masks, tasks)), part_of(masks, tasks)
    fresh, state = other.state(), part.state()
    other.load({name: t for name, t in state.items() if not name.startswith("row4.")})
    for name, tensor in other.state().items():
        assert torch.equal(tensor, fresh[name] if name.startswith("row4.") else state[name]), name
    other.load(state)
    assert same(other.state(), state)


def test_norms_are_inherited_of_the_channels_that_both_have(tasks: Mapping[str, Task]) -> None:
    masks = virtual_masks(NAMES, BUILT.groups, [[2, 3]] * 3, order_TU=ORDER[[0, 1, 1]])
    part = moved(part_of(masks, tasks))
    part.inherit(2, 0)  # units 1 and 0, of a row with 0 and 1
    part.inherit(4, 1)  # of a row with all
    for heir, source in ((2, 0), (4, 1)):
        mine, theirs = part.rows[heir], part.rows[source]
        for name, tensor in {**mine.own, **mine.buffers}.items():
            given = {**theirs.own, **theirs.buffers}[name]
            if tensor.ndim and source == 1:
                has = [p.index_KN[0] for p in mine.row.places[name].values()]
                given = given[torch.from_numpy(has[0])] if has else given
            assert torch.equal(tensor, given), name
        assert not torch.equal(mine.head[0], theirs.head[0])


def test_a_frozen_trunk_is_refused(tasks: Mapping[str, Task]) -> None:
    found = build_backbone(BackboneConfig(model="resnet14", args={"width": 8}), 8)
    masks = virtual_masks(NAMES, found.groups, [[1, 2, 3]] * 3)
    with pytest.raises(ValueError, match=r"backbone\.trunk must be train, got frozen"):
        SharedNetworks(
            found, Part(masks=masks), [2] * 9, state=found.initial(2, 0), sizes=[8] * 9, seed=0,
            device=CPU,
        )  # fmt: skip
