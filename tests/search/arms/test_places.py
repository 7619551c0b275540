"""How many evaluators a cluster has room for, who gets them, and whether its nodes go together."""

import functools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from search.arms import masks, nodes
from search.arms.cluster import count_places, count_solvers, share_out
from search.arms.masks import in_parallel
from search.arms.pool import start_evaluator
from search.config import ScheduleConfig
from tests.helpers.studies import simulated
from trainers.device import DeviceError


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A head of three CPUs, and a node of eight and two GPUs, of which Ray knows no better."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "num_gpus": 0})
    cluster.add_node(num_cpus=8, num_gpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize(
    ("schedule", "places"),
    [
        ({"cpus": 1, "gpus": 0}, 11),
        ({"cpus": 2, "gpus": 0}, 1 + 4),
        ({"cpus": 0.5, "gpus": 0}, 6 + 16),
        ({"cpus": 1, "gpus": 1}, 2),
        ({"cpus": 1, "gpus": 0.25}, 8),
        ({"cpus": 1, "gpus": 0.3}, 2 * 3),  # a tenth of each stays empty
        ({"cpus": 3, "gpus": 0.25}, 2),
        ({"cpus": 1, "gpus": 2}, 1),
        ({"cpus": 1, "gpus": 3}, 0),
    ],
)
def test_places(schedule: dict[str, Any], places: int, cluster: None) -> None:
    assert count_places(ScheduleConfig(**schedule)) == places


@pytest.mark.parametrize(
    ("places", "arms", "shares"),
    [(32, 3, [11, 11, 10]), (2, 3, [1, 1, 1]), (0, 2, [1, 1]), (8, 1, [8]), (6, 3, [2, 2, 2])],
)
def test_shares(places: int, arms: int, shares: list[int]) -> None:
    assert list(share_out(places, [f"es-{i}" for i in range(arms)]).values()) == shares


def test_nodes_of_the_same_code_go_together(cluster: None) -> None:
    nodes.check_nodes(nodes.facts())


def test_a_node_of_other_code_is_refused(cluster: None) -> None:
    """As after an edit that was copied to the head alone."""
    other = nodes.facts() | {"Apportion's code": "0" * 12, "numpy": "1.0"}
    with pytest.raises(DeviceError, match="do not go together") as refused:
        nodes.check_nodes(other)
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert "Apportion's code" in lines[1]
    assert "this one 000000000000; `ray up CLUSTER` copies it" in lines[1]
    assert "numpy" in lines[2]
    assert "constraints.txt" in lines[2]


def test_an_evaluator_on_a_node_of_other_code_does_not_start(cluster: None) -> None:
    """As where a node has joined while the search runs."""
    config = simulated(schedule={"cpus": 1})
    group = ray.util.placement_group([{"CPU": 1}])
    ray.get(group.ready())
    other = nodes.facts() | {"Apportion's code": "0" * 12}

    @ray.remote(num_cpus=0)
    def start() -> None:
        ray.get(start_evaluator(0, config, None, None, other).ready.remote())

    within = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    with pytest.raises(RayError, match=r"has Apportion's code .*this one 0000"):
        ray.get(start.options(scheduling_strategy=within).remote())
    ray.util.remove_placement_group(group)


@pytest.mark.parametrize(("evaluators", "solvers"), [({"a": 3, "b": 4}, 2), ({"a": 11}, 0)])
def test_cpus_that_no_evaluator_takes_solve_for_masks(
    evaluators: dict[str, int], solvers: int, cluster: None
) -> None:
    assert count_solvers(ScheduleConfig(cpus=1), evaluators) == solvers


def test_masks_come_in_order_and_a_worker_that_dies_is_done_without(
    cluster: None, tmp_path: Path
) -> None:
    marked = tmp_path / "marked"

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    function = functools.partial(slow, own=os.getpid(), marked=marked)
    found = list(in_parallel(3, nodes.facts())(function, range(8)))
    assert found == [-number for number in range(8)]
    assert marked.exists()


def slow(number: int, *, own: int, marked: Path) -> int:
    """Dies of 3 unless it is in the process `own`."""
    if number == 3 and os.getpid() != own:
        marked.touch()
        os._exit(1)
    time.sleep(0.02 * (number % 3))
    return -number


def test_masks_of_a_node_of_other_code_are_made_here(cluster: None) -> None:
    other = nodes.facts() | {"Apportion's code": "0" * 12}
    function = functools.partial(where, here=os.getpid())
    assert list(in_parallel(2, other)(function, [0, 0])) == [1, 1]
    assert list(in_parallel(2, nodes.facts())(function, [0, 0])) == [2, 2]


def where(_: int, *, here: int) -> int:
    """1 in the process `here`, 2 in others."""
    return 1 if os.getpid() == here else 2


def test_masks_do_not_wait_for_cpus_that_others_have(
    cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "PATIENCE", 1.0)
    group = ray.util.placement_group([{"CPU": 3}, {"CPU": 8}])
    try:
        ray.get(group.ready())
        began = time.monotonic()
        function = functools.partial(where, here=os.getpid())
        assert list(in_parallel(2, nodes.facts())(function, range(6))) == [1] * 6
        assert time.monotonic() - began < 4, "one is waited for, not each"
    finally:
        ray.util.remove_placement_group(group)
