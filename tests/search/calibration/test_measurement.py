"""Calibrations measured in this process: interrupted and resumed, and of what diverges."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from partitioning import Masks
from search.calibration import measure_calibration
from search.calibration.images import for_proxy, for_training
from search.calibration.measurement import measure
from search.calibration.results import calibration_folder, full_training, result_path
from search.config import ConfigError, dump_config, parse_config
from search.study import Study, build_foundation, feature_cache, run_here
from tests.helpers.studies import calibrated, tiny
from trainers.proxy import DivergedError, distill


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"candidates": 2}, "calibration: candidates must be at least 3, got 2"),
        (
            {"trained_twice": 49},
            "trained_twice must be from 0 to candidates = 48 candidates, got 49",
        ),
        ({"multiples": [2, 1]}, "multiples must be ascending"),
        ({"multiples": [0]}, "multiples must be .*positive"),
        ({"threshold": 1.5}, "threshold must be in .*got 1.5"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"sgd": {"steps": 0}}, "steps must be at least 1"),
        ({"candidate": 3}, "did you mean 'candidates'"),
    ],
)
def test_bad_settings(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(tmp_path, calibration=changed)


def test_the_config_survives_its_file(tmp_path: Path) -> None:
    config = tiny(tmp_path, calibration={"sgd": {"steps": 7}, "multiples": [3]})
    assert parse_config(yaml.safe_load(yaml.safe_dump(dump_config(config)))) == config
    assert full_training(config).sgd.steps == 7
    assert full_training(tiny(tmp_path)).sgd.steps == 20


def counting(jobs_done: list[str], stop_after: int | None = None) -> Any:
    def run(function: Any, jobs: Any) -> Iterator[tuple[str, Any]]:
        for key, result in run_here(function, jobs):
            if function is measure:
                if len(jobs_done) == stop_after:
                    raise KeyboardInterrupt
                jobs_done.append(key)
            yield key, result

    return run


def quiet(line: str) -> None:
    pass


def test_a_calibration_goes_on_where_it_stopped(tmp_path: Path, cache: Path) -> None:
    study = Study.create(calibrated(tmp_path, cache))
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        measure_calibration(study, say=quiet, run=counting(done, 3))
    assert len(done) == 3
    results = measure_calibration(study, say=quiet, run=counting(done))
    assert len(done) == len(set(done)) == 7
    assert [(r["index"], r["seed"]) for r in results[:5]] == [(i, 0) for i in range(5)]
    assert [r["seed"] for r in results[5:]] == [1, 1]
    assert measure_calibration(study, say=quiet, run=counting(done)) == results
    assert len(done) == 7
    first = results[0]
    assert {"index", "seed", "vector", "use", "masks", "proxy", "full", "digest"} <= set(first)
    assert Masks.from_dict(first["masks"]).mean_use() == pytest.approx(first["use"])
    assert set(first["full"]["accuracy"]) == {"digits", "colours", "gratings"}
    assert first["full"]["steps"] == 20
    # Training lasts longer than a hundredth of the proxy's time, and less than 1,000 times it.
    assert len(first["full"]["snapshots"]) == 1
    base = build_foundation(study.config, run_here, quiet)
    features = feature_cache(study.config, base, run_here, quiet)
    masks = Masks.from_dict(first["masks"])
    (score,) = distill([masks], for_proxy(features), study.config.proxy, study.config.compute)
    assert not isinstance(score, DivergedError)
    assert dict(score.accuracy) == first["proxy"]["accuracy"], "the proxy is the study's own"
    assert first["costs"] == {"use": score.costs.use, "parameters": score.costs.parameters}
    (whole,) = distill([masks], features, study.config.proxy, study.config.compute)
    assert not isinstance(whole, DivergedError)
    assert whole.distillation_loss == score.distillation_loss, "trained alike"
    assert whole.accuracy != score.accuracy, "measured on fewer images"
    for name, task in for_training(base.tasks).items():
        correct = first["full"]["accuracy"][name] * len(task.splits["validation"])
        assert correct == pytest.approx(round(correct)), "of that half's images"
    again = next(r for r in results[5:] if r["index"] == results[5]["index"])
    assert again["full"]["accuracy"] != results[again["index"]]["full"]["accuracy"]
    # Of other settings everything is measured anew, and then kept.
    changed = replace(study.config.train, temperature=2.0)
    study.config = replace(study.config, train=changed)
    measure_calibration(study, say=quiet, run=counting(done))
    assert len(done) == 14
    path = result_path(calibration_folder(study), 2, 0)
    path.unlink()
    measure_calibration(study, say=quiet, run=counting(done))
    assert len(done) == 15


def test_a_candidate_that_diverges_is_left_out(tmp_path: Path, cache: Path) -> None:
    sgd = {"steps": 20, "batch_size": 16, "learning_rate": 1e30}
    study = Study.create(calibrated(tmp_path, cache, sgd=sgd, candidates=3, trained_twice=0))
    said: list[str] = []
    results = measure_calibration(study, say=said.append)
    assert all("not finite" in result["error"] for result in results)
    assert sum("left out" in line for line in said) == 3
    done: list[str] = []
    measure_calibration(study, say=quiet, run=counting(done))
    assert not done
