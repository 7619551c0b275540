"""Masks as counts of task subsets: the columns of the integer programme, and what they cost.

Channels are interchangeable, so masks are decided by how many channels belong to each subset of the
tasks. Given forward masks, a channel's backward subset must lie inside its forward subset; the
forward problem is the case in which every channel may belong to all tasks. Both are one `Counts`.

Legend of shapes: T tasks, C channels, S kinds of channel, K columns (kind, subset inside it),
E = T (T + 1) / 2 entries of P in the order of `sharing.matrix_to_vector`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partitioning.sharing import BoolArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """How many channels to give to each column, so that P comes out near the goal.

    Attributes:
        subset_KT: (K, T), the tasks of each column.
        kind_K: (K,), the kind of channel that the column takes its channels from; ascending.
        capacity_S: (S,), how many channels there are of each kind. All must be given out.
        goal_E: (E,), wanted entries of M^T M in channels.
        weight_E: (E,), 1 on the diagonal and 2 off it: the paper sums over i and j.
        entry_KE: (K, E), 0 or 1: what one channel of a column adds to M^T M. Single precision is
            exact for whole numbers up to 2^24 and makes the products fast.
    """

    subset_KT: BoolArray
    kind_K: NDArray[np.intp]
    capacity_S: IntArray
    goal_E: IntArray
    weight_E: IntArray
    entry_KE: NDArray[np.float32]

    def deviation(self, counts_K: IntArray) -> int:
        """Total absolute deviation from the goal, in channels."""
        return int(self.weight_E @ np.abs(self.left(counts_K)))

    def left(self, counts_K: IntArray) -> IntArray:
        """(E,), the goal less what the counts give; negative where they give too much."""
        used = np.flatnonzero(counts_K)  # few columns are in use: products over all would be slow
        return self.goal_E - counts_K[used] @ self.entry_KE[used].astype(np.int64)

    def whole(self) -> NDArray[np.intp]:
        """(S,), for each kind the column whose subset is the whole kind: its last."""
        return np.searchsorted(self.kind_K, np.arange(len(self.capacity_S)), side="right") - 1

    def floor(self) -> int:
        """A deviation that no counts can go below: entries whose goal exceeds their maximum."""
        most_E = self.capacity_S @ self.entry_KE[self.whole()].astype(np.int64)
        return int(self.weight_E @ np.maximum(self.goal_E - most_E, 0))


def make_counts(kinds_ST: BoolArray, capacity_S: IntArray, goal_TT: IntArray) -> Counts:
    """Lists every subset of every kind of channel.

    Args:
        kinds_ST: (S, T), the tasks that channels of each kind may belong to.
        capacity_S: (S,), how many channels of each kind there are.
        goal_TT: (T, T), wanted M^T M in channels.

    Returns:
        The columns, by kind; within a kind the empty subset first and the whole kind last.
    """
    num_tasks = kinds_ST.shape[1]
    rows, columns = np.triu_indices(num_tasks, k=1)
    subset_KT = np.concatenate([_subsets(kind_T) for kind_T in kinds_ST])
    return Counts(
        subset_KT=subset_KT,
        kind_K=np.repeat(np.arange(len(kinds_ST)), 2 ** kinds_ST.sum(axis=1)),
        capacity_S=capacity_S,
        goal_E=np.concatenate([np.diag(goal_TT), goal_TT[rows, columns]]),
        weight_E=np.repeat([1, 2], [num_tasks, len(rows)]),
        entry_KE=np.concatenate(
            [subset_KT, subset_KT[:, rows] & subset_KT[:, columns]], axis=1
        ).astype(np.float32),
    )


def _subsets(kind_T: BoolArray) -> BoolArray:
    """(2^|kind|, T): all subsets of the tasks in `kind_T`, in binary order."""
    members = np.flatnonzero(kind_T)
    subset_NT = np.zeros((2 ** len(members), len(kind_T)), dtype=np.bool_)
    codes = np.arange(2 ** len(members))
    subset_NT[:, members] = (codes[:, None] >> np.arange(len(members))) & 1 == 1
    return subset_NT
