"""Which candidates a calibration takes, and a whole one on a real Ray, interrupted and resumed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
import yaml
from test_search import tiny

from partitioning import ChannelGroup, Masks, SharingSpace, SolverConfig, SpaceConfig
from search.arms import cluster_jobs, connect
from search.calibration import measure_calibration
from search.calibration.choice import choose, draw, evenly_over_cost, trained_twice
from search.calibration.measurement import measure
from search.calibration.results import calibration_folder, full_training, result_path
from search.candidates import Candidate
from search.cli import main
from search.config import ConfigError, ScheduleConfig, StudyConfig, dump_config, parse_config
from search.config.sections import CalibrationConfig
from search.study import Study, build_foundation, feature_cache, run_here
from trainers.device import ComputeConfig
from trainers.proxy import DivergedError, distill

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

TASKS = ("a", "b", "c")
GROUPS = (ChannelGroup(name="one", width=8), ChannelGroup(name="two", width=16))


def space(**changed: Any) -> SharingSpace:
    config = SpaceConfig(**changed)
    return SharingSpace(tasks=TASKS, groups=GROUPS, config=config, solver=SolverConfig())


def test_drawn_candidates_are_those_of_the_recipe() -> None:
    rng = np.random.default_rng(3)
    expected = []
    for _ in range(2):
        for u in np.linspace(0.12, 0.96, 8):
            s = min(u - 0.05, 1 - u, 0.3)
            use = u + s * rng.uniform(-1, 1, 3)
            use += u - use.mean()
            use = np.clip(use, 0.05, 1)
            v = rng.uniform(size=6)
            v[:3] = (use - 0.05) / 0.95
            expected.append(v)
    found = draw(space(), (0.05, 1.0), 16, 3)
    assert np.allclose(found, expected, rtol=0, atol=1e-12)
    assert np.allclose(draw(space(), (0.05, 1.0), 8, 3), expected[:8], rtol=0, atol=1e-12)
    # Of a round that is not whole, uses apart: the second round's first, middle and last.
    some = draw(space(), (0.05, 1.0), 10, 3)
    assert np.allclose(some[8:], [expected[8], expected[15]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "changed",
    [
        {"per_group": True},
        {"backward": True},
        {"per_group": True, "backward": True},
        {"use": (0.2, 0.6)},
        {"use": (0.5, 0.5)},
    ],
)
def test_any_space_can_be_drawn_from(changed: dict[str, Any]) -> None:
    drawn_from = space(**changed)
    low, high = bounds = changed.get("use", (0.05, 1.0))
    vectors = draw(drawn_from, bounds, 8, 0)
    uses = [drawn_from.decode(vector).masks.mean_use() for vector in vectors]
    # Whole channels of groups of 8 and 16: a use is off by at most a sixteenth of them, and
    # groups of different width weigh differently.
    assert min(uses) >= low - 0.1
    assert max(uses) <= high + 0.1
    wanted = low + (high - low) * np.linspace(0.07, 0.91, 8) / 0.95
    assert np.abs(np.array(uses) - wanted).max() < 0.12


def test_candidates_lie_evenly_over_cost() -> None:
    rng = np.random.default_rng(0)
    cost = np.concatenate([rng.normal(0.5, 0.02, 90), rng.uniform(0.1, 1, 10)])
    chosen = evenly_over_cost(cost, 9)
    assert len(set(chosen)) == 9
    assert {int(cost.argmin()), int(cost.argmax())} <= set(chosen)
    # Most candidates cost .5; of the chosen ones no more do than elsewhere.
    assert sum(abs(cost[i] - 0.5) < 0.05 for i in chosen) <= 3
    assert evenly_over_cost(cost[:4], 9) == [0, 1, 2, 3]
    assert evenly_over_cost(np.full(5, 0.3), 3) == [0, 1, 2]
    assert evenly_over_cost(np.array([]), 3) == []


def test_those_trained_twice_lie_evenly_over_use() -> None:
    use = np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    assert trained_twice(use, 3) == [1, 2, 0]
    assert trained_twice(use, 0) == []


def recorded(index: int, masks: Masks | None, **changed: Any) -> Candidate:
    candidate = Candidate(
        strategy="es", seed=0, index=index, vector=(0.5,) * 6, names=tuple(space().names()),
        quality=0.5, cost=0.5, evaluation={"masks": masks.to_dict()} if masks else {},
    )  # fmt: skip
    return replace(candidate, **changed)


def test_the_records_candidates_come_first() -> None:
    own = space()
    masks = [own.decode(vector).masks for vector in draw(own, (0.05, 1.0), 8, 9)]
    record = [recorded(i, m) for i, m in enumerate(masks)]
    record += [recorded(8, masks[0]), recorded(9, None), recorded(10, masks[1], error="boom")]
    config = CalibrationConfig(candidates=12)
    chosen = choose(record, own, (0.05, 1.0), config)
    assert [c.candidate for c in chosen] == [f"es-0-{i}" for i in range(8)] + [None] * 4
    assert [c.masks for c in chosen[:8]] == masks
    few = choose(record, own, (0.05, 1.0), replace(config, candidates=4, trained_twice=2))
    assert [c.candidate for c in few] == ["es-0-0", "es-0-2", "es-0-5", "es-0-7"]
    drawn = choose([], own, (0.05, 1.0), config)
    assert len({c.masks for c in drawn}) == 12


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"candidates": 2}, "calibration: candidates must be at least 3, got 2"),
        ({"trained_twice": 33}, "trained_twice must be from 0 to candidates, 32, got 33"),
        ({"multiples": [2, 1]}, "multiples must increase"),
        ({"multiples": [0]}, "multiples must increase from above 0"),
        ({"threshold": 1.5}, "threshold must be a correlation"),
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


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trunk and teachers, made once."""
    folder = tmp_path_factory.mktemp("cache")
    torch.set_num_threads(1)
    build_foundation(tiny(folder, cache=str(folder)), run_here, lambda line: None)
    return folder


