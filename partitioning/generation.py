r"""Column generation: the linear programme over all subsets of the tasks, of which few are needed.

With prices :math:`\pi` on the entries of M^T M, :math:`|\pi_{ij}| \le w_{ij}`, no masks have a
smaller weighted deviation from the goal r than (Lagrange)

.. math::
    L(\pi) = \sum_{i \le j} \pi_{ij} r_{ij} - \sum_s n_s \max_{U \subseteq S_s} u^\top \Pi u,

where :math:`n_s` channels may belong to the tasks :math:`S_s`. Its largest value is the optimum of
the linear programme, and masks that use a column whose `u^T Pi u` lies q below the maximum of its
kind deviate by at least L + q: the column's reduced cost. So, with masks that deviate by U at hand,
columns with a reduced cost above U - 1 - L cannot be part of better ones.

Legend of shapes: T tasks, S kinds of channel, K columns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from partitioning.pricing import Priced, price, price_surely, smallest
from partitioning.problem import Columns, MaskProblem
from partitioning.programmes import Relaxation, Relaxed
from partitioning.sharing import FloatArray, IntArray

# New columns per round, over all kinds: more make rounds fewer and each linear programme larger.
NEW_COLUMNS = 200

# What HiGHS leaves of a reduced cost that should be 0.
EPSILON = 1e-7

# What double precision may add to a bound, relative to the sums that it is the difference of, and
# at least, since HiGHS's prices are as good as its tolerances.
ROUNDING = 1e-12
MARGIN = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated:
    """What column generation found.

    Attributes:
        relaxation: the linear programme, with the columns that came in.
        relaxed: its optimum over them; None where time ran out before the first.
        complete: whether no column is missing, so that the optimum is that over all of them.
        bound: no masks have a smaller weighted deviation, whole or not; -inf if nothing is known.
        price_TT: (T, T), the prices that prove the bound.
        limit_S: (S,), what a channel of each kind can earn at these prices, at most.
    """

    relaxation: Relaxation
    relaxed: Relaxed | None
    complete: bool
    bound: float
    price_TT: FloatArray
    limit_S: FloatArray


def generate(problem: MaskProblem, threads: int, deadline: float) -> Generated:
    """Adds columns to the linear programme until none is missing.

    Args:
        problem: what is wanted.
        threads: threads of HiGHS.
        deadline: when to stop, on the clock of `time.perf_counter`. What is known by then is true.
    """
    relaxation = Relaxation(problem, threads)
    relaxation.add(_first_columns(problem))
    bound, price_TT = -np.inf, np.zeros(problem.goal_TT.shape)
    limit_S = np.zeros(len(problem.capacity_S))
    relaxed, complete = None, False
    per_kind = max(1, NEW_COLUMNS // len(problem.capacity_S))
    while (left := deadline - time.perf_counter()) > 0:
        solved = relaxation.solve(left)
        if solved is None:
            break
        relaxed = solved
        priced = price(relaxed.price_TT, problem, per_kind, relaxation.columns)
        added = _add_worthy(relaxation, priced, relaxed)
        if not added and np.isinf(priced.limit_S).any():
            until = (time.perf_counter() + deadline) / 2
            priced = price_surely(relaxed.price_TT, problem, priced, until, threads)
            added = _add_worthy(relaxation, priced, relaxed)
        proved = lagrangian_bound(problem, relaxed.price_TT, priced.limit_S)
        if proved > bound or np.isinf(bound):
            bound, price_TT, limit_S = proved, relaxed.price_TT, priced.limit_S
        if not added:
            complete = True
            break
    return Generated(
        relaxation=relaxation,
        relaxed=relaxed,
        complete=complete and bool(np.isfinite(bound)),
        bound=bound,
        price_TT=price_TT,
        limit_S=limit_S,
    )


def lagrangian_bound(problem: MaskProblem, price_TT: FloatArray, limit_S: FloatArray) -> float:
    """L of the module's docstring, less what rounding may have added to it.

    Args:
        problem: what is wanted.
        price_TT: (T, T) symmetric, no entry beyond the weights.
        limit_S: (S,), what no channel of each kind can earn more than.
    """
    earned = price_TT * problem.goal_TT
    spent_S = problem.capacity_S * limit_S
    magnitude = np.abs(earned).sum() + np.abs(spent_S).sum()
    return float(earned.sum() - spent_S.sum() - ROUNDING * magnitude - MARGIN)


def cheapest(
    problem: MaskProblem, generated: Generated, count: int
) -> tuple[Columns, FloatArray, float]:
    """The columns with the smallest reduced costs.

    Args:
        problem: what is wanted.
        generated: with the prices to reckon by.
        count: how many columns, at most.

    Returns:
        The columns, their reduced costs at the prices that prove the bound, and what no other
        column's is below: infinite where there are none, 0 where they are too many to be looked at.
        With more than 20 tasks reduced costs are reckoned from the best column that was found.
    """
    priced = price(generated.price_TT, problem, count + 1, generated.relaxation.columns)
    _, first = np.unique(priced.columns.kind_K, return_index=True)  # the best of each kind
    best_S = np.minimum(generated.limit_S, priced.value_K[first])
    cost_K = best_S[priced.columns.kind_K] - priced.value_K
    order = smallest(cost_K, count + 1)
    others = cost_K[order[count]] if len(order) > count else np.inf
    if np.isinf(priced.limit_S).any():
        others = 0.0
    return priced.columns.pick(order[:count]), cost_K[order[:count]], float(others)


def dive(problem: MaskProblem, generated: Generated, deadline: float) -> tuple[Columns, IntArray]:
    """Rounds the optimum of the linear programme, a column at a time, solving again in between.

    What is whole stays; of the rest, the column with the largest fraction is rounded up.

    Args:
        problem: what is wanted.
        generated: with the linear programme; its columns' bounds are changed.
        deadline: when to hand out what is left by the largest fractions, without solving again.

    Returns:
        The columns, and counts (K,) that use up every kind of channel.
    """
    relaxation, relaxed = generated.relaxation, generated.relaxed
    if relaxed is None:
        return problem.whole(), problem.capacity_S.astype(np.int64)
    columns = relaxation.columns
    count_K, lower_K = np.zeros(len(columns)), np.zeros(len(columns), dtype=np.int64)
    while True:
        count_K[: len(relaxed.count_K)] = relaxed.count_K  # time may have ended on newer columns
        floor_K = np.maximum(np.floor(count_K + 1e-6).astype(np.int64), lower_K)
        fraction_K = count_K - floor_K
        if (fraction_K < 1e-6).all():
            return columns, floor_K
        floor_K[np.argmax(fraction_K)] += 1
        changed = np.flatnonzero(floor_K > lower_K)
        relaxation.at_least(changed, floor_K[changed])
        lower_K = floor_K
        solved = relaxation.solve(deadline - time.perf_counter())
        if solved is None:
            return columns, _hand_out(problem, columns, lower_K, fraction_K)
        relaxed = solved


def _first_columns(problem: MaskProblem) -> Columns:
    """No task and all tasks of every kind, and its single tasks: some of it can be realised."""
    whole = problem.whole()
    empty = Columns(subset_KT=np.zeros_like(whole.subset_KT), kind_K=whole.kind_K)
    kinds, tasks = np.nonzero(problem.kinds_ST)
    single = Columns(subset_KT=np.eye(len(problem.goal_TT), dtype=np.bool_)[tasks], kind_K=kinds)
    return empty + whole + single


def _add_worthy(relaxation: Relaxation, priced: Priced, relaxed: Relaxed) -> int:
    worthy_K = priced.value_K > relaxed.price_S[priced.columns.kind_K] + EPSILON
    return relaxation.add(priced.columns.pick(worthy_K))


def _hand_out(
    problem: MaskProblem, columns: Columns, lower_K: IntArray, fraction_K: FloatArray
) -> IntArray:
    """Counts that use up every kind: the channels left go to the largest fractions in turn."""
    count_K = lower_K.copy()
    for kind, capacity in enumerate(problem.capacity_S):
        own = np.flatnonzero(columns.kind_K == kind)
        own = own[np.argsort(-fraction_K[own], kind="stable")]
        left = int(capacity) - int(count_K[own].sum())
        count_K[own] += left // len(own)
        count_K[own[: left % len(own)]] += 1
    return count_K
