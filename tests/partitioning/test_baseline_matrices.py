import numpy as np
import pytest

from partitioning.baselines import (
    BASELINES,
    equal_use,
    independent,
    random_masks,
    share_all,
    share_half,
)
from partitioning.sharing import realised, refine, unrefine
from partitioning.solver import solve


def test_the_names():
    equal = [f"equal_{percent}" for percent in range(10, 100, 10)]
    random = ["random_30", "random_50", "random_70"]
    assert list(BASELINES) == ["share_all", "independent", "share_half", *equal, *random]


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 9])
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_a_sharing_matrix_that_every_pair_can_realise(name, num_tasks):
    P = BASELINES[name](num_tasks, 64, np.random.default_rng(0))
    assert P.shape == (num_tasks, num_tasks)
    assert np.allclose(refine(unrefine(P)), P, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_has_masks(name):
    P = BASELINES[name](4, 80, np.random.default_rng(0))  # 80 divides by 8 and by 10
    assert np.allclose(realised(solve(P, 80).masks_TC), P, atol=1e-12, rtol=0)


def test_closed_forms():
    assert np.array_equal(share_all(3), np.ones((3, 3)))
    assert np.array_equal(independent(4), np.eye(4) / 4)
    assert np.allclose(share_half(5), np.full((5, 5), 0.5) + np.eye(5) * 0.1)
    assert np.array_equal(equal_use(2, 0.3), np.full((2, 2), 0.3))
    assert np.array_equal(
        BASELINES["equal_70"](2, 8, np.random.default_rng(0)), np.full((2, 2), 0.7)
    )


def test_a_single_task_has_the_whole_network_unless_its_budget_is_smaller():
    for P in (share_all(1), independent(1), share_half(1)):
        assert P.tolist() == [[1.0]]


def test_random_masks_are_realisable_seeded_and_of_the_size_asked_for():
    P, again, other = (random_masks(6, 1000, 0.3, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(P, again)
    assert not np.array_equal(P, other)
    # 1000 Bernoulli draws: a standard deviation is 0.0145 on the diagonal and 0.009 off it
    assert np.abs(np.diag(P) - 0.3).max() < 5 * 0.0145
    assert np.abs(P[~np.eye(6, dtype=bool)] - 0.09).max() < 5 * 0.009
    assert np.allclose(P * 1000, np.rint(P * 1000))


def test_random_masks_leave_no_task_without_channels():
    for seed in range(20):
        P = random_masks(4, 2, 0.1, np.random.default_rng(seed))
        assert (np.diag(P) > 0).all()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, np.nan])
def test_budgets_out_of_range_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction must lie above 0"):
        equal_use(3, fraction)
    with pytest.raises(ValueError, match="use above 0"):
        random_masks(3, 8, fraction, np.random.default_rng(0))


def test_random_masks_need_channels():
    with pytest.raises(ValueError, match="at least 1 channel"):
        random_masks(3, 0, 0.5, np.random.default_rng(0))
