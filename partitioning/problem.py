"""Masks as counts of task subsets: what is wanted of them, and what they cost.

Channels are interchangeable, so masks are decided by how many channels belong to each subset of the
tasks. Given forward masks, a channel's backward subset must lie inside its forward subset; the
forward problem is the case in which every channel may belong to all tasks. Both are one `Problem`.

Legend of shapes: T tasks, C channels, S kinds of channel, K columns (a kind, and a subset of the
tasks inside it), E = T (T + 1) / 2 entries of P in the order of `sharing.matrix_to_vector`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from partitioning.sharing import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Subsets of the tasks that channels can be given to.

    Attributes:
        subset_KT: (K, T), the tasks of each column.
        kind_K: (K,), the kind of channel that the column takes its channels from.
    """

    subset_KT: BoolArray
    kind_K: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.kind_K)

    def __add__(self, other: Columns) -> Columns:
        return Columns(
            subset_KT=np.concatenate([self.subset_KT, other.subset_KT]),
            kind_K=np.concatenate([self.kind_K, other.kind_K]),
        )

    def pick(self, positions: NDArray[np.intp] | BoolArray) -> Columns:
        """The columns at the given positions."""
        return Columns(subset_KT=self.subset_KT[positions], kind_K=self.kind_K[positions])

    def identities(self) -> list[bytes]:
        """One hashable value per column, equal where columns are."""
        packed_KB = np.packbits(self.subset_KT, axis=1)
        kinds_KB = self.kind_K.astype("<u4").view(np.uint8).reshape(len(self), 4)
        return [row.tobytes() for row in np.concatenate([kinds_KB, packed_KB], axis=1)]

    def entries(self) -> FloatArray:
        """(K, E), 0 or 1: what one channel of each column adds to M^T M."""
        rows, columns = np.triu_indices(self.subset_KT.shape[1], k=1)
        pairs = self.subset_KT[:, rows] & self.subset_KT[:, columns]
        return np.concatenate([self.subset_KT, pairs], axis=1).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskProblem:
    """How many channels of each kind there are, and what P should come out.

    Attributes:
        kinds_ST: (S, T), the tasks that channels of each kind may belong to.
        capacity_S: (S,), how many channels there are of each kind. All must be given out.
        goal_TT: (T, T), wanted M^T M in channels; symmetric.
        diagonal_weight: what one channel of deviation in a task's use costs; whole, >= 1.
        pair_weight: the same for P_ij, and again for P_ji; whole, >= 1.
    """

    kinds_ST: BoolArray
    capacity_S: NDArray[np.int64] | FloatArray
    goal_TT: NDArray[np.int64] | FloatArray
    diagonal_weight: int = 1
    pair_weight: int = 1

    @cached_property
    def weights(self) -> IntArray:
        """(T, T), what a unit of deviation costs in each entry."""
        weight_TT = np.full(self.goal_TT.shape, self.pair_weight)
        np.fill_diagonal(weight_TT, self.diagonal_weight)
        return weight_TT

    @cached_property
    def entry_weights(self) -> FloatArray:
        """(E,), the same by entry: pairs stand for two."""
        tasks = len(self.goal_TT)
        pairs = tasks * (tasks - 1) // 2
        weights = [self.diagonal_weight, 2 * self.pair_weight]
        return np.repeat(weights, [tasks, pairs]).astype(np.float64)

    @cached_property
    def entry_goals(self) -> FloatArray:
        """(E,), the goal by entry."""
        upper = self.goal_TT[np.triu_indices(len(self.goal_TT), k=1)]
        return np.concatenate([np.diag(self.goal_TT), upper]).astype(np.float64)

    def deviation(self, columns: Columns, counts_K: IntArray) -> int:
        """Total weighted absolute deviation from the goal, in channels."""
        return int((self.weights * np.abs(self.goal_TT - gram(columns, counts_K))).sum())

    def whole(self) -> Columns:
        """One column per kind: all the tasks that its channels may belong to."""
        return Columns(subset_KT=self.kinds_ST, kind_K=np.arange(len(self.kinds_ST)))

    def floor(self) -> int:
        """A deviation that no counts can go below: entries whose goal exceeds their maximum."""
        most_TT = gram(self.whole(), self.capacity_S.astype(np.int64))
        return int((self.weights * np.maximum(self.goal_TT - most_TT, 0)).sum())


def gram(columns: Columns, counts_K: IntArray) -> IntArray:
    """(T, T), M^T M of the masks in which each column is repeated as often as counted."""
    used = np.flatnonzero(counts_K)
    subset_NT = columns.subset_KT[used].astype(np.int64)
    return np.asarray((subset_NT.T * counts_K[used]) @ subset_NT, dtype=np.int64)


def merged(columns: Columns, counts_K: IntArray) -> tuple[Columns, IntArray]:
    """Equal columns made one, with their counts added; unused ones left out."""
    position: dict[bytes, int] = {}
    of_K = np.array([position.setdefault(key, len(position)) for key in columns.identities()])
    total_K = np.bincount(of_K, weights=counts_K).astype(np.int64)
    _, first = np.unique(of_K, return_index=True)
    return columns.pick(first[total_K > 0]), total_K[total_K > 0]
