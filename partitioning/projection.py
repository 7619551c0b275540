r"""The nearest sharing matrix that masks can realise, with as many channels as it takes.

A realised P is a mean of :math:`z z^\top` over the channels, z in {0, 1}^T being the tasks of each
channel. So with enough channels the realisable P are the convex hull of the 2^T such matrices (the
Boolean quadratic polytope), and the nearest one to P is the optimum of a linear programme over the
share :math:`x_S \ge 0` of the channels that belongs to exactly the tasks of S:

.. math::
    \min_x \; w_d \sum_i |P'_{ii} - P_{ii}| + 2 w_p \sum_{i<j} |P'_{ij} - P_{ij}|
    \quad \text{with} \quad P'_{ij} = \sum_{S \ni i,j} x_S, \quad \sum_S x_S = 1.

It is the programme of `solver.solve` without whole channels, and is solved by column generation.
"""

from __future__ import annotations

import time

import numpy as np

from partitioning.generation import generate
from partitioning.sharing import FloatArray, check_sharing_matrix
from partitioning.solver_config import SolverConfig, check_num_tasks, make_problem


def project(P: FloatArray, config: SolverConfig | None = None) -> FloatArray:
    """The nearest sharing matrix to P that some masks realise, given channels enough.

    Args:
        P: (T, T), a target P, such as `sharing.refine` gives, T <= 40.
        config: limits and weights, as for `solver.solve`; the defaults without it.

    Returns:
        (T, T), a realisable P; `P` itself, but for rounding of about 1e-9, where that is
        realisable. Of several that are equally near the same one comes back every time.

    Raises:
        SharingMatrixError: `P` is no sharing matrix.
        ValueError: more than 40 tasks.
        TimeoutError: what is nearest could not be proven within the time limit. With up to 20 tasks
            that takes a second, with more than 24 it is rarely possible.

    Example:
        Any two of three tasks can have half of the channels and none in common; three cannot.

        >>> nearest = project(np.eye(3) / 2)
        >>> float(np.abs(nearest - np.eye(3) / 2).sum())
        0.5
    """
    config = config or SolverConfig()
    goal_TT = check_sharing_matrix(P)
    check_num_tasks(len(goal_TT))
    kinds_ST = np.ones((1, len(goal_TT)), dtype=np.bool_)
    problem = make_problem(kinds_ST, np.ones(1), goal_TT, config)
    deadline = time.perf_counter() + config.time_limit
    generated = generate(problem, config.threads, deadline)
    if generated.relaxed is None or not generated.complete:
        raise TimeoutError(
            f"the nearest realisable P of {len(goal_TT)} tasks was not found within "
            f"{config.time_limit:g} s; raise solver.time_limit"
        )
    share_K = generated.relaxed.count_K
    subset_KT = generated.relaxation.columns.subset_KT.astype(np.float64)
    nearest_TT = (subset_KT.T * (share_K / share_K.sum())) @ subset_KT
    return np.asarray(np.clip((nearest_TT + nearest_TT.T) / 2, 0.0, 1.0), dtype=np.float64)
