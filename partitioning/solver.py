r"""Masks from P: the integer programme over the counts of task subsets.

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
:math:`r_{ij} = \mathrm{round}(C \tilde P_{ij})` and whole weights :math:`w_d, w_p` (1 by default):

.. math::
    \min_{x \in \mathbb{Z}_{\ge 0}^{2^T}} \; w_d \sum_i d_{ii} + 2 w_p \sum_{i<j} d_{ij}
    \quad \text{s.t.} \quad
    \Bigl| \sum_{S \ni i,j} x_S - r_{ij} \Bigr| \le d_{ij} \;\; (i \le j), \quad
    \sum_S x_S = C.

For backward masks, given :math:`n_S` channels with forward subset S, the counts are
:math:`y_{S,U}` for :math:`U \subseteq S`:

.. math::
    \min_{y \in \mathbb{Z}_{\ge 0}} \; w_d \sum_i d_{ii} + 2 w_p \sum_{i<j} d_{ij}
    \quad \text{s.t.} \quad
    \Bigl| \sum_S \sum_{U \ni i,j} y_{S,U} - r_{ij} \Bigr| \le d_{ij} \;\; (i \le j), \quad
    \sum_{U \subseteq S} y_{S,U} = n_S \;\; \forall S.

**How.** Column generation solves the linear programme over all subsets (see `generation`); its
optimum, rounded up, bounds every masks' deviation. Its fractions are rounded by diving and the
result improved by local search, which often reaches the bound. Where it does not, integer
programmes over the columns of smallest reduced cost close the gap: of a few hundred first, then of
more. Once every column that better masks could use was in, the optimum is proven; with more than
about 12 tasks those can be more than HiGHS can take.

Differs from the paper: read literally, its constraints bound M from above only, so M = 0 is
optimal, and they compare counts of channels with fractions, without the factor C. What is meant is
the least total absolute deviation from C P, with each pair counted twice as the sum over i and j
does. Channels are interchangeable, so a programme over them has C! symmetric copies of every
solution and times out even for three tasks; counts have none, and their number does not depend on
C. The target is rounded to whole channels, which no count can beat by more than the rounding.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from partitioning.optimum import gap, optimise
from partitioning.ordering import order_subsets
from partitioning.problem import Columns, MaskProblem
from partitioning.sharing import (
    BoolArray,
    FloatArray,
    IntArray,
    SharingMatrixError,
    check_sharing_matrix,
    round_to_channels,
)
from partitioning.solver_config import SolverConfig, check_num_tasks, make_problem


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Masks for one channel group, and how good they are known to be.

    Attributes:
        masks_TC: (T, C) boolean; tasks' channels lie in few runs, in forward masks with the unused
            channels last.
        deviation: total absolute difference between M^T M and the rounded target, in channels,
            times the weights; by default the diagonal counts once and every pair twice.
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
        return gap(self.deviation, self.bound)


def solve(target: FloatArray, channels: int, config: SolverConfig | None = None) -> Solution:
    """Finds masks whose M^T M is as near as possible to `channels` times `target`.

    Which of several optimal masks comes back is arbitrary but always the same.

    Args:
        target: (T, T), the target P, T <= 40. It need not be realisable.
        channels: C >= 1.
        config: limits and weights; the defaults without it.

    Returns:
        The best masks found. When time runs out `proven` is false, and `bound` still holds.

    Raises:
        SharingMatrixError: `target` is no sharing matrix.
        ValueError: no channels, or more than 40 tasks.

    Example:
        >>> solution = solve(np.array([[0.75, 0.25], [0.25, 0.5]]), 4)
        >>> solution.masks_TC.astype(int).tolist()
        [[1, 1, 1, 0], [0, 0, 1, 1]]
        >>> solution.deviation, solution.proven
        (0.0, True)
    """
    started = time.perf_counter()
    config = config or SolverConfig()
    goal_TT = _goal(target, channels)
    kinds_ST = np.ones((1, len(goal_TT)), dtype=np.bool_)
    problem = make_problem(kinds_ST, np.array([channels]), goal_TT, config)
    columns, counts_N, bound = optimise(problem, config, started)
    order = order_subsets(columns.subset_KT)
    masks_TC = np.repeat(columns.subset_KT[order], counts_N[order], axis=0).T.copy()
    return _solution(problem, columns, counts_N, bound, masks_TC, started)


def solve_backward(
    target: FloatArray, forward_TC: BoolArray, config: SolverConfig | None = None
) -> Solution:
    """Finds backward masks inside given forward masks, as near as possible to `target`.

    Args:
        target: (T, T), the backward target as fractions of all channels, T <= 40; see
            `sharing.refine_backward`.
        forward_TC: (T, C) boolean, the forward masks.
        config: limits and weights; the defaults without it.

    Returns:
        The best masks found, each row a subset of the forward row. When time runs out they are no
        worse than backward = forward, `proven` is false, and `bound` still holds.

    Raises:
        SharingMatrixError: `target` is no sharing matrix, `forward_TC` does not fit it, or use is
            to be exact and the target's is more than the forward masks have.
        ValueError: no channels, or more than 40 tasks.

    Example:
        >>> forward_TC = np.array([[1, 1, 1, 0], [0, 1, 1, 1]], dtype=bool)
        >>> solution = solve_backward(np.array([[0.5, 0.0], [0.0, 0.5]]), forward_TC)
        >>> solution.masks_TC.sum(axis=1).tolist(), solution.deviation
        ([2, 2], 0.0)
    """
    started = time.perf_counter()
    config = config or SolverConfig()
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
    excess_T = np.diag(goal_TT) - forward_TC.sum(axis=1)
    if config.exact_use and (excess_T > 0).any():
        task = int(np.argmax(excess_T))
        raise SharingMatrixError(
            f"backward use can only be exact within forward use, but task {task} should have "
            f"{goal_TT[task, task]} channels and its forward mask has {forward_TC[task].sum()}"
        )
    kinds_ST, kind_C, capacity_S = np.unique(
        forward_TC.T, axis=0, return_inverse=True, return_counts=True
    )
    problem = make_problem(kinds_ST, capacity_S, goal_TT, config)
    columns, counts_N, bound = optimise(problem, config, started)
    masks_TC = np.zeros_like(forward_TC)
    before_T = np.zeros(len(goal_TT), dtype=np.bool_)
    for kind in kind_C[np.sort(np.unique(kind_C, return_index=True)[1])]:  # as they are laid out
        own = np.flatnonzero(columns.kind_K == kind)
        own = own[order_subsets(columns.subset_KT[own], before_T)]
        masks_TC[:, kind_C == kind] = np.repeat(columns.subset_KT[own], counts_N[own], axis=0).T
        before_T = columns.subset_KT[own[-1]]
    return _solution(problem, columns, counts_N, bound, masks_TC, started)


def _goal(target: FloatArray, channels: int) -> IntArray:
    """(T, T), the target in whole channels, once the sizes are known to be solvable."""
    target_TT = check_sharing_matrix(target)
    if channels < 1:
        raise ValueError(f"masks need at least 1 channel, got {channels}")
    check_num_tasks(len(target_TT))
    return round_to_channels(target_TT, channels)


def _solution(
    problem: MaskProblem,
    columns: Columns,
    counts_N: IntArray,
    bound: int,
    masks_TC: BoolArray,
    started: float,
) -> Solution:
    deviation = problem.deviation(columns, counts_N)
    return Solution(
        masks_TC=masks_TC,
        deviation=float(deviation),
        bound=float(bound),
        proven=deviation == bound,
        seconds=time.perf_counter() - started,
    )
