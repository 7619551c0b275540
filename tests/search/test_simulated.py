"""Problems without training: their fronts, their surrogates and studies of them."""

import io
import itertools
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from rich.console import Console

from partitioning import FloatArray, Masks, independent, realised, share_all
from search.arms import connect
from search.arms.loop import Arm, Budget
from search.arms.simulated_pool import SimulatedPool
from search.arms.trials import _Report
from search.candidates import Candidate
from search.commands.search import search
from search.comparison import true_hypervolume
from search.config import ConfigError, StudyConfig, load_config, parse_config
from search.simulated.convex_front import concave_front
from search.simulated.surrogate import Kernel, Surrogate, read_table
from search.simulated.synthetic import SyntheticConfig, SyntheticProblem
from search.strategies import TaskKnowledge
from search.study import Study, baselines, build_foundation, build_space, build_strategy, run_here

THREE = ("a", "b", "c")
SIMULATED: dict[str, Any] = {
    "name": "simulated",
    "evaluator": "simulated",
    "tasks": [{"name": name} for name in THREE],
    "backbone": {"family": "resnet14", "width": 4},
    "strategies": {"random": {}},
    "candidates": 20,
    "tracking": {"candidates": False},
}


def config(**changed: Any) -> StudyConfig:
    return parse_config(SIMULATED | changed)


def every_count(num_tasks: int, channels: int) -> list[FloatArray]:
    """P of all masks of so many channels, up to the order of channels."""
    subsets = np.array(list(itertools.product([False, True], repeat=num_tasks)))
    chosen = itertools.combinations_with_replacement(range(len(subsets)), channels)
    return [realised(subsets[list(indices)].T) for indices in chosen]


@pytest.mark.parametrize("seed", range(4))
def test_the_front_holds_all_masks_and_is_reached_by_some(seed: int) -> None:
    problem = SyntheticProblem(THREE, SyntheticConfig(seed=seed, clusters=2))
    bounds = problem.front()
    points = np.array([[np.diag(P).mean(), problem.accuracy(P).mean()] for P in every_count(3, 8)])
    slope_M, offset_M = bounds.outer_M2.T
    bound_N = (points[:, :1] * slope_M + offset_M).min(axis=1)
    assert (points[:, 1] <= bound_N + 1e-12).all()
    # Sixteenths of the channels come as near as a front of eighths can.
    assert (bound_N - points[:, 1]).min() < 1e-4
    low, high = bounds.hypervolume((0.0, 1.1))
    assert low <= high < low * 1.001
    cost_N, quality_N = points.T
    staircase = [quality_N[cost_N <= c + 1e-9].max() for c in np.arange(25) / 24]
    assert np.mean(staircase) < high
    # Every inner point lies below every line, and between neighbours, too.
    middle_M2 = (bounds.inner_M2[1:] + bounds.inner_M2[:-1]) / 2
    for cost, quality in (*bounds.inner_M2, *middle_M2):
        assert quality <= (cost * slope_M + offset_M).min() + 1e-12


def test_a_front_in_closed_form() -> None:
    """One vertex costs 1 and has effect 1, one is free and has none: quality is sqrt(share)."""

    def quality(effect_T: FloatArray) -> tuple[float, FloatArray]:
        root = float(np.sqrt(effect_T[0] + 1e-12))
        return root, np.array([0.5 / root])

    bounds = concave_front(np.array([[1.0], [0.0]]), np.array([1.0, 0.0]), quality)
    cost_M, quality_M = bounds.inner_M2.T
    np.testing.assert_allclose(quality_M, np.sqrt(cost_M), atol=1e-5)
    low, high = bounds.hypervolume((0.0, 1.0))
    assert low <= 2 / 3 <= high
    assert high - low < 2e-3


def test_help_and_interference_have_their_signs() -> None:
    problem = SyntheticProblem(tuple("abcdef"), SyntheticConfig(clusters=2))
    alone_TT = np.eye(6) / 2
    together_TT = np.full((6, 6), 0.5)
    off = ~np.eye(6, dtype=bool)
    helps_TT = (problem.worth_TT > 0) & off
    assert helps_TT.sum() == 2 * 3 * 2
    base_T = problem.accuracy(alone_TT)
    gain_T = problem.accuracy(np.where(helps_TT, together_TT, alone_TT)) - base_T
    loss_T = problem.accuracy(np.where(helps_TT, alone_TT, together_TT)) - base_T
    assert (gain_T > 0).all()
    assert (loss_T < 0).all()
    # Similar are those that help each other.
    similar_TT = problem.knowledge.similarity
    assert similar_TT is not None
    assert similar_TT[helps_TT].min() > similar_TT[off & ~helps_TT].max()
    assert (np.diag(similar_TT) == 1).all()


