"""Tasks that come one after another: what is read of them, what stays, and what is remembered."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.methods.conftest import Finished
from tests.trainers.methods.helpers import (
    BUILT,
    IN_TURN,
    NAMES,
    ONE_STEP,
    PER_IMAGE,
    SGD,
    Reads,
    digests_of,
    first_phases,
    fixed,
    images_of,
    networks_of,
    plan_of,
    same,
    same_result,
    state_of,
    toy_tasks,
    trained,
    watched,
    with_splits,
)
from trainers.data import Task, normalise
from trainers.methods import METHODS, Plan, SharedNetworks
from trainers.network import cross_entropy

#: A method, its settings, and how many phases of two tasks three tasks begin with.
ONE_TASK_MORE = [
    ("dvn_sequential", {"units": 3}, 2),
    ("lwf", {}, 2),
    ("nested_sequential", {"shares": (0.5, 0.25, 0.25)}, 2),
    ("feature_extraction", {}, 2),
    ("da_cnn", {}, 2),
    ("single", {}, 2),
    ("packnet_grouped", {"shares": (0.5, 0.25, 0.25)}, 2),
    ("packnet", {"keep": 0.3}, 2),
]


def after(done: Finished, phases: int, seed: int = 0) -> SharedNetworks:
    """The networks as they were behind some phases; nothing is trained."""
    if not phases:
        return networks_of(done.plan)["all"]
    reads = Reads(refused=NAMES)
    result = trained(first_phases(done.plan, phases), watched(toy_tasks(), reads), done.folder)
    return networks_of(done.plan, result.state, seed)["all"]


def without_images(tasks: Mapping[str, Task], gone: tuple[str, ...]) -> dict[str, Task]:
    """The tasks, some with black images to learn from, which must not even be read."""
    found = {}
    for name, task in tasks.items():
        split = task.splits["train"]
        black = replace(split, images=torch.zeros_like(split.images))
        found[name] = with_splits(task, {"train": black if name in gone else split})
    return watched(found, Reads(refused=gone))


def logits(part: SharedNetworks, row: int) -> Tensor:
    with torch.no_grad():
        return part(images_of(part.part.masks.networks[row].task), row)


@pytest.mark.parametrize("method", IN_TURN)
def test_a_phase_reads_no_other_task_s_images(
    method: str, finished: Callable[..., Finished], tmp_path: Path
) -> None:
    reads = Reads()
    everything = watched(toy_tasks(), reads, ("train", "validation", "test"))
    result = trained(finished(method).plan, everything, tmp_path)
    assert same_result(result, finished(method).result)
    in_order = [(task, split) for task, split in reads.done if split == "train"]
    assert in_order == [(task, "train") for task in NAMES for _ in range(SGD.steps)]
    for number, task in enumerate(NAMES[1:]):
        before = reads.done[: reads.done.index((task, "train"))]
        assert {name for name, _ in before} == set(NAMES[: number + 1]), "nothing of later tasks"


@pytest.mark.parametrize(("method", "settings", "common"), ONE_TASK_MORE)
def test_one_task_more_trains_its_phase_alone(
    method: str,
    settings: Mapping[str, Any],
    common: int,
    tasks: Mapping[str, Task],
    finished: Callable[..., Finished],
    tmp_path: Path,
) -> None:
    two = {name: tasks[name] for name in NAMES[:2]}
    fewer, done = plan_of(method, tuple(two), **settings), finished(method, **settings)
    digests = digests_of(done.plan, tasks)
    assert digests[:common] == digests_of(fewer, two)[:common]
    assert not set(digests[common:]) & set(digests_of(fewer, two))
    first = trained(fewer, two, tmp_path)
    assert first.after[:common] == done.result.after[:common]
    rest = without_images(tasks, NAMES[:common])
    assert same_result(trained(done.plan, rest, tmp_path, digests=digests), done.result)


def test_lwf_is_dvn_with_one_unit(finished: Callable[..., Finished]) -> None:
    """Kim et al. 2019, eq. 8."""
    lwf, dvn = finished("lwf").result, finished("dvn_sequential", units=1).result
    assert same(lwf.state, dvn.state)
    assert lwf.after == dvn.after


def test_the_gradient_of_a_new_task_is_that_of_all_its_terms(
    tasks: Mapping[str, Task], tmp_path: Path
) -> None:
    """Kim et al. 2019, eq. 6: distillation of the old task's levels, and labels of the new one's.

    A step is the gradient of all; here the terms are computed one by one.
    """
    old, new = NAMES[:2]
    some = fixed({name: tasks[name] for name in (old, new)})
    plan = plan_of("dvn_sequential", (old, new), units=2)
    state = trained(first_phases(plan, 1), some, tmp_path, ONE_STEP).state
    images, labels = some[new].splits["train"].batch(0, ONE_STEP.batch_size)
    images = normalise(images, some[new])

    def begin() -> SharedNetworks:
        part = networks_of(plan, state)["all"]
        for row in (2, 3):
            part.inherit(row, 1)
        return part

    expected = begin().state()
    with torch.no_grad():
        said = (begin()(images, 1) / 2).softmax(1)  # of the highest level, for both
    for row in range(4):
        part = begin()
        part.rows[row].row.module.train()
        if row < 2:
            loss = -(said * (part(images, row) / 2).log_softmax(1)).sum(1).mean()
        else:
            loss = cross_entropy(part(images, row), labels)
        loss.backward()
        trainable = {f"shared.{name}": weight for name, weight in part.shared.items()}
        trainable |= {f"row{row}.{n}": t for n, t in part.rows[row].tensors().items()}
        moved = 0.0
        for name, tensor in trainable.items():
            if tensor.grad is not None:
                expected[name] = expected[name] - ONE_STEP.learning_rate * tensor.grad
                moved += float(tensor.grad.abs().sum())
            else:
                expected[name] = tensor.detach()  # statistics of the images that it has seen now
        assert moved > 0.01, "every term has a part in it"
    found = state_of("all", trained(plan, some, tmp_path, ONE_STEP).state)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


def test_old_tasks_norms_take_the_statistics_of_the_images_that_there_are(
    finished: Callable[..., Finished],
) -> None:
    done = finished("dvn_sequential")
    behind = [after(done, phases).state() for phases in range(4)]
    seen = [name for name in behind[0] if name.endswith("num_batches_tracked")]
    assert len(seen) > 50
    of_phase = {row: number for number, phase in enumerate(done.plan.phases) for row in phase.rows}
    for name in seen:
        row = int(name.removeprefix("row").partition(".")[0])
        batches = [int(state[name]) // SGD.steps for state in behind]
        # A new task's begin with those of the task before it, as they were then.
        assert batches == [n if n > of_phase[row] else 0 for n in range(4)], name


def entries_changed(first: SharedNetworks, second: SharedNetworks) -> dict[str, Tensor]:
    return {name: weight != second.shared[name] for name, weight in first.shared.items()}


@pytest.mark.parametrize("settings", [{}, {"keep": 0.25}, {"keep": 0.25, "pruned_at": 0.3}])
def test_packs_of_weights_stay_as_they_were(
    settings: Mapping[str, float], finished: Callable[..., Finished]
) -> None:
    """Mallya and Lazebnik 2018, section 3."""
    done = finished("packnet", **settings)
    behind = [after(done, phases) for phases in range(4)]
    for phases in (1, 2, 3):
        part = behind[phases]
        for name, owner in part.owner.items():
            assert set(owner.unique().tolist()) == {*range(1, phases + 1)} | (
                {0} if phases < 3 or "keep" in settings else set()
            )
            assert (part.shared[name][owner == 0] == 0).all(), "what is given back is 0"
            assert (part.shared[name][owner > 0] != 0).float().mean() > 0.9
            earlier = behind[phases - 1].owner[name]
            assert torch.equal(owner[earlier > 0], earlier[earlier > 0]), "and is not given twice"
            free = int((earlier == 0).sum())
            share = settings.get("keep", 1 / (4 - phases))
            assert int((owner == phases).sum()) == round(share * free)
            same_pack = earlier > 0
            assert torch.equal(
                part.shared[name][same_pack], behind[phases - 1].shared[name][same_pack]
            )
        for row in range(phases):
            used, learnt = part.used(row), behind[row + 1]
            for name, owner in part.owner.items():
                assert torch.equal(used[name], (owner > 0) & (owner <= row + 1))
                assert torch.equal(part.read(row)[name], learnt.read(row)[name])
            assert same(
                {n: t.detach() for n, t in part.rows[row].tensors().items()},
                {n: t.detach() for n, t in learnt.rows[row].tensors().items()},
            )
            assert torch.equal(logits(part, row), logits(learnt, row))
    assert behind[3].stored([0]) < behind[3].stored([1]) < behind[3].stored([2])


@pytest.mark.parametrize("shares", [None, (0.5, 0.25, 0.25)])
def test_packs_of_channels_stay_as_they_were(
    shares: tuple[float, ...] | None, finished: Callable[..., Finished]
) -> None:
    """Grouped PackNet: tasks in turn read the units before theirs, and change their own."""
    done = finished("packnet_grouped", **({} if shares is None else {"shares": shares}))
    behind = [after(done, phases) for phases in range(4)]
    for phase in range(3):
        changed = entries_changed(behind[phase], behind[phase + 1])
        for name, entries in changed.items():
            own = behind[0].used(phase)[name]
            if phase:
                own &= ~behind[0].used(phase - 1)[name]
            assert not entries[~own].any(), (phase, name)
        assert sum(int(entries.sum()) for entries in changed.values()) > 100
        for row in range(phase):
            assert torch.equal(logits(behind[phase + 1], row), logits(behind[row + 1], row))


@pytest.mark.parametrize(("method", "layers"), [("feature_extraction", 0), ("da_cnn", 2)])
def test_the_first_network_is_frozen_for_later_tasks(
    method: str, layers: int, finished: Callable[..., Finished]
) -> None:
    done = finished(method)
    begun, first, last = (after(done, phases) for phases in (0, 1, 3))
    for name, tensor in first.state().items():
        if name.startswith(("shared.", "row0.")):
            assert torch.equal(last.state()[name], tensor), name
    for row in (1, 2):
        own, fresh = last.rows[row], begun.rows[row]
        for name, tensor in {**own.own, **own.buffers}.items():
            assert torch.equal(tensor, first.rows[0].tensors()[name]), "norms are the first's"
        assert not torch.equal(own.head[0], fresh.head[0])
        assert len(own.hidden) == layers
        for (weight, bias), (was, zero) in zip(own.hidden, fresh.hidden, strict=True):
            assert weight.shape == (BUILT.features, BUILT.features)
            assert not torch.equal(weight, was)
            assert not torch.equal(bias, zero)
    assert not last.rows[0].hidden


def test_those_in_turn_have_a_phase_for_every_task() -> None:
    for method in IN_TURN:
        plan = plan_of(method)
        assert tasks_of(plan) == [{name} for name in NAMES], method
    together = [name for name in METHODS if name not in (*IN_TURN, *PER_IMAGE)]
    for method in together:
        assert len(tasks_of(plan_of(method))) in (1, len(NAMES))
    for method in PER_IMAGE:
        assert tasks_of(plan_of(method)) == [set(NAMES)] * 4, "networks and selector, twice"


def tasks_of(plan: Plan) -> list[set[str]]:
    """The tasks of every phase."""
    return [
        {plan.parts[phase.part].masks.networks[row].task for row in phase.rows}
        for phase in plan.phases
    ]
