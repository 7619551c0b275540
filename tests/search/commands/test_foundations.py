"""Studies whose seeds have trunk, teachers and features of their own, or share them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search.calibration import measure_calibration
from search.calibration.images import for_proxy, for_training
from search.calibration.results import settings_digest
from search.candidates import Candidate
from search.commands.search import search
from search.config import StudyConfig
from search.study import (
    Foundation,
    Study,
    Supplies,
    build_foundation,
    run_here,
    supplies_by_seed,
)
from tests.helpers.studies import TINY, quiet, tiny
from trainers.joint import TrainResult, train_jointly
from trainers.proxy import distill
from trainers.teachers import load

# Ray starts and ends processes of its own in this one.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]

TASKS = ("digits", "colours")
PICK = "random-1-1"


def two_seeds(folder: Path, foundations: str, **changed: Any) -> StudyConfig:
    settings: dict[str, Any] = {
        "tasks": [task for task in TINY["tasks"] if task["name"] in TASKS],
        "strategies": {"random": {}},
        "seeds": [0, 1],
        "foundations": foundations,
        "candidates": 2,
        "calibration": {"candidates": 4, "trained_twice": 0, "multiples": [1000.0]},
        "schedule": {"cpus": 1, "gpus": 0, "cohort": 2},
    }
    return tiny(folder, cache=str(folder / "cache"), **settings | changed)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Study:
    """Whose seeds have their own, searched and its pick trained and exported."""
    folder = tmp_path_factory.mktemp("own")
    config = two_seeds(folder, "per_seed", finish={"pick": PICK})
    return search(config, console=quiet())


@pytest.fixture(scope="module")
def given(study: Study) -> dict[int, Supplies]:
    """What its arms were given, read back."""
    return supplies_by_seed(study.config, run_here, silent)


def silent(line: str) -> None:
    pass


def no_jobs(function: Any, jobs: Any) -> Iterator[tuple[str, Any]]:
    assert not jobs, "what is there is not made again"
    return iter(())


def same(first: Foundation, second: Foundation) -> bool:
    """Whether two foundations have the same trunk and teachers, to the bit."""
    pairs = [(first.trunk, second.trunk)]
    pairs += [(first.teachers[name], second.teachers[name]) for name in TASKS]
    return all(torch.equal(a.state[k], b.state[k]) for a, b in pairs for k in a.state)


def base_of(supplies: Supplies) -> Foundation:
    assert supplies.base is not None
    return supplies.base


def rescored(
    study: Study, given: dict[int, Supplies], one: Candidate, seed: int
) -> dict[str, float]:
    """What the proxy says of a candidate's masks on the features of a seed."""
    config, features = study.config.of_seed(seed), given[seed].cache
    assert features is not None
    (score,) = distill([study.masks(one)], features, config.proxy, config.compute)
    assert not isinstance(score, Exception)
    return dict(score.accuracy)


def halved(supplies: Supplies) -> Supplies:
    """Supplies with the halves of validation images that a calibration measures on."""
    base, cache = base_of(supplies), supplies.cache
    assert cache is not None
    own = replace(base, tasks=for_training(base.tasks))
    return replace(supplies, base=own, cache=for_proxy(cache))


def retrained(study: Study, given: dict[int, Supplies], one: Candidate) -> TrainResult:
    """Full training of a candidate on the foundation of its seed."""
    config, base = study.config, base_of(given[one.seed])
    return train_jointly(
        study.masks(one), base.tasks, base.trunk, base.teachers, config.train,
        backbone=config.backbone, seed=0, compute=config.compute,
    )  # fmt: skip


