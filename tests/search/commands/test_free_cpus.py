"""Searches with more CPUs than evaluators: masks in parallel, and what evaluators did."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from mlflow import MlflowClient

from search.arms import trials
from search.candidates import total
from search.commands.search import search
from tests.helpers.studies import EXPECTED, accounted, quiet, simulated, tiny

# Ray starts and ends processes of its own in this one.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def six_cpus() -> Iterator[None]:
    ray.shutdown()
    ray.init("local", num_cpus=6, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def test_masks_in_parallel_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for solvers in (None, 0):
        if solvers is not None:
            monkeypatch.setattr(trials, "count_solvers", lambda *_: 0)
        name = f"solvers{solvers}"
        config = simulated(output=str(tmp_path), name=name, strategies={"es": {}, "random": {}})
        study = search(config, console=quiet())
        found.append([(c.id, c.vector, c.masks, c.quality) for c in study.candidates()])
    assert len(found[0]) == 40
    assert found[0] == found[1]


def test_what_evaluators_did_is_kept(tmp_path: Path, cache: Path) -> None:
    config = tiny(tmp_path, cache=str(cache), schedule={"evaluators": 1})
    began = time.time()
    study = search(config, console=quiet())
    took = time.time() - began
    assert accounted(study) == EXPECTED
    used = study.utilisation()
    assert used.keys() == {(name, 0) for name in EXPECTED}
    for arm in used.values():
        assert 0 < arm["busy"] < sum(arm.values()) < took
    least = total([arm for (name, _), arm in used.items() if name == "baselines"])
    assert least["ended"] > 0, "its two candidates were scored long before the others'"
    assert study.summary()["evaluators"] == total(used.values())

    client = MlflowClient(study.store_uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    kind = "tags.`apportion.kind` = 'study'"
    (run,) = client.search_runs([experiment.experiment_id], kind)
    shares = {k: v for k, v in run.data.metrics.items() if k.startswith("evaluators/")}
    hours = shares.pop("evaluators/hours")
    assert hours == pytest.approx(sum(total(used.values()).values()) / 3600)
    assert sum(shares.values()) == pytest.approx(1)

    # Of three places, for as long as arms ran, and not of arms that came after others.
    assert sum(total(used.values()).values()) < 3 * took

    # Resumed without anything left to be scored, or with more: what was kept stays.
    assert search(config, resume=True, console=quiet()).utilisation() == used