def test_accuracies_stay_between_chance_and_best() -> None:
    for seed in range(5):
        problem = SyntheticProblem(tuple("abcdefghi"), SyntheticConfig(seed=seed, interference=1.0))
        rng = np.random.default_rng(seed)
        for share in (0.0, 0.3, 0.7, 1.0):
            masks_TC = rng.random((9, 32)) < share
            accuracy_T = problem.accuracy(realised(masks_TC))
            assert (accuracy_T >= problem.chance_T - 1e-12).all()
            assert (accuracy_T <= problem.best_T).all()
    # With all of its cluster and nobody else's channels a task is at its best.
    problem = SyntheticProblem(THREE, SyntheticConfig(clusters=1))
    np.testing.assert_allclose(problem.accuracy(np.ones((3, 3))), problem.best_T)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed must not be negative"),
        ({"clusters": 0}, "clusters at least 1"),
        ({"interference": 1.5}, r"interference must be in \[0, 1\], got 1.5"),
        ({"help": float("inf")}, "help must be finite"),
    ],
)
def test_wrong_synthetic_problems_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**settings)


def test_a_surrogate_is_the_posterior_mean() -> None:
    """Against the formula (Rasmussen and Williams 2006, eq. 2.23) in plain loops."""
    rng = np.random.default_rng(0)
    points_NE, accuracy_NT = rng.random((7, 3)), rng.random((7, 2))
    kernels = tuple(
        Kernel(mean=0.4 + t, scale=0.3, noise=0.05, lengths=(0.5, 1.0 + t, 2.0, 3.0))
        for t in range(2)
    )
    surrogate = Surrogate(TaskKnowledge(), points_NE, accuracy_NT, kernels)
    P_TT = np.array([[0.5, 0.2], [0.2, 0.7]])
    new_E = np.array([0.5, 0.7, 0.2])

    def covariance(kernel: Kernel, task: int, one: FloatArray, other: FloatArray) -> float:
        own, others, shared = (task, 1 - task, 2)
        squared = 0.0
        for position, length in ((own, 0), (others, 2), (shared, 1)):
            difference = np.sqrt(one[position]) - np.sqrt(other[position])
            squared += (difference / kernel.lengths[length]) ** 2
        r = np.sqrt(5 * squared)
        return float(kernel.scale**2 * (1 + r + r**2 / 3) * np.exp(-r))

    for t, kernel in enumerate(kernels):
        K = np.array([[covariance(kernel, t, a, b) for b in points_NE] for a in points_NE])
        k = np.array([covariance(kernel, t, new_E, a) for a in points_NE])
        weights = np.linalg.solve(K + kernel.noise**2 * np.eye(7), accuracy_NT[:, t] - kernel.mean)
        expected = np.clip(kernel.mean + k @ weights, 0, 1)
        assert surrogate.accuracy(P_TT)[t] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"evaluator": "guess"}, "evaluator must be one of proxy, simulated, got 'guess'"),
        ({"evaluator": "proxy"}, "trunk is missing"),
        ({"simulation": {"problem": "other"}}, "problem must be one of synthetic, mini_decathlon"),
        ({"tasks": []}, "there must be at least one task"),
        ({"rungs": [{"steps": 30}]}, "rungs must be left out"),
        ({"finish": {}}, "finish must be left out"),
        ({"space": {"kind": "block_level", "levels": [0.5, 1]}}, "space.levels must be one level"),
        ({"tasks": [{"name": f"t{i}"} for i in range(13)]}, "at most 12 tasks"),
    ],
)
def test_wrong_simulated_studies_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changed)


def test_the_true_front_as_a_space_and_a_reference_show_it() -> None:
    _, least = SyntheticProblem(THREE, SyntheticConfig()).front().hypervolume((0.0, 1.1), 0.2)
    known = config(space={"use": [0.2, 1]}, objective={"reference": [0.0, 1.1]})
    assert true_hypervolume(known) == least
    assert least < (true_hypervolume(config(space={"use": [0.0, 1]})) or 0)
    assert true_hypervolume(config(objective={"cost": "macs"})) is None
    # Nothing of the front lies beyond these points.
    assert true_hypervolume(config(objective={"reference": [0.999, 1.1]})) is None
    low = config(space={"use": [0.2, 1]}, objective={"reference": [0.0, 0.1]})
    assert true_hypervolume(low) is None