def calibrated(folder: Path, cache: Path, **changed: Any) -> StudyConfig:
    settings = {"candidates": 5, "trained_twice": 2, "multiples": [0.01, 1000.0]}
    return tiny(folder, cache=str(cache), calibration=settings | changed)


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
    (score,) = distill(
        [Masks.from_dict(first["masks"])], features, study.config.proxy, study.config.compute
    )
    assert not isinstance(score, DivergedError)
    assert dict(score.accuracy) == first["proxy"]["accuracy"], "the proxy is the study's own"
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


@pytest.fixture
def ray_here() -> Iterator[None]:
    yield
    ray.shutdown()


def test_the_command(
    tmp_path: Path, cache: Path, ray_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = calibrated(tmp_path, cache, threshold=1.0)
    config = replace(config, strategies={"random": config.strategies["random"]}, candidates=3)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(dump_config(config)))
    assert main(["calibrate", str(path)]) == 0
    said = capsys.readouterr().out
    assert "calibration 7/7" in said
    assert "mean over tasks" in said
    assert "the proxy is not trusted" in said
    folder = config.folder / "calibration"
    for name in ("calibration.json", "calibration.csv", "calibration.png"):
        assert (folder / name).stat().st_size > 100
    assert main(["calibrate", str(config.folder), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((folder / "calibration.json").read_text())
    assert (summary["candidates"], summary["trained_twice"], summary["trusted"]) == (5, 2, False)
    # The search that follows warns, and its page shows the calibration.
    assert main(["search", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("warning: the proxy is not trusted: over 5 candidates") == 1
    assert "The proxy is not trusted" in (config.folder / "front.html").read_text()
    assert main(["report", str(config.folder)]) == 0
    said = capsys.readouterr().out
    assert str(folder / "calibration.png") in said
    assert "the proxy is not trusted" in said
    lower = replace(config, calibration=replace(config.calibration, threshold=-1.0))
    path.write_text(yaml.safe_dump(dump_config(replace(lower, candidates=4))))
    assert main(["search", str(path), "--resume"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_neither_a_study_nor_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(tmp_path)]) == 2
    assert "is not a study" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "none.yaml")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_what_jobs_share_is_stored_once(ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
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
