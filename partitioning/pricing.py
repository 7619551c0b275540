r"""Pricing: the subsets of tasks that the prices of the linear programme make most worth having.

With a price :math:`\pi_{ij}` on every entry of M^T M, a channel with subset z earns
:math:`z^\top \Pi z`, so the best subset is a Boolean quadratic problem. Up to 20 tasks all of them
are valued at once by doubling: the values of the subsets with task t are those without it, plus
what t earns beside each. Beyond, subsets climb by single tasks, and the best is made sure of only
when that finds nothing new.

Legend of shapes: T tasks, S kinds of channel, K columns, N starts of a climb.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partitioning.problem import Columns, MaskProblem
from partitioning.programmes import best_subset
from partitioning.sharing import BoolArray, FloatArray

# All 2^20 values take 8 MiB and 5 ms. Kinds of channel with more tasks are climbed, and the best is
# made sure of by trying four more tasks in and out, in 16 times as long; beyond, by HiGHS.
MAX_DOUBLED = 20
MAX_BRANCHED = 24


@dataclass(frozen=True, kw_only=True, eq=False)
class Priced:
    """Columns worth having.

    Attributes:
        columns: K columns, in order of kind, each kind's by descending value; the best of every
            kind among them where its limit is known.
        value_K: (K,), what a channel of each earns.
        limit_S: (S,), what no channel of each kind can earn more than; infinite if not known.
    """

    columns: Columns
    value_K: FloatArray
    limit_S: FloatArray


def price(price_TT: FloatArray, problem: MaskProblem, count: int, starts: Columns) -> Priced:
    """Finds the subsets that earn most.

    Args:
        price_TT: (T, T) symmetric, what a channel earns by each entry of M^T M that it adds to.
        problem: the kinds of channel.
        count: how many columns to return per kind, at most; >= 1.
        starts: columns to climb from, where a kind has more than 20 tasks.

    Returns:
        The best subsets of each kind of at most 20 tasks, and good ones of the others.
    """

    def best(kind: int, members: NDArray[np.intp]) -> tuple[BoolArray, FloatArray, float]:
        start_NM = starts.subset_KT[starts.kind_K == kind][:, members]
        subset_NM, value_N = best_subsets(price_TT[np.ix_(members, members)], count, start_NM)
        return subset_NM, value_N, value_N[0] if len(members) <= MAX_DOUBLED else np.inf

    return _collect(problem, best)


def best_subsets(
    price_TT: FloatArray, count: int, start_NT: BoolArray
) -> tuple[BoolArray, FloatArray]:
    """The `count` subsets of tasks (N, T) that earn most, and what they earn (N,), descending.

    Beyond 20 tasks they are the best that climbs from `start_NT` and from single tasks reach.
    """
    tasks = len(price_TT)
    if tasks <= MAX_DOUBLED:
        value_N = subset_values(price_TT)
        codes = smallest(-value_N, count)
        return unpack(codes, tasks), value_N[codes]
    subset_NT, value_N = _climb(price_TT, start_NT)
    best = smallest(-value_N, count)
    return subset_NT[best], value_N[best]


def price_surely(
    price_TT: FloatArray, problem: MaskProblem, priced: Priced, deadline: float, threads: int
) -> Priced:
    """Finds the best subset of each kind, and what none can earn more than.

    Args:
        price_TT: (T, T) symmetric, as above.
        problem: the kinds of channel.
        priced: what `price` found. Kinds that there is no time for keep it, and their limit stays
            unknown.
        deadline: when to stop, on the clock of `time.perf_counter`.
        threads: threads of HiGHS.
    """

    def best(kind: int, members: NDArray[np.intp]) -> tuple[BoolArray, FloatArray, float]:
        own_TT = price_TT[np.ix_(members, members)]
        left = deadline - time.perf_counter()
        if left <= 0 or np.isfinite(priced.limit_S[kind]):
            own_K = priced.columns.kind_K == kind
            subset_KM = priced.columns.subset_KT[own_K][:, members]
            return subset_KM, priced.value_K[own_K], float(priced.limit_S[kind])
        if len(members) <= MAX_BRANCHED:
            subset_M, value = _branch(own_TT)
            return subset_M[None], np.array([value]), value
        subset_M, limit = best_subset(own_TT, left, threads)
        return subset_M[None], np.array([subset_M @ own_TT @ subset_M]), limit

    return _collect(problem, best)


def _branch(price_TT: FloatArray) -> tuple[BoolArray, float]:
    """The best subset (T,) and its value, trying the tasks beyond 20 in and out."""
    tasks = len(price_TT)
    if tasks <= MAX_DOUBLED:
        value_N = subset_values(price_TT)
        code = np.argmax(value_N)
        return unpack(np.array([code]), tasks)[0], float(value_N[code])
    others_TT = price_TT[:-1, :-1]
    without_T, value_without = _branch(others_TT)
    with_T, value_with = _branch(others_TT + np.diag(2 * price_TT[:-1, -1]))
    value_with += float(price_TT[-1, -1])
    if value_with > value_without:
        return np.append(with_T, True), value_with
    return np.append(without_T, False), value_without


def _collect(
    problem: MaskProblem,
    best: Callable[[int, NDArray[np.intp]], tuple[BoolArray, FloatArray, float]],
) -> Priced:
    """Asks for subsets (N, members), values (N,) and a limit of each kind; puts them together."""
    subsets, values, kinds, limits = [], [], [], []
    for kind, allowed_T in enumerate(problem.kinds_ST):
        members = np.flatnonzero(allowed_T)
        subset_NM, value_N, limit = best(kind, members)
        subset_NT = np.zeros((len(subset_NM), len(allowed_T)), dtype=np.bool_)
        subset_NT[:, members] = subset_NM
        subsets.append(subset_NT)
        values.append(value_N)
        kinds.append(np.full(len(subset_NM), kind))
        limits.append(limit)
    return Priced(
        columns=Columns(subset_KT=np.concatenate(subsets), kind_K=np.concatenate(kinds)),
        value_K=np.concatenate(values),
        limit_S=np.array(limits),
    )


def subset_values(price_TT: FloatArray) -> FloatArray:
    """What every subset of tasks earns, by doubling.

    Args:
        price_TT: (T, T) symmetric.

    Returns:
        (2^T,): z^T Pi z, where bit t of the position says whether z has task t.

    Example:
        >>> subset_values(np.array([[1.0, 5.0], [5.0, 2.0]])).tolist()
        [0.0, 1.0, 2.0, 13.0]
    """
    value = np.zeros(1)
    # For each task still to come, what it would earn beside every subset so far.
    beside = np.zeros((len(price_TT), 1))
    for task in range(len(price_TT)):
        value = np.concatenate([value, value + beside[0] + price_TT[task, task]])
        beside = beside[1:]
        beside = np.concatenate([beside, beside + 2 * price_TT[task + 1 :, task, None]], axis=1)
    return value


def smallest(key_N: FloatArray, count: int) -> NDArray[np.intp]:
    """Positions of the `count` smallest keys, ascending; ties in order of position.

    Example:
        >>> smallest(np.array([3.0, 1.0, 1.0, 2.0]), 2).tolist()
        [1, 2]
    """
    if count < len(key_N):
        limit = np.partition(key_N, count - 1)[count - 1]
        near = np.flatnonzero(key_N <= limit)
        return near[np.argsort(key_N[near], kind="stable")[:count]]
    return np.argsort(key_N, kind="stable")


def unpack(codes_N: NDArray[np.intp], tasks: int) -> BoolArray:
    """(N, T): the subsets at positions of `subset_values`."""
    return np.asarray((codes_N[:, None] >> np.arange(tasks)) & 1 == 1, dtype=np.bool_)


def _climb(price_TT: FloatArray, start_NT: BoolArray) -> tuple[BoolArray, FloatArray]:
    """Adds or removes the task that gains most, until none gains: different subsets, values."""
    tasks = len(price_TT)
    subset_NT = np.concatenate([start_NT, np.eye(tasks, dtype=np.bool_)])
    beside_TT = 2 * (price_TT - np.diag(np.diag(price_TT)))
    rows = np.arange(len(subset_NT))
    while True:
        sign_NT = np.where(subset_NT, -1.0, 1.0)
        gain_NT = sign_NT * (subset_NT @ beside_TT + np.diag(price_TT))
        best_N = np.argmax(gain_NT, axis=1)
        better_N = gain_NT[rows, best_N] > 1e-9
        if not better_N.any():
            break
        subset_NT[rows[better_N], best_N[better_N]] ^= True
    subset_NT = np.unique(subset_NT, axis=0)
    value_N = ((subset_NT @ price_TT) * subset_NT).sum(axis=1)
    return subset_NT, np.asarray(value_N, dtype=np.float64)
