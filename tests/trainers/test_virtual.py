"""Virtual networks against what their papers say of gradients, sizes and packs."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from partitioning import Masks, virtual_masks
from trainers.data import DataConfig, Task, TaskConfig, load_tasks
from trainers.device import ComputeConfig
from trainers.network import Network, cross_entropy
from trainers.networks import Backbone, BackboneConfig, build_backbone
from trainers.optim import SGDConfig
from trainers.virtual import VirtualNetworks, train_virtual

NAMES = ("digits", "colours", "gratings")
CPU = torch.device("cpu")
COMPUTE = ComputeConfig(device="cpu")
CONFIG = BackboneConfig(
    model="resnet14", args={"width": 8}, partition=("stage*",), stream=True, trunk="train"
)
SGD = SGDConfig(steps=12, batch_size=16, learning_rate=0.05, momentum=0.9, weight_decay=5e-4)


@pytest.fixture(scope="module")
def tasks() -> Mapping[str, Task]:
    return load_tasks(
        DataConfig(
            tasks=tuple(TaskConfig(name=name, source="toy", limit=200) for name in NAMES),
            input_size=8,
        )
    )


@pytest.fixture
def found() -> Backbone:
    return build_backbone(CONFIG, 8)


def networks(found: Backbone, masks: Masks, tasks: Mapping[str, Task]) -> VirtualNetworks:
    classes = [tasks[network.task].num_classes for network in masks.networks]
    return VirtualNetworks(
        found, masks, classes, state=found.initial(10, 0), seed=0, device=CPU
    )  # fmt: skip


def batches(tasks: Mapping[str, Task]) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: (torch.randn(6, 3, 8, 8, generator=generator), task.splits["train"].labels[:6])
        for name, task in tasks.items()
    }


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


def test_the_joint_gradient_is_the_sum_over_levels(
    found: Backbone, tasks: Mapping[str, Task]
) -> None:
    """Kim et al. 2019, eq. 5; and exactly 0 where no level has a unit."""
    order = np.array([[0, 1, 2], [1, 0, 2], [0, 1, 2]])
    masks = virtual_masks(NAMES, found.groups, [[1, 2], [1, 2], [1, 1]], order_TU=order)
    data = batches(tasks)
    together = networks(found, masks, tasks)
    rows = range(len(masks.networks))
    losses = together.backward(data, rows, 0.0)
    alone = []
    for row in rows:
        one = networks(found, masks, tasks)
        images, labels = data[masks.networks[row].task]
        loss = cross_entropy(one(images, row), labels)
        loss.backward()
        assert torch.equal(loss.detach(), losses[row])
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
    unused = torch.cat([(~together.used(1)[n]).flatten() for n in together.shared])
    assert unused.float().mean() > 0.4, "the third unit is nobody's"


def test_what_is_trained_is_a_network_with_these_masks(
    found: Backbone, tasks: Mapping[str, Task]
) -> None:
    masks = virtual_masks(NAMES, found.groups, [[1, 2, 3]] * 3)
    trained = networks(found, masks, tasks)
    measured = train_virtual(trained, tasks, SGD, seed=0, compute=COMPUTE)
    assert measured["validation"].keys() == {str(network) for network in masks.networks}
    state = trained.state()
    same = Network(
        found, masks, [tasks[n.task].num_classes for n in masks.networks],
        shared={n.removeprefix("shared."): t for n, t in state.items()} | found.initial(10, 0),
        norms=[found.initial(10, 0)] * len(masks.networks), seed=1, device=CPU,
    )  # fmt: skip
    same.load(state)
    same.eval()
    images = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        for row in range(len(masks.networks)):
            torch.testing.assert_close(same(images, row), trained(images, row))


def test_it_learns(found: Backbone, tasks: Mapping[str, Task]) -> None:
    masks = virtual_masks(NAMES, found.groups, [[1, 3]] * 3)
    trained = networks(found, masks, tasks)
    longer = SGDConfig(steps=120, batch_size=32, learning_rate=0.05, momentum=0.9)
    measured = train_virtual(trained, tasks, longer, seed=0, compute=COMPUTE)["validation"]
    chance = np.mean([1 / tasks[network.task].num_classes for network in masks.networks])
    assert np.mean(list(measured.values())) > 2 * chance


def test_packs_stay_as_they_were(found: Backbone, tasks: Mapping[str, Task]) -> None:
    """Grouped PackNet: tasks in turn read the units before theirs, and change their own."""
    order = np.tile(np.arange(3), (3, 1))
    masks = virtual_masks(NAMES, found.groups, [[1], [2], [3]], order_TU=order)
    trained = networks(found, masks, tasks)
    initial = {name: weight.detach().clone() for name, weight in trained.shared.items()}
    train_virtual(trained, tasks, SGD, phases=[[0]], seed=0, compute=COMPUTE)
    images = torch.randn(5, 3, 8, 8)
    first = trained(images, 0).detach()
    for name, used in trained.used(0).items():
        assert torch.equal(trained.shared[name][~used], initial[name][~used])
    again = networks(found, masks, tasks)
    train_virtual(again, tasks, SGD, phases=[[0], [1], [2]], seed=0, compute=COMPUTE)
    assert torch.equal(again(images, 0), first), "later tasks leave what the first has learnt"
    changed = False
    for name, used in trained.used(0).items():
        assert torch.equal(again.shared[name][used], trained.shared[name][used])
        changed |= not torch.equal(again.shared[name], trained.shared[name])
    assert changed


def test_a_frozen_trunk_is_refused(tasks: Mapping[str, Task]) -> None:
    found = build_backbone(BackboneConfig(model="resnet14", args={"width": 8}), 8)
    masks = virtual_masks(NAMES, found.groups, [[1, 2, 3]] * 3)
    with pytest.raises(ValueError, match=r"backbone\.trunk must be train, got frozen"):
        networks(found, masks, tasks)


def test_a_loss_that_is_not_finite_is_named(found: Backbone, tasks: Mapping[str, Task]) -> None:
    masks = virtual_masks(NAMES, found.groups, [[1, 3]] * 3)
    wild = SGDConfig(steps=30, batch_size=8, learning_rate=1e20)
    with pytest.raises(FloatingPointError, match=r"the loss of digits.* is not finite at step"):
        train_virtual(networks(found, masks, tasks), tasks, wild, seed=0, compute=COMPUTE)
