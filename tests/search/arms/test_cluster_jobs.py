"""Jobs that run as tasks of a real Ray."""

from typing import Any

import numpy as np
import pytest
import ray

from search.arms import cluster_jobs, connect
from search.config import ScheduleConfig
from trainers.device import ComputeConfig

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_what_jobs_share_is_stored_once(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def total(*, numbers: np.ndarray, add: int, compute: ComputeConfig) -> float:
        return float(numbers.sum()) + add

    connect()
    stored: list[Any] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: stored.append(value) or put(value))
    numbers, compute = np.ones(1000), ComputeConfig(device="cpu")
    jobs = {str(add): {"numbers": numbers, "add": add, "compute": compute} for add in (1000, 2000)}
    run = cluster_jobs(ScheduleConfig(gpus=0))
    assert dict(run(total, jobs)) == {"1000": 2000.0, "2000": 3000.0}
    assert [type(value) for value in stored] == [np.ndarray, ComputeConfig]
