"""The nearest realisable sharing matrix."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning import pricing
from partitioning.projection import project
from partitioning.sharing import SharingMatrixError, realised, refine, vector_to_matrix
from partitioning.solver import solve
from partitioning.solver_config import SolverConfig


def random_target(num_tasks, seed):
    vector = np.random.default_rng(seed).random(num_tasks * (num_tasks + 1) // 2)
    return refine(vector_to_matrix(vector, num_tasks))


@settings(deadline=None, max_examples=30)
@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 12))))
def test_what_masks_realise_is_its_own_projection(masks_TC):
    P = realised(masks_TC)
    assert np.allclose(project(P), P, atol=1e-7)


@pytest.mark.parametrize("num_tasks", range(1, 8))
def test_a_projection_is_realisable_and_no_masks_come_nearer(num_tasks):
    target = random_target(num_tasks, seed=5)
    nearest = project(target)
    assert np.allclose(project(nearest), nearest, atol=1e-7)
    distance = np.abs(nearest - target).sum()
    rng = np.random.default_rng(0)
    for use in rng.random((200, num_tasks, 1)):
        other = realised(rng.random((num_tasks, 16)) < use)
        assert np.abs(other - target).sum() >= distance - 1e-7


def test_the_distance_is_what_many_channels_come_to():
    target = random_target(6, seed=1)
    distance = np.abs(project(target) - target).sum()
    channels = 100_000
    solution = solve(target, channels)
    assert distance > 0.05
    assert solution.deviation / channels == pytest.approx(distance, abs=1e-3)


def test_triangles_of_three_tasks():
    # z z^T obeys p_ij + p_ik - p_jk <= p_ii, and the sum of p_ii - p_ij stays at most 1.
    for seed in range(20):
        P = project(random_target(3, seed))
        for i, j, k in itertools.permutations(range(3)):
            assert P[i, j] + P[i, k] - P[j, k] <= P[i, i] + 1e-7
        assert np.trace(P) - P[0, 1] - P[0, 2] - P[1, 2] <= 1 + 1e-7


def test_use_can_be_kept():
    target = random_target(8, seed=2)
    free, kept = project(target), project(target, SolverConfig(exact_use=True))
    assert not np.allclose(np.diag(free), np.diag(target), atol=1e-3)
    assert np.allclose(np.diag(kept), np.diag(target), atol=1e-7)
    assert np.abs(kept - target).sum() > np.abs(free - target).sum()


def test_without_time_there_is_no_guess():
    with pytest.raises(TimeoutError, match=r"of 9 tasks was not found within 1e-09 s"):
        project(random_target(9, seed=3), SolverConfig(time_limit=1e-9))


def test_beyond_doubling_the_nearest_is_the_same(monkeypatch):
    target = random_target(7, seed=4)
    nearest = project(target)
    for limits in ((3, 24), (3, 3)):
        monkeypatch.setattr(pricing, "MAX_DOUBLED", limits[0])
        monkeypatch.setattr(pricing, "MAX_BRANCHED", limits[1])
        again = project(target)
        assert np.isclose(np.abs(again - target).sum(), np.abs(nearest - target).sum())
        assert np.allclose(project(again), again, atol=1e-7)


def test_too_many_tasks_are_refused():
    with pytest.raises(ValueError, match="at most 40 tasks, got 41"):
        project(np.eye(41))


def test_no_sharing_matrix_is_refused_by_name():
    with pytest.raises(SharingMatrixError, match=r"P\[0, 1\] = nan"):
        project(np.array([[0.5, np.nan], [np.nan, 0.5]]))
