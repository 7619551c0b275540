"""The synthetic problem and its front."""

import itertools
from typing import Any

import numpy as np
import pytest

from partitioning import FloatArray, independent, realised, share_all
from search.simulated.convex_front import concave_front
from search.simulated.synthetic import SyntheticConfig, SyntheticProblem

THREE = ("a", "b", "c")


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
        ({"seed": -1}, "seed must be at least 0"),
        ({"clusters": 0}, "clusters must be at least 1"),
        ({"interference": 1.5}, r"interference must be in \[0, 1\], got 1.5"),
        ({"help": float("inf")}, "help must be finite"),
    ],
)
def test_wrong_synthetic_problems_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**settings)


def test_baselines_of_the_synthetic_problem() -> None:
    problem = SyntheticProblem(tuple("abcdefghi"), SyntheticConfig())
    slope_M, offset_M = problem.front().outer_M2.T
    for P in (share_all(9), independent(9)):
        cost = float(np.diag(P).mean())
        assert problem.accuracy(P).mean() < (cost * slope_M + offset_M).min()
