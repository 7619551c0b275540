"""How many evaluators a cluster has room for, who gets them, and whether its nodes go together."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from search.arms import nodes
from search.arms.cluster import count_places, share_out
from search.config import ScheduleConfig
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
    nodes.check_nodes()


def test_a_node_of_other_code_is_refused(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an edit that was copied to the head alone."""
    other = nodes.facts() | {"Apportion's code": "0" * 12, "numpy": "1.0"}
    ask = nodes.facts
    remote = ray.remote
    monkeypatch.setattr(nodes, "facts", lambda: other)
    monkeypatch.setattr(nodes.ray, "remote", lambda function: remote(ask))
    with pytest.raises(DeviceError, match="do not go together") as refused:
        nodes.check_nodes()
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert "Apportion's code" in lines[1]
    assert "this one 000000000000; `ray up CLUSTER` copies it" in lines[1]
    assert "numpy" in lines[2]
    assert "constraints.txt" in lines[2]
