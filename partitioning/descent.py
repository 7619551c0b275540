"""Local search over counts of subsets.

A descent takes, step by step, the move that lowers the deviation most: a channel gains or loses a
task (with others like it, as far as that is as good), or two channels trade one. Where no move is
left, `shake` takes a few channels out, puts each back with the subset that is best in its place,
and descends again. All is deterministic, given the time: ties go to the first, and the shaken
channels are drawn from a fixed seed.

Legend of shapes: T tasks, S kinds of channel, N different columns in use.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
from numpy.typing import NDArray

from partitioning.pricing import best_subsets
from partitioning.problem import Columns, MaskProblem, gram, merged
from partitioning.sharing import IntArray


def descend(
    problem: MaskProblem, columns: Columns, counts_K: IntArray, deadline: float
) -> tuple[Columns, IntArray]:
    """Improves counts until no single move does.

    Args:
        problem: what is wanted.
        columns: K columns.
        counts_K: (K,), counts that use up every kind of channel.
        deadline: when to look for no more trades, on the clock of `time.perf_counter`. Channels
            gain and lose tasks until that is of no use, which takes few steps.

    Returns:
        Columns in use and their counts, which use up every kind of channel, too, and deviate no
        more.
    """
    used = np.flatnonzero(counts_K)
    subset_NT, kind_N = columns.subset_KT[used].astype(np.int64), columns.kind_K[used]
    count_N = counts_K[used]
    while True:
        given_TT = gram(Columns(subset_KT=subset_NT == 1, kind_K=kind_N), count_N)
        left_TT = problem.goal_TT.astype(np.int64) - given_TT
        # By how much the deviation grows where an entry becomes one larger, or one smaller.
        more_TT = problem.weights * np.where(left_TT >= 1, -1, 1)
        less_TT = problem.weights * np.where(left_TT <= -1, -1, 1)
        allowed_NT = problem.kinds_ST[kind_N]
        moves = _best_flip(subset_NT, allowed_NT, more_TT, less_TT)
        channels = 1
        if moves:
            channels = _as_good(subset_NT, count_N, left_TT, *moves[0])
        elif time.perf_counter() < deadline:
            moves = _best_trade(subset_NT, allowed_NT, more_TT, less_TT)
        if not moves:
            return Columns(subset_KT=subset_NT == 1, kind_K=kind_N), count_N
        for row, task in moves:
            subset_NT, kind_N, count_N = _flip(subset_NT, kind_N, count_N, row, task, channels)
        in_use = count_N > 0
        subset_NT, kind_N, count_N = subset_NT[in_use], kind_N[in_use], count_N[in_use]


def shake(
    problem: MaskProblem,
    columns: Columns,
    counts_K: IntArray,
    *,
    rounds: int | None,
    enough: float,
    deadline: float,
) -> tuple[Columns, IntArray]:
    """Looks for better counts in the surroundings of counts that no single move improves.

    Args:
        problem: what is wanted.
        columns: K columns.
        counts_K: (K,), counts that use up every kind of channel.
        rounds: how many times to take channels out; until the deadline without it.
        enough: a deviation at which to stop.
        deadline: when to stop, on the clock of `time.perf_counter`.

    Returns:
        Columns in use and their counts, which deviate no more.
    """
    rng = np.random.default_rng(0)
    best = columns, counts_K
    deviation = problem.deviation(*best)
    for _ in itertools.count() if rounds is None else range(rounds):
        if deviation <= enough or time.perf_counter() > deadline:
            break
        # As good is good enough to go on from: the surroundings are others.
        shaken = descend(problem, *_replaced(problem, *best, rng), deadline)
        if (shaken_deviation := problem.deviation(*shaken)) <= deviation:
            best, deviation = shaken, shaken_deviation
    return best


def _replaced(
    problem: MaskProblem, columns: Columns, counts_K: IntArray, rng: np.random.Generator
) -> tuple[Columns, IntArray]:
    """Two to five channels (fewer where there are fewer) get the subset that is best for each."""
    channels = np.repeat(np.arange(len(columns)), counts_K)
    taken = rng.choice(channels, min(int(rng.integers(2, 6)), len(channels)), replace=False)
    counts_K = counts_K - np.bincount(taken, minlength=len(columns))
    for kind in columns.kind_K[taken]:
        left_TT = problem.goal_TT - gram(columns, counts_K)
        saved_TT = (problem.weights * np.where(left_TT >= 1, 1, -1)).astype(np.float64)
        members = np.flatnonzero(problem.kinds_ST[kind])
        start_NM = columns.subset_KT[columns.kind_K == kind][:, members]
        subset_NM, _ = best_subsets(saved_TT[np.ix_(members, members)], 1, start_NM)
        subset_T = np.zeros((1, len(left_TT)), dtype=np.bool_)
        subset_T[0, members] = subset_NM[0]
        columns = columns + Columns(subset_KT=subset_T, kind_K=np.array([kind]))
        counts_K = np.append(counts_K, 1)
    return merged(columns, counts_K)


def _best_flip(
    subset_NT: IntArray, allowed_NT: NDArray[np.bool_], more_TT: IntArray, less_TT: IntArray
) -> list[tuple[int, int]] | None:
    """The channel (its column) and the task that it should gain or lose; None if none should."""
    gained_NT = np.diag(more_TT) + 2 * subset_NT @ _off_diagonal(more_TT)
    lost_NT = np.diag(less_TT) + 2 * subset_NT @ _off_diagonal(less_TT)
    change_NT = np.where(subset_NT == 1, lost_NT, np.where(allowed_NT, gained_NT, 1))
    best = int(np.argmin(change_NT))
    if change_NT.flat[best] >= 0:
        return None
    return [divmod(best, subset_NT.shape[1])]


def _as_good(subset_NT: IntArray, count_N: IntArray, left_TT: IntArray, row: int, task: int) -> int:
    """How many channels of a column can gain or lose the task, each for the same improvement."""
    touched_T = subset_NT[row] == 1
    touched_T[task] = True
    sign = -1 if subset_NT[row, task] == 1 else 1
    still_T = sign * left_TT[task, touched_T]
    # Entries on the wrong side get worse by as much with every channel; the others turn at 0.
    return int(min(count_N[row], still_T[still_T > 0].min()))


def _best_trade(
    subset_NT: IntArray, allowed_NT: NDArray[np.bool_], more_TT: IntArray, less_TT: IntArray
) -> list[tuple[int, int]] | None:
    """Two channels, one of which should hand a task to the other; None if none should."""
    best, moves = 0, None
    for task in range(subset_NT.shape[1]):
        givers = np.flatnonzero(subset_NT[:, task] == 1)
        takers = np.flatnonzero((subset_NT[:, task] == 0) & allowed_NT[:, task])
        if not len(givers) or not len(takers):
            continue
        less_T, more_T = _off_diagonal(less_TT)[task], _off_diagonal(more_TT)[task]
        given_NT, taken_NT = subset_NT[givers], subset_NT[takers]
        # Overlaps with tasks that both channels have stay the same.
        both_NN = (given_NT * (less_T + more_T)) @ taken_NT.T
        change_NN = 2 * ((given_NT @ less_T)[:, None] + taken_NT @ more_T - both_NN)
        least = int(np.argmin(change_NN))
        if change_NN.flat[least] < best:
            best = int(change_NN.flat[least])
            giver, taker = divmod(least, len(takers))
            moves = [(int(givers[giver]), task), (int(takers[taker]), task)]
    return moves


def _flip(
    subset_NT: IntArray,
    kind_N: NDArray[np.intp],
    count_N: IntArray,
    row: int,
    task: int,
    channels: int,
) -> tuple[IntArray, NDArray[np.intp], IntArray]:
    """Some channels of a column gain or lose a task; rows keep their places."""
    flipped_T = subset_NT[row].copy()
    flipped_T[task] ^= 1
    same = np.flatnonzero((kind_N == kind_N[row]) & (subset_NT == flipped_T).all(axis=1))
    count_N = count_N.copy()
    count_N[row] -= channels
    if len(same):
        count_N[same[0]] += channels
        return subset_NT, kind_N, count_N
    return (
        np.concatenate([subset_NT, flipped_T[None]]),
        np.append(kind_N, kind_N[row]),
        np.append(count_N, channels),
    )


def _off_diagonal(matrix_TT: IntArray) -> IntArray:
    return matrix_TT * (1 - np.eye(len(matrix_TT), dtype=np.int64))
