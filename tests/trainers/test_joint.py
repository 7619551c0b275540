"""Full training of all tasks at once, and who is drawn how often."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.foreign import with_operators
from tests.helpers.small_networks import BACKBONE, BUILT, COMPUTE, NAMES, SGD, candidate
from tests.helpers.tasks import bright_task
from trainers.data import Split, Task
from trainers.joint import (
    RECIPES,
    TrainConfig,
    TrainResult,
    Underway,
    curriculum,
    initial_network,
    train_jointly,
)
from trainers.joint.training import _Run
from trainers.teachers import Trained, pretrain_trunk


def fully_train(
    tasks: dict[str, Task],
    trunk: Trained,
    teachers: dict[str, Trained],
    *,
    seed: int = 0,
    config: TrainConfig | None = None,
    underway: Underway | None = None,
) -> TrainResult:
    return train_jointly(
        candidate(1, use=0.7), tasks, trunk, teachers,
        config or TrainConfig(sgd=replace(SGD, steps=60)),
        backbone=BACKBONE, seed=seed, compute=COMPUTE, underway=underway,
    )  # fmt: skip


def test_full_training_learns_on_the_teachers_trunks(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    result = fully_train(tasks, trunk, teachers)
    assert sum(result.drawn.values()) == 60
    assert set(result.accuracy) == {"validation", "test"}
    assert min(result.accuracy["test"].values()) > 0.9
    state = result.state
    for key in BUILT.trunk.state_dict():
        if key not in BUILT.own:
            assert torch.equal(state[f"shared.{key}"], trunk.state[key]), key
            continue
        for row, name in enumerate(NAMES):
            assert torch.equal(state[f"row{row}.{key}"], teachers[name].state[key]), (key, name)


def test_full_training_repeats_by_seed(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    first, again, other = (fully_train(tasks, trunk, teachers, seed=s) for s in (0, 0, 1))
    for name, tensor in first.state.items():
        assert torch.equal(tensor, again.state[name]), name
    assert first.drawn == again.drawn
    key = "shared.stage3.0.conv1.weight"
    assert not torch.equal(first.state[key], other.state[key])


def test_the_curriculum_draws_the_lagging_task_more(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    """Labels without relation to the images stay at chance, so their task is drawn about 2:1."""
    rng = torch.Generator().manual_seed(0)
    train_split = tasks["b"].splits["train"]
    noise = Split(
        images=train_split.images,
        labels=torch.randint(0, 2, train_split.labels.shape, generator=rng),
    )
    hopeless = replace(tasks["b"], splits={**tasks["b"].splits, "train": noise})
    config = TrainConfig(sgd=replace(SGD, steps=200), smoothing=0.2)
    drawn = fully_train(tasks | {"b": hopeless}, trunk, teachers, config=config).drawn
    assert drawn["b"] > 1.3 * drawn["a"]
    uniform = replace(config, temperature=1e6)
    drawn = fully_train(tasks | {"b": hopeless}, trunk, teachers, config=uniform).drawn
    assert 0.75 < drawn["b"] / drawn["a"] < 1.33  # 4 standard deviations of 200 fair draws


def test_training_stops_at_a_loss_that_is_not_finite(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    wild = TrainConfig(sgd=replace(SGD, learning_rate=1e30))
    with pytest.raises(FloatingPointError, match=r"task \w is not finite at step"):
        fully_train(tasks, trunk, teachers, config=wild)
    with pytest.raises(FloatingPointError, match=r"the loss of trunk is not finite"):
        pretrain_trunk(
            BACKBONE, bright_task("trunk", 9), replace(SGD, learning_rate=1e30),
            seed=0, compute=COMPUTE,
        )  # fmt: skip


def test_curriculum() -> None:
    accuracy_R = np.array([0.1, 0.5, 1.0])
    assert curriculum(accuracy_R, 1e9) == pytest.approx([1 / 3] * 3)
    assert curriculum(accuracy_R, 0.001) == pytest.approx([1, 0, 0])
    assert curriculum(accuracy_R, 1.0) == pytest.approx(np.array([10, 2, 1]) / 13)
    sharp = curriculum(accuracy_R, 0.25)
    assert sharp[0] > 0.99


def same(a: TrainResult, b: TrainResult) -> bool:
    """Whether two trainings came to the same weights, accuracies and curve."""
    curves = [[(p.step, p.loss, p.accuracy, p.learning_rate) for p in r.points] for r in (a, b)]
    return (
        a.state.keys() == b.state.keys()
        and all(torch.equal(tensor, b.state[name]) for name, tensor in a.state.items())
        and a.accuracy == b.accuracy
        and a.drawn == b.drawn
        and curves[0] == curves[1]
        and (a.steps, a.best_step) == (b.steps, b.best_step)
    )


FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "paper": RECIPES["paper"],
    "averaged": {"ema": 0.9, "accumulate": 2},
    "thawed": {"thaw": 0.4, "ema": 0.8},
    "varied": {"randaugment": 5, "mixup": 0.3},
    "stopped": {"patience": 2, "evaluations": 12},
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_training_cut_off_at_any_step_comes_to_the_same(
    name: str,
    tasks: dict[str, Task],
    trunk: Trained,
    teachers: dict[str, Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_operators()
    config = TrainConfig(sgd=replace(SGD, steps=24), **FEATURES[name])
    whole = fully_train(tasks, trunk, teachers, config=config)
    advance = _Run._advance
    where = Underway(
        path=tmp_path / "underway", digest="0", progress=tmp_path / "progress.json", every=0
    )

    def until(step: int) -> None:
        def step_or_die(self: _Run) -> None:
            if self._known.step == step:
                raise KeyboardInterrupt
            advance(self)

        monkeypatch.setattr(_Run, "_advance", step_or_die)
        with suppress(KeyboardInterrupt):
            fully_train(tasks, trunk, teachers, config=config, underway=where)
        monkeypatch.setattr(_Run, "_advance", advance)

    for step in (1, 10, 17):
        until(step)
    assert same(whole, fully_train(tasks, trunk, teachers, config=config, underway=where))
    progress = json.loads(where.progress.read_text())
    assert progress["step"] == whole.steps
    assert [point["step"] for point in progress["points"]] == [p.step for p in whole.points]


def test_what_is_under_way_is_of_the_same_training_and_whole(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained], tmp_path: Path
) -> None:
    config = TrainConfig(sgd=replace(SGD, steps=12))
    whole = fully_train(tasks, trunk, teachers, config=config)
    where = Underway(path=tmp_path / "u", digest="0", progress=tmp_path / "p.json", every=0)
    fully_train(tasks, trunk, teachers, config=config, underway=where, seed=1)
    other = replace(where, digest="1")
    assert same(whole, fully_train(tasks, trunk, teachers, config=config, underway=other))
    fully_train(tasks, trunk, teachers, config=config, underway=where, seed=1)
    data = bytearray(where.path.read_bytes())
    data[len(data) // 2] ^= 1
    where.path.write_bytes(data)
    assert same(whole, fully_train(tasks, trunk, teachers, config=config, underway=where))


def test_heads_and_norms_begin_as_the_teachers(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    """With all channels a row is then its teacher, but for the weights that are shared."""
    masks = candidate(1, use=1.0)
    network = initial_network(
        masks, tasks, trunk, teachers, BUILT, 0, torch.device("cpu"), initial="teachers"
    )
    live = network.live()
    for row, name in enumerate(NAMES):
        for key in (*BUILT.of_head, *(k for k in BUILT.own if k in teachers[name].state)):
            assert torch.equal(live[f"row{row}.{key}"], teachers[name].state[key]), (key, name)
    some = candidate(1, use=0.5)
    small = initial_network(
        some, tasks, trunk, teachers, BUILT, 0, torch.device("cpu"), initial="teachers"
    )
    reads_RF = BUILT.features_of(BUILT.kept(some))
    for row, name in enumerate(NAMES):
        weight = teachers[name].state[BUILT.of_head[0]][:, torch.from_numpy(reads_RF[row])]
        assert torch.equal(small.heads[row].weight, weight)


def test_imitating_alone_approaches_the_teacher(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    """Without labels: where a teacher is wrong on purpose, so is its student."""
    fooled = {
        name: replace(t, state={**t.state, **{n: -t.state[n] for n in BUILT.of_head}})
        for name, t in teachers.items()
    }
    config = TrainConfig(sgd=replace(SGD, steps=60), distillation=1.0, evaluations=1)
    assert max(fully_train(tasks, trunk, fooled, config=config).accuracy["test"].values()) < 0.1
    learnt = fully_train(tasks, trunk, fooled, config=replace(config, distillation=0.0))
    assert min(learnt.accuracy["test"].values()) > 0.9


def test_the_best_weights_are_kept_and_patience_ends_a_training(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    wild = TrainConfig(
        sgd=replace(SGD, steps=60, learning_rate=3.0), evaluations=20, temperature=1e6
    )
    result = fully_train(tasks, trunk, teachers, config=wild)
    means = {
        p.step: sum(p.accuracy.values()) / len(p.accuracy) for p in result.points if p.accuracy
    }
    assert len(means) == 20
    assert max(means) == 60
    assert result.best_step == max(means, key=lambda step: (means[step], -step))
    reached = sum(result.accuracy["validation"].values()) / len(NAMES)
    assert reached == pytest.approx(means[result.best_step])
    assert result.best_step < 60, "the settings are to be such that the last is not the best"
    stopped = fully_train(tasks, trunk, teachers, config=replace(wild, patience=3))
    assert stopped.steps < 60
    assert stopped.steps == sum(stopped.drawn.values())
    waited = [p for p in stopped.points if p.accuracy and p.step > stopped.best_step]
    assert len(waited) == 3


def test_a_thawed_trunk_is_trained_and_exported_weights_are_each_rows(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    config = TrainConfig(sgd=replace(SGD, steps=20), thaw=0.5, evaluations=1)
    result = fully_train(tasks, trunk, teachers, config=config)
    key = next(k for k in BUILT.trunk.state_dict() if k not in BUILT.own)
    assert not torch.equal(result.state[f"shared.{key}"], trunk.state[key])
    late = replace(config, thaw=1.0)
    frozen = fully_train(tasks, trunk, teachers, config=late)
    assert torch.equal(frozen.state[f"shared.{key}"], trunk.state[key])


def test_accumulated_batches_are_a_larger_one(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    """A step of two batches shows as many images as one of twice the size."""
    config = TrainConfig(sgd=replace(SGD, steps=10), accumulate=2)
    result = fully_train(tasks, trunk, teachers, config=config)
    assert sum(result.drawn.values()) == result.steps == 10
    assert min(result.accuracy["test"].values()) > 0.6


@pytest.mark.parametrize(
    "settings", [{"patience": 10}, {"distillation": 1.5}, {"evaluations": 0}, {"initial": "no"}]
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainConfig(**settings)
