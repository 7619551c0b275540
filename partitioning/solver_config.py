"""How good masks must be, and what may be spent on finding them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from partitioning.problem import MaskProblem
from partitioning.settings import NOT_NEGATIVE, POSITIVE, WHOLE, Unit, at_least, between, checked
from partitioning.sharing import BoolArray, FloatArray

# Beyond, a linear programme takes longer than a candidate is worth.
MAX_TASKS = 40


@dataclass(frozen=True, kw_only=True)
@checked("solver.{field}")
class SolverConfig:
    """How good masks must be, and what may be spent on them.

    Attributes:
        time_limit: What a solve may take. HiGHS looks at the clock now and then only, so large
            programmes may go over it. A solve that is cut short by the clock anywhere need not end
            at the same masks next time; with up to 9 tasks few are, with 20 or more all that do
            not reach `gap` first.
        threads: Threads of HiGHS.
        gap: Masks that are proven to be this near to the best are good enough; see `Solution.gap`.
        diagonal_weight: What one channel too many or too few in a task's use costs.
        pair_weight: The same for the overlap of two tasks, which counts twice.
        exact_use: Every task gets exactly the channels that P asks for, rounded; only overlaps
            give. It overrules `diagonal_weight`.
    """

    time_limit: Annotated[float, POSITIVE, Unit("seconds")] = 10.0
    threads: Annotated[int, at_least(1)] = 1
    gap: Annotated[float, NOT_NEGATIVE] = 0.0
    diagonal_weight: Annotated[int, WHOLE, between(1, 1000)] = 1
    pair_weight: Annotated[int, WHOLE, between(1, 1000)] = 1
    exact_use: bool = False


def check_num_tasks(num_tasks: int) -> None:
    """Refuses more tasks than masks can be solved for.

    Raises:
        ValueError: more than 40.
    """
    if num_tasks > MAX_TASKS:
        raise ValueError(f"masks can be solved for at most {MAX_TASKS} tasks, got {num_tasks}")


def make_problem(
    kinds_ST: BoolArray,
    capacity_S: NDArray[np.int64] | FloatArray,
    goal_TT: NDArray[np.int64] | FloatArray,
    config: SolverConfig,
) -> MaskProblem:
    """The problem that is weighed as the config says."""
    diagonal_weight = config.diagonal_weight
    if config.exact_use:
        # A task with a channel too many or too few can drop or join one, which moves at most its
        # overlaps by one each. Where use costs more than that, no optimum deviates in use.
        diagonal_weight = 2 * config.pair_weight * (len(goal_TT) - 1) + 1
    return MaskProblem(
        kinds_ST=kinds_ST,
        capacity_S=capacity_S,
        goal_TT=goal_TT,
        diagonal_weight=diagonal_weight,
        pair_weight=config.pair_weight,
    )
