"""Counts that are feasible at once, for when the integer programme has no time to find better.

Single channels are moved towards the goal, first by the squared and then by the absolute
deviation: a step by the absolute deviation counts the same however far an entry is off, so on its
own it stops early (at 9 tasks and 64 channels two to three times the optimum, and 1.4 times with
the squares first). All is deterministic: ties go to the first column.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partitioning.counts import Counts
from partitioning.sharing import IntArray


def incumbent(problem: Counts) -> IntArray:
    """Feasible counts without integer programming.

    Args:
        problem: the columns and the goal.

    Returns:
        (K,), counts that use up every kind of channel; no worse than giving every channel to all
        the tasks that it may belong to (for backward masks: backward = forward).
    """
    whole_K = np.zeros(len(problem.kind_K), dtype=np.int64)
    whole_K[problem.whole()] = problem.capacity_S
    improved = [
        descend(problem, descend(problem, start, squared=True), squared=False)
        for start in (whole_K, greedy(problem))
    ]
    return min([whole_K, *improved], key=problem.deviation)


def greedy(problem: Counts) -> IntArray:
    """Hands out the channels one by one, each to the subset that lowers the squares most.

    Args:
        problem: the columns and the goal.

    Returns:
        (K,), counts that use up every kind of channel.
    """
    counts_K = np.zeros(len(problem.kind_K), dtype=np.int64)
    left_E = problem.goal_E.copy()
    for kind, capacity in enumerate(problem.capacity_S):
        columns = _columns_of(problem, kind)
        for _ in range(capacity):
            best = columns.start + int(np.argmin(_change(problem, columns, left_E, squared=True)))
            counts_K[best] += 1
            left_E -= problem.entry_KE[best].astype(np.int64)
    return counts_K


def descend(problem: Counts, counts_K: IntArray, *, squared: bool) -> IntArray:
    """Moves single channels to other subsets of their kind while that lowers the deviation.

    Args:
        problem: the columns and the goal.
        counts_K: (K,), feasible counts to start from; not modified.
        squared: descend by the sum of squares instead of absolute values.

    Returns:
        (K,), feasible counts that no move of a single channel improves. Every move lowers a whole
        number that cannot go below 0, so this ends.
    """
    counts_K = counts_K.copy()
    left_E = problem.left(counts_K)
    improved = True
    while improved:
        improved = False
        for source in np.flatnonzero(counts_K):
            columns = _columns_of(problem, int(problem.kind_K[source]))
            while counts_K[source] > 0:
                without_E = left_E + problem.entry_KE[source].astype(np.int64)
                change = _change(problem, columns, without_E, squared)
                target = columns.start + int(np.argmin(change))
                if change[target - columns.start] >= change[source - columns.start]:
                    break
                counts_K[source] -= 1
                counts_K[target] += 1
                left_E = without_E - problem.entry_KE[target].astype(np.int64)
                improved = True
    return counts_K


def _columns_of(problem: Counts, kind: int) -> slice:
    start, stop = np.searchsorted(problem.kind_K, [kind, kind + 1])
    return slice(int(start), int(stop))


def _change(
    problem: Counts, columns: slice, left_E: IntArray, squared: bool
) -> NDArray[np.float32]:
    """By how much one more channel in each of the columns raises the deviation (may be < 0)."""
    unit_E = 1 - 2 * left_E if squared else np.where(left_E >= 1, -1, 1)
    step_E = (problem.weight_E * unit_E).astype(np.float32)
    return np.asarray(problem.entry_KE[columns] @ step_E, dtype=np.float32)
