"""The order of subsets: as few runs of channels as possible."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partitioning.ordering import count_runs, order_subsets
from partitioning.sharing import realised, refine, refine_backward, vector_to_matrix
from partitioning.solver import solve, solve_backward


def subsets(codes, tasks):
    return (np.array(codes)[:, None] >> np.arange(tasks)) & 1 == 1


def runs(subset_NT, order):
    return count_runs(subset_NT[order].T)


@given(st.integers(1, 5), st.data())
def test_every_subset_is_visited_once_and_the_empty_one_last(tasks, data):
    codes = data.draw(st.lists(st.integers(0, 2**tasks - 1), unique=True, min_size=1))
    order = order_subsets(subsets(codes, tasks))
    assert sorted(order.tolist()) == list(range(len(codes)))
    if 0 in codes:
        assert codes[order[-1]] == 0


@pytest.mark.parametrize("seed", range(12))
def test_the_order_is_close_to_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    subset_NT = subsets(rng.choice(np.arange(1, 64), 7, replace=False), 6)
    fewest = min(runs(subset_NT, list(order)) for order in itertools.permutations(range(7)))
    assert fewest <= runs(subset_NT, order_subsets(subset_NT)) <= fewest + 1


def test_the_best_of_all_is_found_nearly_always():
    found = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        subset_NT = subsets(rng.choice(np.arange(1, 32), 6, replace=False), 5)
        fewest = min(runs(subset_NT, list(order)) for order in itertools.permutations(range(6)))
        found += runs(subset_NT, order_subsets(subset_NT)) == fewest
    assert found >= 27


def test_the_order_depends_on_the_subsets_alone():
    rng = np.random.default_rng(0)
    subset_NT = np.unique(rng.random((40, 6)) < 0.5, axis=0)
    shuffled = subset_NT[rng.permutation(len(subset_NT))]
    assert np.array_equal(subset_NT[order_subsets(subset_NT)], shuffled[order_subsets(shuffled)])


def test_an_order_without_gaps_is_found():
    subset_NT = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1], [1, 1, 0]], dtype=bool)
    assert runs(subset_NT, order_subsets(subset_NT)) == 3


def test_no_reversal_and_no_move_of_up_to_three_would_save_a_run():
    rng = np.random.default_rng(0)
    subset_NT = np.unique(rng.random((40, 9)) < 0.5, axis=0)
    order = order_subsets(subset_NT)
    fewest, size = runs(subset_NT, order), len(order)
    for start, stop in itertools.combinations(range(size + 1), 2):
        stretch, rest = order[start:stop], np.delete(order, np.s_[start:stop])
        reversed_ = np.concatenate([order[:start], stretch[::-1], order[stop:]])
        assert runs(subset_NT, reversed_) >= fewest
        if len(stretch) > 3:
            continue
        for place, way in itertools.product(range(len(rest) + 1), (stretch, stretch[::-1])):
            moved = np.concatenate([rest[:place], way, rest[place:]])
            assert runs(subset_NT, moved) >= fewest


def test_what_lies_before_is_gone_on_from():
    subset_NT = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=bool)
    order = order_subsets(subset_NT, np.array([0, 0, 1], dtype=bool))
    assert order.tolist() == [3, 1, 2, 0]
    order = order_subsets(subset_NT, np.array([1, 0, 0], dtype=bool))
    assert order.tolist() == [0, 2, 1, 3]


def test_backward_masks_go_on_from_one_forward_kind_to_the_next():
    rng = np.random.default_rng(0)
    saved = 0
    for seed in range(6):
        target = refine(vector_to_matrix(rng.random(21), 6))
        forward_TC = solve(target, 64).masks_TC
        raw = vector_to_matrix(np.random.default_rng(seed).random(21), 6)
        backward_TC = solve_backward(
            refine_backward(raw, realised(forward_TC)), forward_TC
        ).masks_TC
        _, kind_C = np.unique(forward_TC.T, axis=0, return_inverse=True)
        alone_TC = backward_TC.copy()
        for kind in np.unique(kind_C):
            own_TC = backward_TC[:, kind_C == kind]
            subset_NT, count_N = np.unique(own_TC.T, axis=0, return_counts=True)
            order = order_subsets(subset_NT)
            alone_TC[:, kind_C == kind] = np.repeat(subset_NT[order], count_N[order], axis=0).T
        saved += count_runs(alone_TC) - count_runs(backward_TC)
    assert saved > 0