def test_every_seed_has_a_trunk_and_teachers(study: Study, given: dict[int, Supplies]) -> None:
    cache = study.config.cache_folder
    assert len(list(cache.glob("trunk-*"))) == 2
    for name in TASKS:
        assert len(list(cache.glob(f"teacher-{name}-*.safetensors"))) == 2
        assert len(list(cache.glob(f"features-{name}-*.safetensors"))) == 2
    first, second = base_of(given[0]), base_of(given[1])
    assert not same(first, second)
    assert first.tasks is second.tasks, "images are held once"
    # Seed 0 has the foundation that all seeds would share.
    shared = replace(study.config, foundations="shared")
    assert same(first, build_foundation(shared, no_jobs, silent))
    accuracy = {seed: [t.teacher_accuracy for t in given[seed].knowledge.tasks] for seed in (0, 1)}
    assert accuracy[0] != accuracy[1], "strategies are told of their own teachers"
    assert given[0].knowledge.floor == given[1].knowledge.floor == study.knowledge().floor
    # The accuracy of guessing the commonest class, by hand.
    guessed = [
        np.bincount(task.splits["validation"].labels).max() / len(task.splits["validation"])
        for task in first.tasks.values()
    ]
    assert study.reference() == (pytest.approx(np.mean(guessed)), 1.0)


def test_a_candidate_is_scored_on_its_seeds_features(
    study: Study, given: dict[int, Supplies]
) -> None:
    for one in study.candidates():
        assert rescored(study, given, one, one.seed) == dict(one.accuracy), one.id
        assert rescored(study, given, one, 1 - one.seed) != dict(one.accuracy), one.id


def test_a_candidate_is_trained_on_its_seeds_foundation(
    study: Study, given: dict[int, Supplies], tmp_path: Path
) -> None:
    one = study.pick(PICK)
    expected = retrained(study, given, one)
    assert study.train(PICK, run=no_jobs).accuracy[0] == expected.accuracy
    # Without what the search had loaded, training and export make the same of it.
    trained = study.train(PICK, run=no_jobs)
    (trained.folder / "seed0.json").unlink()
    study.export(PICK, tmp_path, say=silent)
    assert study.train(PICK, run=no_jobs).accuracy[0] == expected.accuracy
    assert (tmp_path / "digits" / "network.pt2").is_file()
    weights = load(trained.weights(0)).state
    trunk_of = study.config.network.trunk
    frozen = [name for name, each in trunk_of.named_parameters() if each.ndim == 4]
    assert "conv.weight" in frozen
    for seed, is_its in ((0, False), (1, True)):
        trunk = base_of(given[seed]).trunk.state
        assert all(torch.equal(weights[f"shared.{n}"], trunk[n]) for n in frozen) is is_its


def test_a_calibration_measures_on_the_candidates_foundation(
    study: Study, given: dict[int, Supplies]
) -> None:
    results = measure_calibration(study, say=silent)
    halves = {seed: halved(each) for seed, each in given.items()}
    by_id = {candidate.id: candidate for candidate in study.candidates()}
    taken = [by_id[result["candidate"]] for result in results if result["candidate"]]
    assert {one.seed for one in taken} == {0, 1}
    for result, one in zip(results, taken, strict=False):
        proxy = result["proxy"]["accuracy"]
        assert proxy == rescored(study, halves, one, one.seed), one.id
        assert proxy != rescored(study, halves, one, 1 - one.seed), one.id
        expected = retrained(study, halves, one).accuracy["validation"]
        assert result["full"]["accuracy"] == expected, one.id
    assert measure_calibration(study, say=silent, run=no_jobs) == results
    shared = replace(study.config, foundations="shared")
    assert settings_digest(shared) != settings_digest(study.config)


def test_a_resumed_seed_goes_on_with_its_own(study: Study, given: dict[int, Supplies]) -> None:
    before = study.candidates()
    resumed = search(replace(study.config, candidates=3), resume=True, console=quiet())
    assert len(list(study.config.cache_folder.glob("trunk-*"))) == 2
    found = {candidate.id: candidate for candidate in resumed.candidates()}
    assert all(found[candidate.id] == candidate for candidate in before)
    for seed in (0, 1):
        last = found[f"random-{seed}-2"]
        assert rescored(resumed, given, last, seed) == dict(last.accuracy)


def test_seeds_share_a_foundation_unless_told_otherwise(tmp_path: Path) -> None:
    config = two_seeds(tmp_path, "shared")
    given = supplies_by_seed(config, run_here, silent)
    for kind in ("trunk-*", "teacher-digits-*.safetensors", "features-digits-*.safetensors"):
        assert len(list(config.cache_folder.glob(kind))) == 1
    assert given[0] is given[1]
