"""Linear and integer programmes, by HiGHS: the only file that talks to it and to PuLP.

The linear programme is kept between solves while columns come in, which PuLP has no way to do; the
integer programmes are stated in PuLP.

Legend of shapes: T tasks, S kinds of channel, K columns, E = T (T + 1) / 2 entries of P.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import pulp

from partitioning.problem import Columns, MaskProblem
from partitioning.sharing import BoolArray, FloatArray, IntArray

# How HiGHS may end with numbers that mean something.
_KNOWN = ("kOptimal", "kTimeLimit")


@dataclass(frozen=True, kw_only=True, eq=False)
class Relaxed:
    """An optimum of the linear programme.

    Attributes:
        objective: its weighted deviation.
        count_K: (K,), channels given to each column; fractions.
        price_TT: (T, T) symmetric, what a channel saves by each entry of M^T M that it adds to.
        price_S: (S,), what a channel of each kind saves in all, at least: the price of a column.
    """

    objective: float
    count_K: FloatArray
    price_TT: FloatArray
    price_S: FloatArray


class Relaxation:
    """The programme over counts without their being whole, to which columns can be added.

    Args:
        problem: what is wanted.
        threads: threads of HiGHS.
    """

    def __init__(self, problem: MaskProblem, threads: int) -> None:
        self._problem = problem
        self._weight_E = problem.entry_weights
        self._columns = problem.whole().pick(np.zeros(0, dtype=np.intp))
        self._known: set[bytes] = set()
        num_entries = len(self._weight_E)
        self._first = 2 * num_entries  # the columns come after two deviations per entry
        self._highs = highspy.Highs()
        for option, value in {
            "output_flag": False,
            "threads": threads,
            "primal_feasibility_tolerance": 1e-9,
            "dual_feasibility_tolerance": 1e-9,
        }.items():
            self._highs.setOptionValue(option, value)
        for right in [*problem.entry_goals, *problem.capacity_S]:
            self._highs.addRow(float(right), float(right), 0, [], [])
        self._highs.addCols(
            self._first,
            np.repeat(self._weight_E, 2),
            np.zeros(self._first),
            np.full(self._first, highspy.kHighsInf),
            self._first,
            np.arange(self._first, dtype=np.int32),
            np.repeat(np.arange(num_entries, dtype=np.int32), 2),
            np.tile([1.0, -1.0], num_entries),  # too little, too much
        )

    @property
    def columns(self) -> Columns:
        """All columns so far."""
        return self._columns

    def add(self, columns: Columns) -> int:
        """Adds the columns that are not there yet; how many they were."""
        keys = columns.identities()
        fresh = np.array([key not in self._known for key in keys], dtype=np.bool_)
        self._known.update(keys)
        columns = columns.pick(fresh)
        if not len(columns):
            return 0
        kind_KS = columns.kind_K[:, None] == np.arange(len(self._problem.capacity_S))
        given_KR = np.concatenate([columns.entries() != 0, kind_KS], axis=1)
        self._highs.addCols(
            len(columns),
            np.zeros(len(columns)),
            np.zeros(len(columns)),
            self._problem.capacity_S[columns.kind_K].astype(np.float64),
            int(given_KR.sum()),
            np.concatenate([[0], given_KR.sum(axis=1).cumsum()[:-1]]).astype(np.int32),
            np.nonzero(given_KR)[1].astype(np.int32),
            np.ones(int(given_KR.sum())),
        )
        self._columns = self._columns + columns
        return len(columns)

    def at_least(self, positions: IntArray, counts: IntArray) -> None:
        """From now on the columns at `positions` get at least `counts` channels."""
        self._highs.changeColsBounds(
            len(positions),
            (positions + self._first).astype(np.int32),
            counts.astype(np.float64),
            self._problem.capacity_S[self._columns.kind_K[positions]].astype(np.float64),
        )

    def solve(self, seconds: float) -> Relaxed | None:
        """The optimum over the columns so far; None if there is no time, or HiGHS gives up."""
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + max(seconds, 0.0))
        if _retried(self._highs.run, lambda: self._highs) != "kOptimal":
            return None
        solution = self._highs.getSolution()
        price_E, price_S = np.split(np.array(solution.row_dual), [len(self._weight_E)])
        # No price can exceed what a unit of deviation costs, but for rounding.
        price_E = np.clip(price_E, -self._weight_E, self._weight_E)
        return Relaxed(
            objective=float(self._highs.getObjectiveValue()),
            count_K=np.maximum(np.array(solution.col_value)[self._first :], 0.0),
            price_TT=_symmetric(price_E, len(self._problem.goal_TT)),
            price_S=-price_S,
        )


def whole_counts(
    problem: MaskProblem, columns: Columns, start_K: IntArray, seconds: float, threads: int
) -> tuple[IntArray, int]:
    """Solves the integer programme over the given columns.

    Args:
        problem: what is wanted.
        columns: the K columns that may be used.
        start_K: (K,), counts to beat.
        seconds: time limit, > 0. HiGHS looks at the clock now and then only.
        threads: threads of HiGHS.

    Returns:
        The best counts (K,) known, and a bound that no counts over these columns can go below.
    """
    prob = pulp.LpProblem("masks", pulp.LpMinimize)
    # Names sort as the columns do: PuLP hands the variables over by name.
    counts = [
        prob.add_variable(f"c{k:06d}", 0, int(problem.capacity_S[kind]), pulp.LpInteger)
        for k, kind in enumerate(columns.kind_K)
    ]
    objective = []
    for entry, (goal, given_K) in enumerate(
        zip(problem.entry_goals, columns.entries().T, strict=True)
    ):
        little, much = (prob.add_variable(f"d{entry:06d}{side}", 0) for side in "lm")
        objective += [(d, float(problem.entry_weights[entry])) for d in (little, much)]
        terms = [(counts[k], 1) for k in np.flatnonzero(given_K)]
        _add(prob, [*terms, (little, 1), (much, -1)], goal)
    for kind, capacity in enumerate(problem.capacity_S):
        _add(prob, [(counts[k], 1) for k in np.flatnonzero(columns.kind_K == kind)], capacity)
    prob.setObjective(pulp.LpAffineExpression(objective))
    # The objective is a whole number at every feasible point, so a gap below 1 proves optimality.
    # The default relative gap of 1e-4 would stop earlier where deviations are large.
    bound = _solve(prob, seconds, threads, gap=0.99)
    # The margin is what HiGHS's tolerances may have added.
    whole_bound = math.ceil(bound - 1e-6 - 1e-9 * bound) if math.isfinite(bound) else 0
    found_K = _values(prob, counts)
    if found_K is None:
        return start_K, whole_bound
    rounded_K = np.rint(found_K).astype(np.int64)
    best_K = min(start_K, rounded_K, key=lambda count_K: problem.deviation(columns, count_K))
    return best_K, whole_bound


def best_subset(price_TT: FloatArray, seconds: float, threads: int) -> tuple[BoolArray, float]:
    """Maximises z^T Pi z as a linearised integer programme.

    Args:
        price_TT: (T, T) symmetric.
        seconds: time limit, > 0.
        threads: threads of HiGHS.

    Returns:
        The best subset found (T,), and a bound that none can go above.
    """
    tasks = len(price_TT)
    prob = pulp.LpProblem("subset", pulp.LpMinimize)
    chosen = [prob.add_variable(f"z{t:03d}", 0, 1, pulp.LpInteger) for t in range(tasks)]
    objective = [(chosen[t], -float(price_TT[t, t])) for t in range(tasks)]
    for i, j in zip(*np.triu_indices(tasks, k=1), strict=True):
        both = prob.add_variable(f"y{i:03d}{j:03d}", 0, 1)
        objective.append((both, -2 * float(price_TT[i, j])))
        if price_TT[i, j] > 0:
            for t in (i, j):
                _add(prob, [(both, 1), (chosen[t], -1)], 0, pulp.LpConstraintLE)
        else:
            _add(prob, [(both, 1), (chosen[i], -1), (chosen[j], -1)], -1, pulp.LpConstraintGE)
    prob.setObjective(pulp.LpAffineExpression(objective))
    bound = _solve(prob, seconds, threads, gap=1e-6)
    found_T = _values(prob, chosen)
    subset_T = np.zeros(tasks, dtype=np.bool_) if found_T is None else np.rint(found_T) == 1
    return subset_T, -bound


def _solve(prob: Any, seconds: float, threads: int, gap: float) -> float:
    """Solves a programme of minimisation; what HiGHS proved that no solution can go below.

    -inf where it proved nothing.
    """
    highs = pulp.HiGHS(
        msg=False, timeLimit=max(seconds, 1e-3), threads=threads, gapRel=0, gapAbs=gap
    )
    if _retried(lambda: prob.solve(highs), lambda: prob.solverModel) not in _KNOWN:
        return -math.inf
    return float(prob.solverModel.getInfo().mip_dual_bound)


def _values(prob: Any, variables: list[Any]) -> FloatArray | None:
    """Values of the variables in the solution found, if there is one."""
    # At the time limit PuLP's `status` says optimal all the same; `sol_status` knows.
    if prob.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        return None
    return np.array([variable.value() for variable in variables])


def _add(prob: Any, terms: list[tuple[Any, int]], right: float, sense: int = 0) -> None:
    """Adds the constraint: the weighted sum of variables, against `right`; equal by default."""
    prob.addConstraint(pulp.LpConstraint(pulp.LpAffineExpression(terms), sense, rhs=float(right)))


def _retried(run: Callable[[], object], highs: Callable[[], Any]) -> str:
    """Runs HiGHS, which refuses to run with another number of threads than before; its status."""
    run()
    if highs().getModelStatus().name == "kNotset":
        highspy.Highs.resetGlobalScheduler(True)  # a process has one pool of threads
        run()
    return str(highs().getModelStatus().name)


def _symmetric(entry_E: FloatArray, tasks: int) -> FloatArray:
    """(T, T), with each pair's entry split between its two places."""
    matrix = np.zeros((tasks, tasks))
    matrix[np.triu_indices(tasks, k=1)] = entry_E[tasks:] / 2
    matrix += matrix.T
    np.fill_diagonal(matrix, entry_E[:tasks])
    return matrix
