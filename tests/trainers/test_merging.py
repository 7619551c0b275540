"""Single-task networks merged without training."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.small_networks import BACKBONE, BUILT, COMPUTE
from trainers.data import Task
from trainers.merging import MERGERS, average, measure_merged, merge, task_arithmetic, ties
from trainers.teachers import Trained, measure_teacher

A = torch.tensor([4.0, -1.0, 0.1, 3.0, -5.0])
B = torch.tensor([-1.0, -3.0, 0.2, 5.0, 4.0])


def test_mergers_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert average([A, B]).tolist() == pytest.approx([1.5, -2.0, 0.15, 4.0, -0.5])
    assert task_arithmetic([A, B]).tolist() == pytest.approx([0.9, -1.2, 0.09, 2.4, -0.3])
    # Two of five are kept: 4 and -5 of A, 5 and 4 of B; the fifth entry's sign is A's.
    monkeypatch.setattr("trainers.merging.KEPT", 0.4)
    assert ties([A, B]).tolist() == [4.0, 0.0, 0.0, 5.0, -5.0]
    assert ties([A]).tolist() == [4.0, 0.0, 0.0, 0.0, -5.0]


@pytest.mark.parametrize("merger", MERGERS)
def test_a_network_merged_with_itself(
    merger: str, trunk: Trained, teachers: dict[str, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Averages of equal networks are that network; with a scale of 1/2, so is their sum."""
    monkeypatch.setattr("trainers.merging.SCALE", 0.5)
    monkeypatch.setattr("trainers.merging.KEPT", 1.0)
    one = teachers["a"]
    found = merge(merger, trunk, {"x": one, "y": one}, BUILT)
    assert found.keys().isdisjoint({*BUILT.own, *BUILT.of_head})
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, one.state[name])


def test_what_merged_networks_reach(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    """A task alone is its teacher, with norms that are measured on other images."""
    for name, teacher in teachers.items():
        alone = measure_merged(
            "merged_average", trunk, {name: teacher}, tasks,
            backbone=BACKBONE, seed=0, compute=COMPUTE,
        )  # fmt: skip
        own = measure_teacher(BACKBONE, teacher, tasks[name], COMPUTE)
        assert own["validation"] == teacher.accuracy
        assert alone.keys() == own.keys() == {"validation", "test"}
        assert alone["test"][name] == pytest.approx(own["test"], abs=0.05)
    both = measure_merged(
        "merged_average", trunk, teachers, tasks, backbone=BACKBONE, seed=0, compute=COMPUTE
    )
    assert set(both["validation"]) == set(teachers)


def test_norms_are_measured_again(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    """Statistics that are wrong on purpose do no harm."""
    name, teacher = next(iter(teachers.items()))
    wrong = {
        key: tensor + 100 if key.endswith("running_mean") and key not in BUILT.trunk.state_dict()
        else tensor
        for key, tensor in teacher.state.items()
    }  # fmt: skip
    spoilt = replace(teacher, state=wrong)
    assert measure_teacher(BACKBONE, spoilt, tasks[name], COMPUTE)["test"] < 0.8
    found = measure_merged(
        "merged_average", trunk, {name: spoilt}, tasks, backbone=BACKBONE, seed=0, compute=COMPUTE
    )
    assert found["test"][name] > 0.9
