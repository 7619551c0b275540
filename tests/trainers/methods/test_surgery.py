"""Gradient surgery against PCGrad as its paper has it, and steps that are taken with it."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainers.methods.helpers import (
    ONE_STEP,
    fixed,
    networks_of,
    plan_of,
    state_of,
    trained,
)
from trainers.data import Task, normalise
from trainers.methods import SharedNetworks
from trainers.methods.surgery import AGGREGATORS, combined
from trainers.network import cross_entropy

SHAPES = ((4, 3, 3, 3), (5,), (2, 7))


def gradients(conflict: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Those of two tasks, by weight; their angle is right or wrong."""
    generator = torch.Generator().manual_seed(3)
    first = [torch.randn(shape, generator=generator) for shape in SHAPES]
    sign = -1 if conflict else 1
    second = [sign * t + torch.randn(t.shape, generator=generator) for t in first]
    assert (product(first, second) < 0) == conflict
    return first, second


def product(first: list[Tensor], second: list[Tensor]) -> float:
    return float(sum((a * b).sum() for a, b in zip(first, second, strict=True)))


def without(own: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Yu et al. 2020, algorithm 1, of a task with one other."""
    factor = min(0.0, product(own, other)) / product(other, other)
    return [a - factor * b for a, b in zip(own, other, strict=True)]


@pytest.mark.parametrize("conflict", [True, False])
def test_two_gradients_are_made_to_agree(conflict: bool) -> None:
    first, second = gradients(conflict)
    found = combined("PCGrad", [first, second])
    parts = zip(without(first, second), without(second, first), strict=True)
    torch.testing.assert_close(found, [a + b for a, b in parts], rtol=1e-4, atol=1e-5)
    assert product(found, first) > 0
    assert product(found, second) > 0
    plain = [a + b for a, b in zip(first, second, strict=True)]
    agree = all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, plain, strict=True))
    assert agree != conflict


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_aggregator_gives_a_gradient(name: str) -> None:
    found = combined(name, gradients(conflict=True))
    assert [tuple(t.shape) for t in found] == list(SHAPES)
    assert all(t.isfinite().all() for t in found)
    assert max(float(t.abs().max()) for t in found) > 0


def learning(part: SharedNetworks, row: int, task: Task) -> SharedNetworks:
    """The networks with the gradients of a step of a row."""
    images, labels = task.splits["train"].batch(0, ONE_STEP.batch_size)
    part.rows[row].row.module.train()
    cross_entropy(part(normalise(images, task), row), labels).backward()
    return part


@pytest.mark.parametrize("conflict", [True, False])
def test_a_step_is_that_of_the_gradients_made_to_agree(
    conflict: bool, tasks: Mapping[str, Task], tmp_path: Path
) -> None:
    """Of weights that tasks share; norms and heads have no other gradient than their own."""
    pair = ("digits", "gratings") if conflict else ("digits", "colours")
    some = fixed({name: tasks[name] for name in pair})
    plan = plan_of("gradient_surgery", pair)
    found = state_of("all", trained(plan, some, tmp_path, ONE_STEP).state)
    expected = networks_of(plan)["all"].state()
    rate, of_shared = ONE_STEP.learning_rate, []
    for row, task in enumerate(some.values()):
        part = learning(networks_of(plan)["all"], row, task)
        of_shared.append([t.grad for t in part.shared.values() if t.grad is not None])
        for name, tensor in part.rows[row].tensors().items():
            own = tensor.detach()  # norms have counted and averaged the images
            expected[f"row{row}.{name}"] = own if tensor.grad is None else own - rate * tensor.grad
    assert (product(*of_shared) < 0) == conflict
    one, two = without(*of_shared), without(*of_shared[::-1])
    for name, first, second in zip(part.shared, one, two, strict=True):
        expected[f"shared.{name}"] = expected[f"shared.{name}"] - rate * (first + second)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
    plain = trained(plan_of("shared", pair), some, tmp_path, ONE_STEP).state
    alike = all(
        torch.allclose(t, found[n], rtol=1e-4, atol=1e-6) for n, t in state_of("all", plain).items()
    )
    assert alike != conflict


def test_without_torchjd_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ValueError, match=r"needs torchjd: pip install 'apportion\[surgery\]'"):
        plan_of("gradient_surgery")
    assert plan_of("shared").surgery is None
