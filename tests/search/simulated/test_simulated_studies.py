"""Studies of problems without training, in this process and through Tune."""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from rich.console import Console

from search.arms import connect
from search.arms.loop import Arm, Budget
from search.arms.simulated_pool import SimulatedPool
from search.arms.trials import _Report
from search.candidates import Candidate
from search.commands.search import search
from search.comparison.selection import true_hypervolume
from search.config import ConfigError, StudyConfig
from search.simulated.synthetic import SyntheticConfig, SyntheticProblem
from search.study import (
    Study,
    baselines,
    build_foundation,
    build_space,
    build_strategy,
    check_inputs,
    run_here,
)
from tests.helpers.studies import simulated

THREE = ("a", "b", "c")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"evaluator": "guess"}, "evaluator must be one of proxy, simulated, got 'guess'"),
        ({"evaluator": "proxy"}, "trunk is missing"),
        ({"simulation": {"problem": "other"}}, "problem must be one of synthetic, mini_decathlon"),
        ({"tasks": []}, "there must be at least one task"),
        ({"rungs": [{"steps": 30}]}, "rungs must be left out"),
        ({"finish": {}}, "finish must be left out"),
        ({"foundations": "per_seed"}, "foundations must be shared where the evaluator is simul"),
        ({"space": {"kind": "block_level", "levels": [0.5, 1]}}, "space.levels must be one level"),
        ({"tasks": [{"name": f"t{i}"} for i in range(13)]}, "at most 12 tasks"),
    ],
)
def test_wrong_simulated_studies_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulated(**changed)


def test_the_true_front_as_a_space_and_a_reference_show_it() -> None:
    _, least = SyntheticProblem(THREE, SyntheticConfig()).front().hypervolume((0.0, 1.1), 0.2)
    use = {"cost": "use"}
    known = simulated(space={"use": [0.2, 1]}, objective=use)
    assert true_hypervolume(known, (0.0, 1.1)) == least
    assert least < (
        true_hypervolume(simulated(space={"use": [0.0, 1]}, objective=use), (0.0, 1.1)) or 0
    )
    assert true_hypervolume(simulated(objective={"cost": "macs"}), (0.0, 1.1)) is None
    # Nothing of the front lies beyond these points.
    assert true_hypervolume(known, (0.999, 1.1)) is None
    assert true_hypervolume(known, (0.0, 0.1)) is None


def test_a_simulated_study_has_nothing_to_train_on() -> None:
    with pytest.raises(ConfigError, match="the study simulated is simulated: it has no images"):
        build_foundation(simulated(), run_here, print)


def test_a_simulated_study_needs_no_images_whatever_its_trunk() -> None:
    gone = {"dataset": {"name": "gone", "source": "npz"}}
    weights = {"model": "resnet14", "weights": "none.safetensors"}
    for changed in ({"trunk": gone}, {"backbone": weights}, {"backbone": weights, "trunk": gone}):
        config = simulated(**changed)
        check_inputs(config)
        with pytest.raises(ConfigError, match="the study simulated is simulated: it has no images"):
            build_foundation(config, run_here, print)


def run(settings: StudyConfig, name: str = "random", seed: int = 0) -> list[Candidate]:
    space = build_space(settings)
    told: list[Candidate] = []
    Arm(
        name=name,
        seed=seed,
        strategy=build_strategy(settings, name, seed, space, baselines(settings, space, seed)),
        space=space,
        pool=SimulatedPool(settings),
        budget=Budget(candidates=settings.candidates, cohort=4),
        ladder=settings.ladder,
        cost=settings.objective.cost,
        record=lambda candidate: None,
        keep=lambda candidate: None,
    ).run({}, told.append)
    return told


def test_scores_are_those_of_the_realised_matrix() -> None:
    settings = simulated(objective={"cost": "use"})
    problem = SyntheticProblem(THREE, settings.simulation.synthetic)
    told = run(settings)
    assert len(told) == 20
    for candidate in told:
        masks = candidate.masks
        accuracy_T = problem.accuracy(masks.mean_realised())
        assert candidate.accuracy == dict(zip(THREE, accuracy_T.tolist(), strict=True))
        assert candidate.quality == pytest.approx(accuracy_T.mean())
        assert candidate.cost == pytest.approx(masks.mean_use())
        assert 0 < candidate.seconds <= 1
    by_macs = run(simulated())  # the default: the whole network's, trunk, head and all
    assert [c.quality for c in by_macs] == [c.quality for c in told]
    assert [c.cost for c in by_macs] == [c.costs.relative_macs for c in told if c.costs]
    again = run(settings)
    assert [c.quality for c in again] == [c.quality for c in told]
    other = run(replace(settings, seeds=(1,)), seed=1)
    assert [c.quality for c in other] != [c.quality for c in told]


def kinds_in_mlflow(study: Study) -> dict[str, int]:
    """How many runs of each kind the mirror has."""
    from mlflow import MlflowClient

    client = MlflowClient(study.store_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return Counter(run.data.tags["apportion.kind"] for run in client.search_runs(experiments))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_simulated_study_goes_through_tune(tmp_path: Path) -> None:
    settings = simulated(
        output=str(tmp_path), strategies={"random": {}, "baselines": {}}, seeds=[0, 1],
        device_seconds=3.0, schedule={"cohort": 4},
    )  # fmt: skip
    try:
        study = search(settings, console=Console(file=io.StringIO()))
    finally:
        ray.shutdown()
    arms = {(c.strategy, c.seed) for c in study.candidates()}
    assert kinds_in_mlflow(study) == {"study": 1, "arm": 4}
    assert arms == {("random", 0), ("random", 1), ("baselines", 0), ("baselines", 1)}
    by_arm = [c for c in study.candidates() if (c.strategy, c.seed) == ("random", 1)]
    alone = run(settings, seed=1)
    assert [c.quality for c in by_arm] == [c.quality for c in alone][: len(by_arm)]
    # Once the first brackets of 4 have cost 3, the one that is under way by then is the last.
    last = np.searchsorted(np.cumsum([c.seconds for c in alone]), 3.0) // 4
    assert len(by_arm) == 4 * (last + 2) < len(alone)


def test_arms_are_held_against_each_other_at_the_same_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However fast they are: an arm that is resumed tells its record in no time."""
    told = run(simulated())
    sent: list[int] = []
    monkeypatch.setattr("search.arms.trials.REPORT_EVERY", np.inf)
    monkeypatch.setattr(
        "search.arms.trials.tune.report", lambda result: sent.append(result["candidates"])
    )
    for halve_arms, expected in ((5, {5, 10}), (10, {10}), (20, set()), (None, set())):
        sent.clear()
        report = _Report(simulated(schedule={"halve_arms": halve_arms}), budget=20)
        for candidate in told:
            report.told(candidate)
        assert set(sent) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_hopeless_arms_are_stopped(tmp_path: Path) -> None:
    # Weights that sweep the front, then one that pulls to the lowest use at once.
    grid = {"grid": {"diagonal_l2": [[20.0, 5.0, 1.0, 0.2], [1000.0]]}, "directions": 4}
    try:
        connect()
        # All CPUs for an arm: they run in order, so that the second is held against the first.
        cpus = ray.cluster_resources()["CPU"]
        settings = simulated(
            output=str(tmp_path),
            strategies={"es": grid},
            candidates=240,
            schedule={"halve_arms": 60, "cpus": cpus},
        )
        study = search(settings, console=Console(file=io.StringIO()))
    finally:
        ray.shutdown()
    told = Counter(c.strategy for c in study.candidates())
    assert told["es.1"] == 240
    assert 60 <= told["es.2"] < 240
