"""Full training of all tasks at once, and who is drawn how often."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.small_networks import BACKBONE, BUILT, COMPUTE, NAMES, SGD, candidate
from tests.helpers.tasks import bright_task
from trainers.data import Split, Task
from trainers.joint import TrainConfig, TrainResult, curriculum, train_jointly
from trainers.teachers import Trained, pretrain_trunk


def fully_train(
    tasks: dict[str, Task],
    trunk: Trained,
    teachers: dict[str, Trained],
    *,
    seed: int = 0,
    config: TrainConfig | None = None,
) -> TrainResult:
    return train_jointly(
        candidate(1, use=0.7), tasks, trunk, teachers,
        config or TrainConfig(sgd=replace(SGD, steps=60)),
        backbone=BACKBONE, seed=seed, compute=COMPUTE,
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
