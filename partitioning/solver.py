r"""Masks from P: integer programming over the counts of task subsets, by PuLP with HiGHS.

**The paper's programme** (Newell et al. 2019, A.1, eq. 5-10), over M in {0, 1}^{C x T} and
auxiliary t in {0, 1}:

.. math::
    \min \sum_i \phi_i + \sum_{i,j} \xi_{ij} \quad \text{s.t.} \quad
    & \sum_k M_{ki} \le \tilde P_{ii} + \phi_i, \quad
      \sum_k t_{ijk} \le \tilde P_{ij} + \xi_{ij}, \\
    & t_{ijk} \le \tfrac12 (M_{ki} + M_{kj}), \quad t_{ijk} \ge M_{ki} + M_{kj} - 1, \quad
      \phi, \xi \ge 0.

**The programme solved here**, over the number :math:`x_S` of channels that belong to exactly the
tasks of S, for each of the 2^T subsets S of the tasks, with the goal
:math:`r_{ij} = \mathrm{round}(C \tilde P_{ij})`:

.. math::
    \min_{x \in \mathbb{Z}_{\ge 0}^{2^T}} \; \sum_i d_{ii} + 2 \sum_{i<j} d_{ij}
    \quad \text{s.t.} \quad
    \Bigl| \sum_{S \ni i,j} x_S - r_{ij} \Bigr| \le d_{ij} \;\; (i \le j), \quad
    \sum_S x_S = C.

For backward masks, given :math:`n_S` channels with forward subset S, the counts are
:math:`y_{S,U}` for :math:`U \subseteq S`:

.. math::
    \min_{y \in \mathbb{Z}_{\ge 0}} \; \sum_i d_{ii} + 2 \sum_{i<j} d_{ij}
    \quad \text{s.t.} \quad
    \Bigl| \sum_S \sum_{U \ni i,j} y_{S,U} - r_{ij} \Bigr| \le d_{ij} \;\; (i \le j), \quad
    \sum_{U \subseteq S} y_{S,U} = n_S \;\; \forall S.

Differs from the paper: read literally, its constraints bound M from above only, so M = 0 is
optimal, and they compare counts of channels with fractions, without the factor C. What is meant is
the least total absolute deviation from C P, with each pair counted twice as the sum over i and j
does. Channels are interchangeable, so a programme over them has C! symmetric copies of every
solution and times out even for three tasks; counts have none, and their number does not depend on
C. The target is rounded to whole channels, which no count can beat by more than the rounding and
which is solved several times faster.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import highspy
import numpy as np
import pulp
from numpy.typing import NDArray

from partitioning.counts import Counts, make_counts
from partitioning.incumbent import incumbent
from partitioning.ordering import chain
from partitioning.sharing import (
    BoolArray,
    FloatArray,
    IntArray,
    SharingMatrixError,
    check_sharing_matrix,
    round_to_channels,
)

# 2^12 subsets are solved in seconds, 2^13 are not.
MAX_TASKS = 12

# Room for any forward masks of nine tasks (3^9 = 19,683). HiGHS runs far past its time limit on
# programmes twice as large: 40 seconds instead of 1.
MAX_COLUMNS = 20_000


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How long and with how many threads to look for masks.

    Attributes:
        time_limit: seconds per solve, > 0. HiGHS looks at the clock now and then only, so large
            programmes may go over it. A solve that ends by the clock need not end at the same
            masks next time; one that is proven optimal does.
        threads: threads of HiGHS, >= 1.
    """

    time_limit: float = 10.0
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuses limits that leave nothing to solve with."""
        if not (math.isfinite(self.time_limit) and self.time_limit > 0):
            raise ValueError(
                f"solver.time_limit must be a number of seconds > 0, got {self.time_limit}"
            )
        if self.threads < 1:
            raise ValueError(f"solver.threads must be at least 1, got {self.threads}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Masks for one channel group, and how good they are known to be.

    Attributes:
        masks_TC: (T, C) boolean; tasks' channels lie in few runs, unused channels last.
        deviation: total absolute difference between M^T M and the rounded target, in channels; the
            diagonal counts once and every pair twice.
        bound: no masks have a smaller deviation than this; in the same unit.
        proven: whether these masks are optimal, that is `deviation == bound`.
        seconds: wall time of the solve.
    """

    masks_TC: BoolArray
    deviation: float
    bound: float
    proven: bool
    seconds: float

    @property
    def gap(self) -> float:
        """How far the masks may be from the best, relative to the bound; 0 when proven."""
        return (self.deviation - self.bound) / max(1.0, self.bound)


