"""Routing networks: which blocks an image goes through, and routers that learn."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from tests.trainers.methods.conftest import Finished
from tests.trainers.methods.helpers import (
    BUILT,
    images_of,
    networks_of,
    plan_of,
    row_alone,
    toy_tasks,
)
from trainers.methods import SharedNetworks
from trainers.methods.routing import RoutingNetworks


def routing(networks: Mapping[str, SharedNetworks]) -> RoutingNetworks:
    part = networks["all"]
    assert isinstance(part, RoutingNetworks)
    return part


def test_one_function_is_one_network(finished: Callable[..., Finished]) -> None:
    done = finished("routing", functions=1)
    part = routing(networks_of(done.plan, done.result.state))
    for row, task in enumerate(toy_tasks()):
        images = images_of(task)
        with torch.no_grad():
            wanted = SharedNetworks.__call__(part, images, row)
            torch.testing.assert_close(part(images, row), wanted)


def test_a_batch_of_ways_is_image_by_image(finished: Callable[..., Finished]) -> None:
    done = finished("routing")
    part = routing(networks_of(done.plan, done.result.state))
    assert part.part.functions == 3
    images = images_of("colours")
    generator = torch.Generator().manual_seed(0)
    ways = torch.randint(3, (len(images), len(part.blocks)), generator=generator)
    with torch.no_grad():
        together = part.routed(images, 1, ways)
        for at in range(len(images)):
            one = part.routed(images[at : at + 1], 1, ways[at : at + 1])
            torch.testing.assert_close(together[at : at + 1], one, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(together, part(images, 1))


def test_a_task_alone_has_the_blocks_that_its_router_chooses(
    finished: Callable[..., Finished],
) -> None:
    done = finished("routing")
    part = routing(networks_of(done.plan, done.result.state))
    for row in range(3):
        part.logits.data[row] = torch.eye(3)[(torch.arange(len(part.blocks)) + row) % 3]
    for row, task in enumerate(toy_tasks()):
        images = images_of(task)
        with torch.no_grad():
            found, wanted = row_alone(part, row)(images, 0), part(images, row)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    whole = {name: t.numel() for name, t in BUILT.tail.named_parameters()}
    blocks = sum(n for name, n in whole.items() if name.startswith("stage") and "bn" not in name)
    assert part.stored([0, 1]) - part.stored([0]) == blocks + _own(part, 1)


def test_a_router_learns_which_function_is_better(finished: Callable[..., Finished]) -> None:
    from tests.trainers.methods.helpers import COMPUTE, CPU, SGD
    from trainers.methods.routing import RoutingRun

    plan = plan_of("routing", functions=2, rate=1.0, epsilon=0.0)
    networks = networks_of(plan)
    part = routing(networks)
    with torch.no_grad():
        for name, weight in part.shared.items():
            if name.startswith("copy1.stage3"):  # what it gives is nothing
                weight.zero_()
    data = toy_tasks()
    run = RoutingRun(
        plan=plan, number=0, networks=networks, data=data, sgd=SGD, seed=0, compute=COMPUTE,
        device=CPU,
    )  # fmt: skip
    before = part.logits.clone()
    batches = {
        name: (images_of(name, 32, "train"), task.splits["train"].batch(0, 32)[1])
        for name, task in data.items()
    }
    losses: dict[int, Tensor] = {}
    for _ in range(3):
        losses = run._backward(batches)
    assert losses.keys() == {0, 1, 2}
    assert not torch.equal(part.logits, before)
    for row in range(3):  # the loss of each way differs, so that one is taken more often
        assert (part.logits[row, :, 0] - part.logits[row, :, 1]).abs().max() > 1e-3


def _own(part: RoutingNetworks, row: int) -> int:
    return sum(tensor.numel() for tensor in part.rows[row].parameters())


@pytest.mark.parametrize("function", [0, 2])
def test_no_gradient_reaches_blocks_that_are_not_taken(
    function: int, finished: Callable[..., Finished]
) -> None:
    done = finished("routing")
    part = routing(networks_of(done.plan, done.result.state))
    images = images_of("digits")
    ways = torch.full((len(images), len(part.blocks)), function)
    part.routed(images, 0, ways, training=True).square().mean().backward()
    for name, weight in part.shared.items():
        of = int(name[len("copy")]) if name.startswith("copy") else 0
        within = "stage" in name
        assert (weight.grad is not None) == (not within or of == function)