def test_a_simulated_study_has_nothing_to_train_on() -> None:
    with pytest.raises(ConfigError, match="the study simulated is simulated: it has no images"):
        build_foundation(config(), run_here, print)


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
    settings = config()
    problem = SyntheticProblem(THREE, settings.simulation.synthetic)
    told = run(settings)
    assert len(told) == 20
    for candidate in told:
        masks = Masks.from_dict(candidate.evaluation["masks"])
        accuracy_T = problem.accuracy(masks.mean_realised())
        assert candidate.accuracy == dict(zip(THREE, accuracy_T.tolist(), strict=True))
        assert candidate.quality == pytest.approx(accuracy_T.mean())
        assert candidate.cost == pytest.approx(masks.mean_use())
        assert 0 < candidate.evaluation["seconds"] <= 1
    again = run(settings)
    assert [c.quality for c in again] == [c.quality for c in told]
    other = run(replace(settings, seeds=(1,)), seed=1)
    assert [c.quality for c in other] != [c.quality for c in told]


def test_baselines_of_the_synthetic_problem() -> None:
    problem = SyntheticProblem(tuple("abcdefghi"), SyntheticConfig())
    slope_M, offset_M = problem.front().outer_M2.T
    for P in (share_all(9), independent(9)):
        cost = float(np.diag(P).mean())
        assert problem.accuracy(P).mean() < (cost * slope_M + offset_M).min()


def kinds_in_mlflow(study: Study) -> dict[str, int]:
    """How many runs of each kind the mirror has."""
    from mlflow import MlflowClient

    client = MlflowClient(study.store_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return Counter(run.data.tags["apportion.kind"] for run in client.search_runs(experiments))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_simulated_study_goes_through_tune(tmp_path: Path) -> None:
    settings = config(
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


def test_the_shipped_surrogate_knows_the_points_it_was_made_of() -> None:
    config = load_config("configs/compare_surrogate.yaml")
    names = tuple(task.name for task in config.tasks)
    surrogate = Surrogate.shipped("mini_decathlon", names)
    text = (files("search.simulated") / "tables" / "mini_decathlon.csv").read_text()
    points_NE, accuracy_NT = read_table(text)
    assert len(points_NE) >= 600
    predicted_NT = np.array([surrogate.at(point_E) for point_E in points_NE])
    # It smooths the noise of single trainings away: cross-validated errors are .016 to .027.
    error_T = np.sqrt(np.square(predicted_NT - accuracy_NT).mean(axis=0))
    assert (error_T < 0.03).all()
    assert np.corrcoef(predicted_NT.mean(axis=1), accuracy_NT.mean(axis=1))[0, 1] > 0.98
    # More channels for all, shared by all, are better for the mean.
    qualities = [surrogate.accuracy(np.full((9, 9), use)).mean() for use in (0.1, 0.3, 0.9)]
    assert qualities == sorted(qualities)
    with pytest.raises(ValueError, match="is of the tasks cifar10, gtsrb"):
        Surrogate.shipped("mini_decathlon", names[::-1])


def test_arms_are_held_against_each_other_at_the_same_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However fast they are: an arm that is resumed tells its record in no time."""
    told = run(config())
    sent: list[int] = []
    monkeypatch.setattr("search.arms.trials.REPORT_EVERY", np.inf)
    monkeypatch.setattr(
        "search.arms.trials.tune.report", lambda result: sent.append(result["candidates"])
    )
    for halve_arms, expected in ((5, {5, 10}), (10, {10}), (20, set()), (None, set())):
        sent.clear()
        report = _Report(config(schedule={"halve_arms": halve_arms}), budget=20)
        for candidate in told:
            report.told(candidate)
        assert set(sent) == expected


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_hopeless_arms_are_stopped(tmp_path: Path) -> None:
    # Weights that sweep the front, then one that pulls to the lowest use at once.
    grid = {"grid": {"diagonal_l2": [[20.0, 5.0, 1.0, 0.2], [1000.0]]}, "directions": 4}
    try:
        connect()
        # All CPUs for an arm: they run in order, so that the second is held against the first.
        cpus = ray.cluster_resources()["CPU"]
        settings = config(
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