def solve(target: FloatArray, channels: int, config: SolverConfig | None = None) -> Solution:
    """Finds masks whose M^T M is as near as possible to `channels` times `target`.

    Which of several optimal masks comes back is arbitrary but always the same.

    Args:
        target: (T, T), the target P, T <= 12. It need not be realisable.
        channels: C >= 1.
        config: limits; the defaults without it.

    Returns:
        The best masks found. When time runs out these may be a heuristic's, and `proven` is false.

    Raises:
        SharingMatrixError: `target` is no sharing matrix.
        ValueError: no channels, or more than 12 tasks.

    Example:
        >>> solution = solve(np.array([[0.75, 0.25], [0.25, 0.5]]), 4)
        >>> solution.masks_TC.astype(int).tolist()
        [[0, 1, 1, 1], [1, 1, 0, 0]]
        >>> solution.deviation, solution.proven
        (0.0, True)
    """
    started = time.perf_counter()
    goal_TT = _goal(target, channels)
    problem = make_counts(np.ones((1, len(goal_TT)), dtype=np.bool_), np.array([channels]), goal_TT)
    counts_K, deviation, bound = _optimise(problem, config or SolverConfig(), started)
    return Solution(
        masks_TC=_lay_out(problem.subset_KT, counts_K),
        deviation=float(deviation),
        bound=float(bound),
        proven=deviation == bound,
        seconds=time.perf_counter() - started,
    )


def solve_backward(
    target: FloatArray, forward_TC: BoolArray, config: SolverConfig | None = None
) -> Solution:
    """Finds backward masks inside given forward masks, as near as possible to `target`.

    Args:
        target: (T, T), the backward target as fractions of all channels, T <= 12; see
            `sharing.refine_backward`.
        forward_TC: (T, C) boolean, the forward masks.
        config: limits; the defaults without it.

    Returns:
        The best masks found, each row a subset of the forward row. When time runs out they are no
        worse than backward = forward, and `proven` is false. Where the forward masks leave more
        than 20,000 combinations of forward and backward subset (ten tasks or more), the integer
        programme is not built and the masks are a heuristic's.

    Raises:
        SharingMatrixError: `target` is no sharing matrix, or `forward_TC` does not fit it.
        ValueError: no channels, or more than 12 tasks.

    Example:
        >>> forward_TC = np.array([[1, 1, 1, 0], [0, 1, 1, 1]], dtype=bool)
        >>> solution = solve_backward(np.array([[0.5, 0.0], [0.0, 0.5]]), forward_TC)
        >>> solution.masks_TC.sum(axis=1).tolist(), solution.deviation
        ([2, 2], 0.0)
    """
    started = time.perf_counter()
    if forward_TC.dtype != np.bool_ or forward_TC.ndim != 2:
        raise SharingMatrixError(
            f"forward masks must be a boolean (T, C) array, got {forward_TC.dtype} "
            f"of shape {forward_TC.shape}"
        )
    goal_TT = _goal(target, forward_TC.shape[1])
    if len(forward_TC) != len(goal_TT):
        raise SharingMatrixError(
            f"forward masks must have a row per task, (T, C) = ({len(goal_TT)}, "
            f"{forward_TC.shape[1]}), got shape {forward_TC.shape}"
        )
    kinds_ST, kind_C, capacity_S = np.unique(
        forward_TC.T, axis=0, return_inverse=True, return_counts=True
    )
    problem = make_counts(kinds_ST, capacity_S, goal_TT)
    counts_K, deviation, bound = _optimise(problem, config or SolverConfig(), started)
    masks_TC = np.zeros_like(forward_TC)
    for kind in range(len(kinds_ST)):
        own_K = problem.kind_K == kind
        masks_TC[:, kind_C == kind] = _lay_out(problem.subset_KT[own_K], counts_K[own_K])
    return Solution(
        masks_TC=masks_TC,
        deviation=float(deviation),
        bound=float(bound),
        proven=deviation == bound,
        seconds=time.perf_counter() - started,
    )


