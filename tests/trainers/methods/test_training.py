"""Every method from training to what is exported, and training that is killed and goes on."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainers.methods.conftest import Finished
from tests.trainers.methods.helpers import (
    BUILT,
    COMPUTE,
    CONFIG,
    NAMES,
    SGD,
    KilledError,
    Reads,
    digests_of,
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
from trainers.export import export_networks, read_export
from trainers.methods import METHODS, MethodResult, Plan, alone, train_method
from trainers.methods.elastic import ElasticNetworks
from trainers.network import accuracies
from trainers.optim import SGDConfig

#: Killed at every step; the others at two steps of every phase.
AT_EVERY_STEP = ("dvn_sequential", "packnet", "gradient_surgery")


@pytest.mark.parametrize("method", METHODS)
def test_a_method_comes_to_networks_of_all_tasks(
    method: str, finished: Callable[..., Finished]
) -> None:
    plan, result = finished(method).plan, finished(method).result
    every = {str(network) for network in plan.places}
    assert {network.task for network in plan.places} == set(NAMES)
    assert {split: set(found) for split, found in result.accuracy.items()} == {
        "validation": every, "test": every,
    }  # fmt: skip
    assert result.after[-1] == result.accuracy
    assert len(result.after) == len(plan.phases)
    assert result.steps == sum(plan.steps(SGD.steps))
    assert result.curve[-1].step == result.steps
    begun = networks_of(plan)
    for name, part in networks_of(plan, result.state, seed=1).items():
        state = state_of(name, result.state)
        assert same(part.state(), state)
        for row in range(len(part.rows)):
            weight = f"row{row}.{BUILT.head}.weight"
            assert not torch.equal(begun[name].state()[weight], state[weight]), "it has learnt"


@pytest.mark.parametrize("method", METHODS)
def test_a_state_is_loaded_as_what_was_trained(
    method: str, finished: Callable[..., Finished]
) -> None:
    plan, result, tasks = finished(method).plan, finished(method).result, toy_tasks()
    loaded, again = (networks_of(plan, result.state, seed=seed) for seed in (0, 1))
    for name, part in loaded.items():
        networks = part.part.masks.networks
        measured = accuracies(part, networks, tasks, BUILT.batch)
        for split, found in measured.items():
            assert found == {str(n): result.accuracy[split][str(n)] for n in networks}
        for row, network in enumerate(networks):
            images = images_of(network.task)
            with torch.no_grad():
                logits = part(images, row)
                assert logits.shape == (len(images), tasks[network.task].num_classes)
                assert torch.equal(logits, again[name](images, row))
                if method == "cross_stitch" or (
                    isinstance(part, ElasticNetworks) and part.budget_of(row) is not None
                ):
                    with pytest.raises(ValueError, match=r"is chosen per image|not exported"):
                        part.alone(row)
                    continue
                one = alone(part, row, tasks[network.task])
                torch.testing.assert_close(one(images, 0), logits, rtol=1e-4, atol=1e-4)


def test_a_row_that_computes_something_else_is_refused(finished: Callable[..., Finished]) -> None:
    done = finished("residual_adapters")
    part = networks_of(done.plan, done.result.state)["all"]
    part.alone = lambda row: part.state([0])  # type: ignore[method-assign]  # without adapters
    with pytest.raises(ValueError, match=r"of .* alone differs from the trained one by"):
        alone(part, 0, toy_tasks()[part.part.masks.networks[0].task])


@pytest.mark.parametrize("method", ["dvn", "packnet", "residual_adapters", "da_cnn"])
def test_a_row_is_exported(method: str, finished: Callable[..., Finished], tmp_path: Path) -> None:
    plan, result, tasks = finished(method).plan, finished(method).result, toy_tasks()
    network, (name, row) = list(plan.places.items())[1]
    part = networks_of(plan, result.state)[name]
    one = alone(part, row, tasks[network.task])
    (checks,) = export_networks(one, tasks, tmp_path).checks.values()
    assert checks["network.pt2"].accuracy == result.accuracy["test"][str(network)]
    said = read_export(tmp_path / network.task)
    assert said["task"] == network.task
    kept = part.stored([row]) if method == "da_cnn" else said["parameters"]
    assert said["parameters"] == kept
    program = torch.export.load(tmp_path / network.task / "network.pt2").module()
    images, _ = tasks[network.task].splits["test"].batch(0, 8)
    with torch.no_grad():
        expected = part(normalise(images, tasks[network.task]), row)
        torch.testing.assert_close(program(images), expected, rtol=1e-4, atol=1e-4)


def test_it_learns(tasks: Mapping[str, Task], tmp_path: Path) -> None:
    longer = SGDConfig(steps=60, batch_size=32, learning_rate=0.05)
    result = trained(plan_of("nested_net"), tasks, tmp_path, longer)
    chance = sum(1 / task.num_classes for task in tasks.values()) / len(tasks)
    assert sum(result.accuracy["validation"].values()) / len(tasks) > 2 * chance
    first, last = (sum(point.loss.values()) for point in (result.curve[0], result.curve[-1]))
    assert last < 0.8 * first


def test_another_seed_or_precision_is_another_training(
    tasks: Mapping[str, Task], finished: Callable[..., Finished], tmp_path: Path
) -> None:
    plan = plan_of("shared")
    again = trained(plan, tasks, tmp_path)
    assert same_result(again, finished("shared").result)
    digests = digests_of(plan, tasks)
    assert digests != digests_of(plan, tasks, replace(SGD, learning_rate=0.1))
    assert digests != digests_of(plan_of("residual_adapters"), tasks)
    assert digests != digests_of(plan_of("gradient_surgery"), tasks)
    inverted = with_splits(
        tasks["digits"],
        {"train": replace(tasks["digits"].splits["train"], images=255 - images_bytes(tasks))},
    )
    assert digests != digests_of(plan, {**tasks, "digits": inverted})


def images_bytes(tasks: Mapping[str, Task]) -> torch.Tensor:
    return tasks["digits"].splits["train"].images


def killed_again_and_again(
    plan: Plan, tasks: Mapping[str, Task], folder: Path, at_a_time: int
) -> tuple[MethodResult, int, list[str]]:
    """Train a plan that is killed whenever it has drawn some batches of every task of the phase.

    Returns:
        The result, how often it was killed, and the task of every batch that was drawn.
    """
    reads, kills = Reads(), 0
    drawn = watched(tasks, reads)
    together = max(
        len({plan.parts[p.part].masks.networks[row].task for row in p.rows}) for p in plan.phases
    )
    while True:
        reads.left = at_a_time * together
        try:
            return trained(plan, drawn, folder, every=0), kills, reads.done_tasks
        except KilledError:
            kills += 1


@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_is_killed_goes_on_bit_by_bit(
    method: str, finished: Callable[..., Finished], tmp_path: Path
) -> None:
    plan, tasks = finished(method).plan, toy_tasks()
    at_a_time = 1 if method in AT_EVERY_STEP else 3
    result, kills, drawn = killed_again_and_again(plan, tasks, tmp_path, at_a_time)
    assert same_result(result, finished(method).result)
    assert kills >= result.steps // at_a_time - 1
    alone = Reads()
    trained(plan, watched(tasks, alone), tmp_path / "uninterrupted")
    assert drawn == alone.done_tasks, "no step was done twice, and none left out"
    assert not list(tmp_path.glob("underway-*")), "what was under way is gone once it is done"
    assert len(list(tmp_path.glob("method-*"))) == len(plan.phases)


@pytest.mark.parametrize(
    ("method", "sgd", "batches"),
    [
        # More steps than points of the curve, killed between two of these.
        ("single", SGDConfig(steps=100, batch_size=2), 51),
        # Batches so small that gradients conflict, so that the random order of tasks tells.
        ("gradient_surgery", SGDConfig(steps=8, batch_size=4), 12),
    ],
)
def test_means_and_random_numbers_go_on(
    method: str, sgd: SGDConfig, batches: int, tmp_path: Path
) -> None:
    names = NAMES[:1] if method == "single" else NAMES
    tasks = {name: toy_tasks()[name] for name in names}
    plan = plan_of(method, names)
    with pytest.raises(KilledError):
        trained(plan, watched(tasks, Reads(left=batches)), tmp_path / "killed", sgd, every=0)
    result = trained(plan, tasks, tmp_path / "killed", sgd)
    assert same_result(result, trained(plan, tasks, tmp_path / "uninterrupted", sgd))


def test_a_training_that_is_killed_while_it_is_measured_goes_on(
    finished: Callable[..., Finished], tmp_path: Path
) -> None:
    done = finished("packnet")
    for batches in (0, 1, 3, 1, 3):  # two to a phase; a phase that is measured is not again
        reads = Reads(left=batches)
        measured = watched(toy_tasks(), reads, ("validation", "test"))
        with pytest.raises(KilledError):
            trained(done.plan, measured, tmp_path, every=0)
    assert same_result(trained(done.plan, toy_tasks(), tmp_path), done.result)


def test_what_is_done_is_not_done_again(finished: Callable[..., Finished]) -> None:
    for method in ("single", "dvn", "packnet"):
        done, reads = finished(method), Reads()
        everything = watched(toy_tasks(), reads, ("train", "validation", "test"))
        again = trained(done.plan, everything, done.folder)
        assert same_result(again, done.result)
        assert again.seconds == done.result.seconds
        assert not reads.done


def file_of(folder: Path, digest: str) -> Path:
    """Where a phase is kept once it is done."""
    return folder / f"method-{digest[:20]}.safetensors"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, changed, emptied])
def test_a_damaged_file_is_passed_over(
    damage: Callable[[Path], None], finished: Callable[..., Finished], tmp_path: Path
) -> None:
    done = finished("packnet")
    plan, tasks = done.plan, toy_tasks()
    digests = digests_of(plan, tasks)
    shutil.copytree(done.folder, tmp_path, dirs_exist_ok=True)
    damage(file_of(tmp_path, digests[1]))
    reads = Reads(left=SGD.steps - 1)
    with pytest.raises(KilledError):
        trained(plan, watched(tasks, reads), tmp_path, every=0)
    assert reads.done_tasks == [NAMES[1]] * (SGD.steps - 1), "the first is done"
    (underway,) = tmp_path.glob("underway-*")
    assert underway.name == f"underway-{digests[1][:20]}.safetensors"
    damage(underway)
    reads.left = None
    result = trained(plan, watched(tasks, reads), tmp_path, every=0)
    assert same_result(result, done.result)
    again = reads.done_tasks[SGD.steps - 1 :]
    assert again[: SGD.steps] == [NAMES[1]] * SGD.steps, "it began anew"
    assert NAMES[0] not in again
    assert same_result(trained(plan, tasks, tmp_path), done.result)


def test_another_training_s_file_is_passed_over(
    finished: Callable[..., Finished], tmp_path: Path
) -> None:
    done, other = finished("lwf"), finished("single")
    mine, theirs = (digests_of(each.plan, toy_tasks()) for each in (done, other))
    for own, foreign in zip(mine, theirs, strict=True):
        shutil.copy(file_of(other.folder, foreign), file_of(tmp_path, own))
    assert same_result(trained(done.plan, toy_tasks(), tmp_path), done.result)


def test_progress_is_written(tasks: Mapping[str, Task], tmp_path: Path) -> None:
    plan, progress = plan_of("lwf"), tmp_path / "progress.json"
    result = train_method(
        plan, tasks, backbone=CONFIG, size=8, sgd=SGD, seed=0, compute=COMPUTE,
        digests=digests_of(plan, tasks), folder=tmp_path, progress=progress,
    )  # fmt: skip
    said = json.loads(progress.read_text())
    assert (said["step"], said["steps"]) == (result.steps, result.steps)
    losses = result.curve[-1].loss.values()
    assert said["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_a_loss_that_is_not_finite_is_named(tasks: Mapping[str, Task], tmp_path: Path) -> None:
    wild = SGDConfig(steps=30, batch_size=8, learning_rate=1e20)
    with pytest.raises(FloatingPointError, match=r"the loss of digits.* is not finite at step"):
        trained(plan_of("dvn", units=2), tasks, tmp_path, wild)
    assert not list(tmp_path.glob("method-*"))


@pytest.mark.parametrize("without", NAMES[:2])
def test_every_network_is_measured_on_all_splits_of_its_task(
    without: str, tasks: Mapping[str, Task], tmp_path: Path
) -> None:
    task = tasks[without]
    splits = {name: split for name, split in task.splits.items() if name != "test"}
    some = {**tasks, without: replace(task, splits=splits)}
    for method in ("shared", "single"):
        result = trained(plan_of(method), some, tmp_path)
        named = {str(network): network.task for network in plan_of(method).places}
        assert result.accuracy["validation"].keys() == named.keys(), method
        assert set(result.accuracy["test"]) == {n for n, task in named.items() if task != without}
