"""The counts of subsets: what they cost, their feasible start, and their order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning.counts import make_counts
from partitioning.incumbent import descend, greedy, incumbent
from partitioning.ordering import chain


@st.composite
def problems(draw):
    tasks, kinds = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    goal_TT = draw(arrays(np.int64, (tasks, tasks), elements=st.integers(0, 12)))
    return make_counts(
        draw(arrays(bool, (kinds, tasks))),
        draw(arrays(np.int64, kinds, elements=st.integers(1, 6))),
        np.minimum(goal_TT, goal_TT.T),
    )


def per_kind(problem, counts_K):
    return np.bincount(problem.kind_K, weights=counts_K).tolist()


def test_columns_are_the_subsets_of_each_kind():
    kinds_ST = np.array([[0, 0, 0], [1, 0, 1]], dtype=bool)
    problem = make_counts(kinds_ST, np.array([2, 3]), np.zeros((3, 3), dtype=int))
    assert problem.subset_KT.astype(int).tolist() == [
        [0, 0, 0],
        [0, 0, 0],
        [1, 0, 0],
        [0, 0, 1],
        [1, 0, 1],
    ]
    assert problem.kind_K.tolist() == [0, 1, 1, 1, 1]
    assert problem.whole().tolist() == [0, 4]
    # entries: the three tasks, then the pairs (0, 1), (0, 2), (1, 2)
    assert problem.entry_KE[4].tolist() == [1, 0, 1, 0, 1, 0]
    assert problem.weight_E.tolist() == [1, 1, 1, 2, 2, 2]


@given(problems(), st.data())
def test_the_deviation_is_that_of_the_masks(problem, data):
    counts_K = data.draw(
        arrays(np.int64, len(problem.kind_K), elements=st.integers(0, 3)), label="counts"
    )
    masks_TC = np.repeat(problem.subset_KT, counts_K, axis=0).T.astype(int)
    goal_TT = np.diag(problem.goal_E[: len(masks_TC)])
    goal_TT[np.triu_indices(len(masks_TC), k=1)] = problem.goal_E[len(masks_TC) :]
    goal_TT = np.maximum(goal_TT, goal_TT.T)
    assert problem.deviation(counts_K) == np.abs(masks_TC @ masks_TC.T - goal_TT).sum()


@settings(deadline=None)
@given(problems())
def test_the_incumbent_is_feasible_and_no_worse_than_giving_all(problem):
    whole_K = np.zeros(len(problem.kind_K), dtype=np.int64)
    whole_K[problem.whole()] = problem.capacity_S
    for counts_K in (greedy(problem), incumbent(problem)):
        assert (counts_K >= 0).all()
        assert per_kind(problem, counts_K) == problem.capacity_S.tolist()
    best = problem.deviation(incumbent(problem))
    assert problem.floor() <= best <= problem.deviation(whole_K)


@settings(deadline=None)
@given(problems())
def test_no_move_of_one_channel_improves_on_a_descent(problem):
    start_K = greedy(problem)
    before = start_K.copy()
    counts_K = descend(problem, start_K, squared=False)
    assert np.array_equal(start_K, before)
    assert problem.deviation(counts_K) <= problem.deviation(start_K)
    for source in np.flatnonzero(counts_K):
        for target in np.flatnonzero(problem.kind_K == problem.kind_K[source]):
            moved_K = counts_K.copy()
            moved_K[source] -= 1
            moved_K[target] += 1
            assert problem.deviation(moved_K) >= problem.deviation(counts_K)


def test_the_squares_come_first_because_they_lead_further():
    rng = np.random.default_rng(0)
    masks_TC = (rng.random((6, 64)) < 0.5).astype(int)
    problem = make_counts(np.ones((1, 6), dtype=bool), np.array([64]), masks_TC @ masks_TC.T)
    start_K = greedy(problem)
    direct = problem.deviation(descend(problem, start_K, squared=False))
    assert problem.deviation(incumbent(problem)) < 0.5 * direct


def test_the_floor_counts_goals_beyond_all_channels():
    goal_TT = np.array([[5, 3], [3, 2]])
    problem = make_counts(np.array([[1, 1], [1, 0]], dtype=bool), np.array([2, 1]), goal_TT)
    # At most 3 channels for task 0, 2 for task 1 and 2 in common: short by 2, 0 and (twice) 1.
    assert problem.floor() == 4


@given(st.integers(1, 5), st.data())
def test_a_chain_visits_every_subset_once_and_ends_with_the_empty_one(tasks, data):
    codes = data.draw(st.lists(st.integers(0, 2**tasks - 1), unique=True, min_size=1))
    subset_NT = (np.array(codes)[:, None] >> np.arange(tasks)) & 1 == 1
    order = chain(subset_NT)
    assert sorted(order.tolist()) == list(range(len(codes)))
    if 0 in codes:
        assert codes[order[-1]] == 0


def test_a_chain_depends_on_the_subsets_alone():
    rng = np.random.default_rng(0)
    subset_NT = np.unique(rng.random((40, 6)) < 0.5, axis=0)
    shuffled = subset_NT[rng.permutation(len(subset_NT))]
    assert np.array_equal(subset_NT[chain(subset_NT)], shuffled[chain(shuffled)])


def test_chains_have_far_fewer_runs_than_any_order():
    rng = np.random.default_rng(0)
    subset_NT = np.unique(rng.random((60, 9)) < 0.5, axis=0)

    def runs(ordered_NT):
        return (np.diff(ordered_NT.astype(int), axis=0, prepend=0) == 1).sum()

    usual = np.mean([runs(subset_NT[rng.permutation(len(subset_NT))]) for _ in range(20)])
    assert runs(subset_NT[chain(subset_NT)]) < 0.7 * usual


def test_an_order_without_gaps_is_found():
    subset_NT = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1], [1, 1, 0]], dtype=bool)
    ordered = subset_NT[chain(subset_NT)].astype(int)
    assert (np.diff(ordered, axis=0, prepend=0) == 1).sum(axis=0).tolist() == [1, 1, 1]