def _goal(target: FloatArray, channels: int) -> IntArray:
    """(T, T), the target in whole channels, once the sizes are known to be solvable."""
    target_TT = check_sharing_matrix(target)
    if channels < 1:
        raise ValueError(f"masks need at least 1 channel, got {channels}")
    if len(target_TT) > MAX_TASKS:
        raise ValueError(
            f"masks can be solved for at most {MAX_TASKS} tasks (2^T subsets of tasks are "
            f"counted), got {len(target_TT)}; search fewer tasks at a time"
        )
    return round_to_channels(target_TT, channels)


def _lay_out(subset_NT: BoolArray, counts_N: IntArray) -> BoolArray:
    """(T, sum of counts): masks with each subset repeated as often as counted, in good order."""
    used = np.flatnonzero(counts_N)
    order = used[chain(subset_NT[used])]
    return np.repeat(subset_NT[order], counts_N[order], axis=0).T.copy()


def _optimise(problem: Counts, config: SolverConfig, started: float) -> tuple[IntArray, int, int]:
    """The best counts found, their deviation, and a bound that no counts can go below."""
    best_K, bound = incumbent(problem), problem.floor()
    if problem.deviation(best_K) > bound and len(best_K) <= MAX_COLUMNS:
        seconds_left = config.time_limit - (time.perf_counter() - started)
        found_K, proven_bound = _programme(problem, max(seconds_left, 1e-3), config.threads)
        bound = max(bound, proven_bound)
        if found_K is not None:
            best_K = min(best_K, found_K, key=problem.deviation)
    return best_K, problem.deviation(best_K), bound


def _programme(problem: Counts, time_limit: float, threads: int) -> tuple[IntArray | None, int]:
    """Runs HiGHS: the counts it found, if it found any, and the bound it proved."""
    prob = pulp.LpProblem("masks", pulp.LpMinimize)
    # Names sort as the columns do: PuLP hands the variables over by name.
    counts = [
        prob.add_variable(f"c{k:06d}", 0, int(problem.capacity_S[kind]), pulp.LpInteger)
        for k, kind in enumerate(problem.kind_K)
    ]
    for kind, capacity in enumerate(problem.capacity_S):
        _add(
            prob, counts, np.flatnonzero(problem.kind_K == kind), [], pulp.LpConstraintEQ, capacity
        )
    deviations = {}
    for entry, (goal, weight) in enumerate(zip(problem.goal_E, problem.weight_E, strict=True)):
        d = prob.add_variable(f"d{entry:06d}", 0)
        deviations[d] = int(weight)
        members = np.flatnonzero(problem.entry_KE[:, entry])
        _add(prob, counts, members, [(d, -1)], pulp.LpConstraintLE, goal)
        _add(prob, counts, members, [(d, 1)], pulp.LpConstraintGE, goal)
    prob.setObjective(pulp.LpAffineExpression(deviations))
    # The objective is a whole number at every feasible point, so a gap below 1 proves optimality.
    # The default relative gap of 1e-4 would stop earlier where deviations are large.
    highs = pulp.HiGHS(msg=False, timeLimit=time_limit, threads=threads, gapRel=0, gapAbs=0.99)
    prob.solve(highs)
    if _status(prob) == "kNotset":
        # A process has one pool of threads, and HiGHS refuses to run with another number of them.
        highspy.Highs.resetGlobalScheduler(True)
        prob.solve(highs)
    if _status(prob) not in ("kOptimal", "kTimeLimit"):
        raise RuntimeError(f"HiGHS failed to solve for masks: {_status(prob)}")
    bound = prob.solverModel.getInfo().mip_dual_bound
    bound = math.ceil(bound - 1e-6) if math.isfinite(bound) else 0
    # At the time limit PuLP's `status` says optimal all the same; `sol_status` knows.
    if prob.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        return None, bound
    found_K = np.rint([variable.value() for variable in counts]).astype(np.int64)
    return found_K, bound


def _status(prob: pulp.LpProblem) -> str:
    return str(prob.solverModel.getModelStatus().name)


def _add(
    prob: pulp.LpProblem,
    counts: list[pulp.LpVariable],
    members: NDArray[np.intp],
    extra: list[tuple[pulp.LpVariable, int]],
    sense: int,
    right: int,
) -> None:
    """Adds the constraint: the sum of the counts of `members`, and `extra`, against `right`."""
    terms = [(counts[k], 1) for k in members]
    prob.addConstraint(
        pulp.LpConstraint(pulp.LpAffineExpression(terms + extra), sense, rhs=int(right))
    )
