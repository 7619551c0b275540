"""Which networks a method has, and settings that it refuses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partitioning import virtual_masks
from partitioning.settings import SettingsError
from tests.trainers.methods.helpers import BUILT, NAMES, PER_IMAGE, digests_of, plan_of
from trainers.data import Task
from trainers.methods import METHODS, Plan
from trainers.methods.plan import CHANGES


def share_used(plan: Plan) -> dict[str, float]:
    """Of every virtual network, the share of all channels that it has."""
    found = {}
    for network, (name, row) in plan.places.items():
        masks = plan.parts[name].masks
        found[str(network)] = float(
            np.concatenate([mask[row] for mask in masks.forward.values()]).mean()
        )
    return found


@pytest.mark.parametrize("method", [name for name in METHODS if name not in PER_IMAGE])
def test_every_network_is_trained_by_one_phase(method: str) -> None:
    plan = plan_of(method)
    of_phases = [
        plan.parts[phase.part].masks.networks[row] for phase in plan.phases for row in phase.rows
    ]
    assert sorted(map(str, of_phases)) == sorted(map(str, plan.places))
    assert [network.task for network in plan.places] == sorted(
        (network.task for network in plan.places), key=NAMES.index
    )
    assert {phase.changes for phase in plan.phases} <= set(CHANGES)
    assert METHODS[method].summary
    learnt: list[int] = []
    for phase in plan.phases:
        assert set(phase.distilled) <= set(learnt), "only what was trained is remembered"
        assert set((phase.inherits or {}).values()) <= set(learnt)
        learnt += phase.rows


@pytest.mark.parametrize(
    ("method", "settings", "shares"),
    [
        ("single", {}, [1] * 3),
        ("shared", {}, [1] * 3),
        ("lwf", {}, [1] * 3),
        ("packnet", {}, [1] * 3),
        ("gradient_surgery", {}, [1] * 3),
        ("feature_partitioning", {"use": 0.75, "overlap": 1.0}, [0.75] * 3),
        ("nested_net", {"shares": (0.5, 0.25, 0.25)}, [0.5, 0.75, 1]),
        ("nested_net", {"shares": (0.5, 0.5)}, [0.5, 1, 1]),
        ("nested_sequential", {"shares": (0.5, 0.25, 0.25)}, [0.5, 0.75, 1]),
        ("packnet_grouped", {"shares": (0.25, 0.25, 0.5)}, [0.25, 0.5, 1]),
        ("nested_net_budgets", {"units": 2}, [0.5, 1] * 3),
        ("nested_net_budgets", {"units": 1}, [1] * 3),
        ("dvn", {"units": 2}, [0.5, 1] * 3),
        ("dvn", {"shares": (0.5, 0.25, 0.25), "order": "same"}, [0.5, 0.75, 1] * 3),
        ("dvn_sequential", {"shares": (0.5, 0.5)}, [0.5, 1] * 3),
    ],
)
def test_networks_have_the_shares_that_are_asked_for(
    method: str, settings: Mapping[str, Any], shares: list[float]
) -> None:
    found = share_used(plan_of(method, **settings))
    assert list(found.values()) == pytest.approx(shares, abs=0.02)


def test_tasks_take_units_in_their_order() -> None:
    def first_units(order: str, seed: int = 0, **settings: Any) -> list[list[int]]:
        plan = plan_of("dvn", seed=seed, order=order, **settings)
        mask = plan.parts["all"].masks.forward[BUILT.groups[0].name]
        return [np.flatnonzero(mask[row]).tolist() for row in range(0, len(mask), 2)]

    assert BUILT.groups[0].width == 8
    low, high = [0, 1, 2, 3], [4, 5, 6, 7]
    assert first_units("rule", units=2) == [low, high, low]
    assert first_units("same", units=2) == [low, low, low]
    drawn = {str(first_units("random", seed, units=2)) for seed in range(8)}
    assert len(drawn) > 2
    assert first_units("random", 1, units=2) == first_units("random", 1, units=2)


@pytest.mark.parametrize("order", ["rule", "random", "same"])
def test_one_task_more_changes_no_order_of_those_before(
    order: str, tasks: Mapping[str, Task]
) -> None:
    two = {name: tasks[name] for name in NAMES[:2]}
    fewer = plan_of("dvn_sequential", tuple(two), units=3, order=order)
    more = plan_of("dvn_sequential", units=3, order=order)
    assert digests_of(more, tasks)[:2] == digests_of(fewer, two)


@pytest.mark.parametrize("method", ["dvn", "dvn_sequential", "feature_partitioning"])
def test_masks_are_given_in_place_of_settings(
    method: str, tasks: Mapping[str, Task], tmp_path: Path
) -> None:
    masks = virtual_masks(NAMES, BUILT.groups, [[1, 2]] * 3)
    masks.save(tmp_path / "masks.json")
    plan = plan_of(method, masks=str(tmp_path / "masks.json"))
    assert plan.parts["all"].masks == masks
    assert len(plan.places) == 6
    assert digests_of(plan, tasks) != digests_of(plan_of(method), tasks)


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("dvn", {"units": 0}, "units must be at least 1, or null, got 0"),
        ("dvn", {"order": "alphabet"}, "order must be one of rule, random, same"),
        ("dvn", {"shares": (0.5, 0.6)}, "shares must be shares above 0, 1 in all"),
        ("dvn", {"shares": (1.5, -0.5)}, "shares must be shares above 0"),
        ("dvn", {"shares": ()}, "shares must be shares above 0"),
        ("dvn", {"units": 3, "shares": (0.5, 0.5)}, "for each of 3 units, got 2"),
        ("dvn", {"masks": "m", "units": 2}, "leave these out"),
        ("dvn_sequential", {"masks": "m", "shares": (0.5, 0.5)}, "leave these out"),
        ("dvn_sequential", {"masks": "m", "order": "same"}, "leave these out"),
        ("nested_net", {"shares": (0.5, 0.4)}, "1 in all"),
        ("nested_sequential", {"shares": (0.5, 0.4)}, "1 in all"),
        ("nested_net_budgets", {"units": 0}, "units must be at least 1"),
        ("packnet", {"keep": 0.0}, r"keep must be in \(0, 1\)"),
        ("packnet", {"keep": 1.0}, r"keep must be in \(0, 1\)"),
        ("packnet", {"pruned_at": 1.0}, r"pruned_at must be in \(0, 1\)"),
        ("packnet", {"pruned_at": float("nan")}, r"pruned_at must be in \(0, 1\)"),
        ("packnet_grouped", {"shares": (2.0, -1.0)}, "above 0"),
        ("gradient_surgery", {"aggregator": "PCgrad"}, "did you mean 'PCGrad'"),
        ("feature_partitioning", {"use": 0.0}, "use must be above 0"),
        ("feature_partitioning", {"use": 1.1}, "at most 1"),
        ("feature_partitioning", {"overlap": -0.1}, r"overlap must be in \[0, 1\]"),
        ("da_cnn", {"layers": 0}, "layers must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    method: str, settings: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        METHODS[method].settings(**settings)


def test_a_group_with_fewer_channels_than_units_is_refused() -> None:
    with pytest.raises(ValueError, match="a channel for each of 9 units, got 8"):
        plan_of("dvn", units=9)


def test_phases_have_steps() -> None:
    assert plan_of("den", stages=2, selector_steps=0.5).steps(8) == (4, 2, 4, 2)
    with pytest.raises(ValueError, match=r"3 steps .* are too few for 8 phases"):
        plan_of("den", stages=4).steps(3)
