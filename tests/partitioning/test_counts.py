"""Counts of subsets: what they cost, what is priced, and the search that needs no programme."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning import pricing
from partitioning.descent import descend, shake
from partitioning.generation import cheapest, dive, generate, lagrangian_bound
from partitioning.pricing import price, price_surely, smallest, subset_values, unpack
from partitioning.problem import Columns, MaskProblem, gram, merged
from partitioning.programmes import best_subset, whole_counts


@st.composite
def problems(draw):
    tasks, kinds = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    goal_TT = draw(arrays(np.int64, (tasks, tasks), elements=st.integers(0, 12)))
    return MaskProblem(
        kinds_ST=draw(arrays(bool, (kinds, tasks), unique=False)),
        capacity_S=draw(arrays(np.int64, kinds, elements=st.integers(1, 6))),
        goal_TT=np.minimum(goal_TT, goal_TT.T),
        diagonal_weight=draw(st.integers(1, 3)),
        pair_weight=draw(st.integers(1, 3)),
    )


def random_problem(tasks, channels, seed=0, kinds=1):
    rng = np.random.default_rng(seed)
    goal_TT = np.triu(rng.integers(0, channels, (tasks, tasks)))
    kinds_ST = np.ones((1, tasks), dtype=bool) if kinds == 1 else rng.random((kinds, tasks)) < 0.7
    return MaskProblem(
        kinds_ST=kinds_ST,
        capacity_S=np.full(kinds, channels // kinds),
        goal_TT=goal_TT + np.triu(goal_TT, 1).T,
    )


def random_prices(tasks, seed=0):
    matrix = np.random.default_rng(seed).normal(size=(tasks, tasks))
    return matrix + matrix.T


def used_up(problem, columns, counts_K):
    per_kind = np.bincount(columns.kind_K, counts_K, minlength=len(problem.capacity_S))
    inside = ~columns.subset_KT | problem.kinds_ST[columns.kind_K]
    return per_kind.tolist() == problem.capacity_S.tolist() and inside[counts_K > 0].all()


@given(problems(), st.data())
def test_the_deviation_is_that_of_the_masks(problem, data):
    columns = problem.whole()
    counts_K = data.draw(arrays(np.int64, len(columns), elements=st.integers(0, 3)))
    masks_TC = np.repeat(columns.subset_KT, counts_K, axis=0).T.astype(int)
    total = 0
    for i, j in itertools.product(range(len(masks_TC)), repeat=2):
        weight = problem.diagonal_weight if i == j else problem.pair_weight
        total += weight * abs((masks_TC @ masks_TC.T)[i, j] - problem.goal_TT[i, j])
    assert problem.deviation(columns, counts_K) == total
    assert problem.floor() <= problem.deviation(columns, problem.capacity_S)


def test_the_floor_counts_goals_beyond_all_channels():
    problem = MaskProblem(
        kinds_ST=np.array([[1, 1], [1, 0]], dtype=bool),
        capacity_S=np.array([2, 1]),
        goal_TT=np.array([[5, 3], [3, 2]]),
    )
    # At most 3 channels for task 0, 2 for task 1 and 2 in common: short by 2, 0 and (twice) 1.
    assert problem.floor() == 4


def test_equal_columns_are_merged_and_unused_ones_dropped():
    columns = Columns(
        subset_KT=np.array([[1, 0], [0, 1], [1, 0], [1, 0]], dtype=bool),
        kind_K=np.array([0, 0, 0, 1]),
    )
    left, counts_N = merged(columns, np.array([2, 0, 3, 1]))
    assert left.subset_KT.tolist() == [[True, False], [True, False]]
    assert (left.kind_K.tolist(), counts_N.tolist()) == ([0, 1], [5, 1])


def test_doubling_values_every_subset():
    price_TT = random_prices(6)
    subset_NT = unpack(np.arange(64), 6).astype(float)
    assert np.allclose(subset_values(price_TT), ((subset_NT @ price_TT) * subset_NT).sum(axis=1))


@given(arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 5)), st.integers(1, 40))
def test_the_smallest_come_in_order_with_ties_by_position(key_N, count):
    expected = sorted(range(len(key_N)), key=lambda n: (key_N[n], n))[:count]
    assert smallest(key_N.astype(float), count).tolist() == expected


def test_the_best_subsets_of_every_kind_lie_inside_it():
    problem = random_problem(6, 30, kinds=5)
    priced = price(random_prices(6), problem, 3, problem.whole())
    assert not (priced.columns.subset_KT & ~problem.kinds_ST[priced.columns.kind_K]).any()
    for kind, allowed_T in enumerate(problem.kinds_ST):
        inside = [s for s in itertools.product([0, 1], repeat=6) if not (s & ~allowed_T).any()]
        values = sorted((np.array(s) @ random_prices(6) @ s for s in inside), reverse=True)[:3]
        assert np.allclose(priced.value_K[priced.columns.kind_K == kind], values)
        assert np.isclose(priced.limit_S[kind], values[0])


def test_beyond_doubling_the_best_subset_is_found_three_ways(monkeypatch):
    price_TT, problem = random_prices(11, seed=3), random_problem(11, 30)
    best = subset_values(price_TT).max()
    monkeypatch.setattr(pricing, "MAX_DOUBLED", 8)
    climbed = price(price_TT, problem, 5, problem.whole())
    assert climbed.limit_S[0] == np.inf
    assert best - 1e-9 > 0.9 * climbed.value_K[0] > 0
    soon = time.perf_counter() + 60
    branched = price_surely(price_TT, problem, climbed, soon, 1)
    assert np.isclose(branched.value_K[0], best)
    assert np.isclose(branched.limit_S[0], best)
    monkeypatch.setattr(pricing, "MAX_BRANCHED", 8)
    solved = price_surely(price_TT, problem, climbed, soon, 1)
    assert np.isclose(solved.value_K[0], best)
    assert best - 1e-6 <= solved.limit_S[0] <= best + 1e-3
    hurried = price_surely(price_TT, problem, climbed, 0.0, 1)
    assert hurried.limit_S[0] == np.inf
    assert hurried.value_K[0] == climbed.value_K[0]


def test_a_limit_is_not_what_happened_to_be_found(monkeypatch):
    price_TT, problem = random_prices(9, seed=3), random_problem(9, 30)
    best = subset_values(price_TT).max()
    monkeypatch.setattr(pricing, "MAX_DOUBLED", 3)
    monkeypatch.setattr(pricing, "MAX_BRANCHED", 3)
    unlucky = np.zeros(9, dtype=bool)
    monkeypatch.setattr(pricing, "best_subset", lambda *_: (unlucky, best + 5))
    priced = price(price_TT, problem, 1, problem.whole())
    surely = price_surely(price_TT, problem, priced, time.perf_counter() + 60, 1)
    assert (surely.value_K[0], surely.limit_S[0]) == (0, best + 5)


def test_a_bound_is_lowered_by_what_rounding_may_have_added():
    problem = MaskProblem(
        kinds_ST=np.ones((1, 2), dtype=bool),
        capacity_S=np.array([10**9]),
        goal_TT=np.full((2, 2), 10**9),
    )
    bound = lagrangian_bound(problem, np.full((2, 2), 1000.0), np.array([4000.0]))
    assert -10 < bound < -1


def test_columns_that_cannot_be_looked_at_may_be_of_use(monkeypatch):
    monkeypatch.setattr(pricing, "MAX_DOUBLED", 2)
    problem = random_problem(4, 20)
    generated = generate(problem, 1, time.perf_counter() + 60)
    columns, _, others = cheapest(problem, generated, 1000)
    assert len(columns) < 16
    assert others == 0


def test_a_subset_that_is_not_proven_best_has_a_limit_above_it():
    price_TT = random_prices(30)
    subset_T, limit = best_subset(price_TT, 0.01, 1)
    assert subset_T @ price_TT @ subset_T <= limit


@settings(deadline=None)
@given(problems())
def test_the_bound_holds_and_what_is_rounded_uses_up_all_channels(problem):
    whole = problem.whole()
    generated = generate(problem, 1, time.perf_counter() + 60)
    for columns, counts_K in (
        dive(problem, generated, time.perf_counter() + 60),
        dive(problem, generate(problem, 1, time.perf_counter() + 60), 0.0),  # no time left
        dive(problem, generate(problem, 1, 0.0), 0.0),  # no time at all
    ):
        assert used_up(problem, columns, counts_K)
        assert generated.bound - 1e-6 <= problem.deviation(columns, counts_K)
        better = descend(problem, columns, counts_K, time.perf_counter() + 60)
        assert used_up(problem, *better)
        assert problem.deviation(*better) <= problem.deviation(columns, counts_K)
    assert generated.bound - 1e-6 <= problem.deviation(whole, problem.capacity_S)


@pytest.mark.parametrize("kinds", [1, 4])
def test_the_linear_programme_misses_no_column(kinds):
    problem = random_problem(5, 40, kinds=kinds)
    generated = generate(problem, 1, time.perf_counter() + 60)
    assert np.isclose(generated.bound, generated.relaxed.objective)
    # The same programme with every column from the start.
    every, _, others = cheapest(problem, generated, 1000)
    assert others == np.inf
    assert len(every) == sum(2 ** int(kind_T.sum()) for kind_T in problem.kinds_ST)
    counts_K, bound = whole_counts(problem, every, np.zeros(len(every), dtype=np.int64), 60.0, 1)
    assert used_up(problem, every, counts_K)
    assert problem.deviation(every, counts_K) == bound >= generated.bound - 1e-6


def test_columns_come_by_reduced_cost_and_the_next_is_known():
    problem = random_problem(6, 30)
    generated = generate(problem, 1, time.perf_counter() + 60)
    _, cost_K, _ = cheapest(problem, generated, 64)
    assert (np.diff(cost_K) >= 0).all()
    assert cost_K[0] == pytest.approx(0)
    _, few_K, others = cheapest(problem, generated, 10)
    assert few_K.tolist() == cost_K[:10].tolist()
    assert others == cost_K[10]


def test_masks_with_a_costly_column_deviate_by_as_much_as_was_said():
    problem = random_problem(4, 6)
    generated = generate(problem, 1, time.perf_counter() + 60)
    every, cost_K, _ = cheapest(problem, generated, 16)
    least_K = np.full(16, np.inf)
    for chosen in itertools.combinations_with_replacement(range(16), 6):
        deviation = problem.deviation(every, np.bincount(chosen, minlength=16))
        for column in set(chosen):
            least_K[column] = min(least_K[column], deviation)
    assert (least_K >= generated.bound + cost_K - 1e-6).all()


@settings(deadline=None)
@given(problems())
def test_no_single_move_improves_on_a_descent(problem):
    columns, counts_N = descend(
        problem, problem.whole(), problem.capacity_S, time.perf_counter() + 60
    )
    least = problem.deviation(columns, counts_N)
    rows = np.repeat(np.arange(len(columns)), counts_N)
    subset_CT, kind_C = columns.subset_KT[rows], columns.kind_K[rows]

    def deviation(moved_CT):
        moved = Columns(subset_KT=moved_CT, kind_K=kind_C)
        return problem.deviation(moved, np.ones(len(moved), dtype=np.int64))

    channels, tasks = subset_CT.shape
    for channel, task in itertools.product(range(channels), range(tasks)):
        if not problem.kinds_ST[kind_C[channel], task]:
            continue
        flipped_CT = subset_CT.copy()
        flipped_CT[channel, task] ^= True
        assert deviation(flipped_CT) >= least
        for giver in range(channels):
            if subset_CT[giver, task] and not subset_CT[channel, task]:
                traded_CT = flipped_CT.copy()
                traded_CT[giver, task] = False
                assert deviation(traded_CT) >= least


def test_many_channels_are_moved_at_once():
    problem = random_problem(6, 10**6)
    started = time.perf_counter()
    columns, counts_N = descend(problem, problem.whole(), problem.capacity_S, 0.0)
    assert time.perf_counter() - started < 5
    assert used_up(problem, columns, counts_N)
    # The same as one by one: no flip of a single channel is left that improves.
    subset_CT = columns.subset_KT
    for row, task in itertools.product(*map(range, subset_CT.shape)):
        flipped = Columns(subset_KT=subset_CT[row : row + 1].copy(), kind_K=np.zeros(1, dtype=int))
        flipped.subset_KT[0, task] ^= True
        moved_N = np.append(counts_N, 1)
        moved_N[row] -= 1
        assert problem.deviation(columns + flipped, moved_N) >= problem.deviation(columns, counts_N)


def test_shaking_goes_on_where_a_descent_ends():
    masks_TC = (np.random.default_rng(0).random((9, 64)) < 0.5).astype(int)
    problem = MaskProblem(
        kinds_ST=np.ones((1, 9), dtype=bool),
        capacity_S=np.array([64]),
        goal_TT=masks_TC @ masks_TC.T,
    )
    start = descend(problem, problem.whole(), problem.capacity_S, time.perf_counter() + 60)
    kwargs = {"enough": 0, "deadline": time.perf_counter() + 60}
    shaken = shake(problem, *start, rounds=30, **kwargs)
    assert used_up(problem, *shaken)
    assert problem.deviation(*shaken) < 0.7 * problem.deviation(*start)
    again = shake(problem, *start, rounds=30, **kwargs)
    assert np.array_equal(gram(*shaken), gram(*again))
    stopped = shake(problem, *start, rounds=30, enough=10**6, deadline=time.perf_counter() + 60)
    assert np.array_equal(stopped[1], start[1])


def test_without_time_the_counts_to_beat_come_back():
    problem = random_problem(9, 64)
    generated = generate(problem, 1, time.perf_counter() + 60)
    columns, _, _ = cheapest(problem, generated, 512)
    start_K = np.zeros(len(columns), dtype=np.int64)
    start_K[0] = 64
    counts_K, bound = whole_counts(problem, columns, start_K, 1e-6, 1)
    assert np.array_equal(counts_K, start_K)
    assert bound == 0
