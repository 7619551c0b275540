"""How good masks must be, and what may be spent on finding them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partitioning.problem import MaskProblem
from partitioning.sharing import BoolArray, FloatArray

# Beyond, a linear programme takes longer than a candidate is worth.
MAX_TASKS = 40


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How good masks must be, and what may be spent on them.

    Attributes:
        time_limit: seconds per solve, > 0. HiGHS looks at the clock now and then only, so large
            programmes may go over it. A solve that is cut short by the clock anywhere need not end
            at the same masks next time; with up to 9 tasks few are, with 20 or more all that do
            not reach `gap` first.
        threads: threads of HiGHS, >= 1.
        gap: masks that are proven to be this near to the best are good enough; see `Solution.gap`.
        diagonal_weight: what one channel too many or too few in a task's use costs; whole, >= 1.
        pair_weight: the same for the overlap of two tasks, which counts twice; whole, >= 1.
        exact_use: every task gets exactly the channels that P asks for, rounded; only overlaps
            give. It overrules `diagonal_weight`.
    """

    time_limit: float = 10.0
    threads: int = 1
    gap: float = 0.0
    diagonal_weight: int = 1
    pair_weight: int = 1
    exact_use: bool = False

    def __post_init__(self) -> None:
        """Refuses limits that leave nothing to solve with, and weights that are not whole."""
        if not (math.isfinite(self.time_limit) and self.time_limit > 0):
            raise ValueError(
                f"solver.time_limit must be a number of seconds > 0, got {self.time_limit}"
            )
        if self.threads < 1:
            raise ValueError(f"solver.threads must be at least 1, got {self.threads}")
        if not (math.isfinite(self.gap) and self.gap >= 0):
            raise ValueError(f"solver.gap must be a number >= 0, got {self.gap}")
        for name in ("diagonal_weight", "pair_weight"):
            weight = getattr(self, name)
            if not isinstance(weight, int) or not 1 <= weight <= 1000:
                raise ValueError(
                    f"solver.{name} must be a whole number from 1 to 1000, got {weight!r}"
                )


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
