"""The order in which channels with equal subsets are laid out: few runs of channels for each task.

A task begins a run of channels wherever it joins from one subset to the next. A tour from the empty
subset through all others and back joins and leaves every run once, so the number of runs is half
the length of the tour in Hamming distance: a travelling salesman's problem.

Legend of shapes: T tasks, N subsets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partitioning.sharing import BoolArray, IntArray


def order_subsets(subset_NT: BoolArray, before_T: BoolArray | None = None) -> NDArray[np.intp]:
    """Orders different subsets of tasks so that each task's channels form few runs.

    Starts from the nearest neighbour each time and improves the tour by reversing stretches of it
    (2-opt) and by moving stretches of up to three subsets (Or-opt), until neither shortens it.

    Args:
        subset_NT: (N, T), the subsets, no two alike.
        before_T: (T,), what lies before them; the empty subset without it.

    Returns:
        (N,), positions in `subset_NT`, in order; the empty subset comes last, and with `before_T` a
        subset like that first. It depends on the subsets alone, not on the order in which they are
        given.

    Example:
        >>> order_subsets(np.array([[1, 0], [0, 0], [0, 1], [1, 1]], dtype=bool)).tolist()
        [0, 3, 2, 1]
    """
    by_task = np.lexsort([*~subset_NT.T[::-1]])  # subsets with earlier tasks first
    start_T = np.zeros(subset_NT.shape[1], dtype=np.bool_) if before_T is None else before_T
    # The tour begins and ends at what lies before; a subset like it comes first or last.
    alike_N = (subset_NT[by_task] == start_T).all(axis=1)
    others, alike = by_task[~alike_N], by_task[alike_N]
    stops_NT = np.concatenate([start_T[None], subset_NT[others]]).astype(np.int64)
    distance_NN = np.abs(stops_NT[:, None] - stops_NT[None]).sum(axis=2)
    tour = _nearest_neighbours(distance_NN)
    while True:
        shorter = _reverse(tour, distance_NN)
        if shorter is None:
            shorter = _move(tour, distance_NN)
        if shorter is None:
            break
        tour = shorter
    found = others[tour[1:] - 1]
    if before_T is None:
        return np.concatenate([found, alike])
    # Nothing has to come after the last: either way round may have fewer runs.
    ways = [np.concatenate([alike, found]), np.concatenate([alike, found[::-1]])]
    return min(ways, key=lambda way: count_runs(np.vstack([start_T, subset_NT[way]]).T))


def count_runs(masks_TC: BoolArray) -> int:
    """Number of runs of channels, over all tasks.

    Example:
        >>> count_runs(np.array([[1, 1, 0, 1], [0, 0, 1, 1]], dtype=bool))
        3
    """
    return int((np.diff(masks_TC.astype(np.int8), axis=1, prepend=0) == 1).sum())


def _nearest_neighbours(distance_NN: IntArray) -> NDArray[np.intp]:
    """A tour from stop 0 that always goes on to the nearest stop left."""
    tour = np.zeros(len(distance_NN), dtype=np.intp)
    left = distance_NN.astype(np.float64)
    left[:, 0] = np.inf
    for stop in range(1, len(tour)):
        tour[stop] = np.argmin(left[tour[stop - 1]])
        left[:, tour[stop]] = np.inf
    return tour


def _reverse(tour: NDArray[np.intp], distance_NN: IntArray) -> NDArray[np.intp] | None:
    """The tour with the stretch reversed that shortens it most; None if none does."""
    after = np.roll(tour, -1)
    step_N = distance_NN[tour, after]
    # Leaving at i for j and at i + 1 for j + 1 instead: what lies between is run backwards.
    change_NN = distance_NN[np.ix_(tour, tour)] + distance_NN[np.ix_(after, after)]
    change_NN = np.triu(change_NN - step_N[:, None] - step_N, k=1)
    first, last = np.unravel_index(np.argmin(change_NN), change_NN.shape)
    if change_NN[first, last] >= 0:
        return None
    return np.concatenate([tour[: first + 1], tour[first + 1 : last + 1][::-1], tour[last + 1 :]])


def _move(tour: NDArray[np.intp], distance_NN: IntArray) -> NDArray[np.intp] | None:
    """The tour with a stretch of up to three stops put elsewhere; None if none shortens it."""
    for length in (1, 2, 3):
        for start in range(1, len(tour) - length + 1):
            stretch = tour[start : start + length]
            rest = np.concatenate([tour[:start], tour[start + length :]])
            after = np.roll(rest, -1)
            saved = (
                distance_NN[rest[start - 1], stretch[0]]
                + distance_NN[stretch[-1], after[start - 1]]
                - distance_NN[rest[start - 1], after[start - 1]]
            )
            gap_N = distance_NN[rest, after]
            for way in (stretch, stretch[::-1]):
                added_N = distance_NN[rest, way[0]] + distance_NN[way[-1], after] - gap_N
                place = int(np.argmin(added_N))
                if added_N[place] < saved:
                    return np.concatenate([rest[: place + 1], way, rest[place + 1 :]])
    return None
