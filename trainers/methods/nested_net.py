"""NestedNet: networks of several sizes, one within the next.

Kim, Ahn and Oh 2018, "NestedNet: learning nested sparse structures in deep neural networks", with
groups of channels, as Kim et al. 2019 have it. Task i has the first i units, and all tasks are
trained together, each changing all that it uses; or, for several budgets of one task (Kim et al.
2019, eq. 1), the first l units are level l of a network of the task's own,

    min over W of  sum_l L(h^l(W); D).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning import Masks
from partitioning.settings import at_least, checked
from trainers.methods.networks import Part
from trainers.methods.plan import (
    SHARES_OF_UNITS,
    Phase,
    Plan,
    Problem,
    all_together,
    shares_of,
    unit_rows,
)


@dataclass(frozen=True, kw_only=True)
@checked()
class NestedNetSettings:
    """Units of the channels.

    Attributes:
        shares: Of the channels for each unit, from the first task's; None makes as many equal ones
            as there are tasks.
    """

    shares: Annotated[tuple[float, ...] | None, SHARES_OF_UNITS] = None


@dataclass(frozen=True, kw_only=True)
@checked()
class NestedBudgetsSettings:
    """Levels of every task's network.

    Attributes:
        units: How many equal units, and levels; None takes as many as tasks.
    """

    units: Annotated[int | None, at_least(1)] = None


def nested_masks(problem: Problem, settings: NestedNetSettings) -> Masks:
    """Task i has the first i units; all of them where there are more tasks."""
    tasks = len(problem.tasks)
    shares = shares_of(tasks, settings.shares)
    counts_TL = np.minimum(np.arange(1, tasks + 1), len(shares))[:, None]
    return unit_rows(problem, counts_TL, shares)


def plan_nested_net(problem: Problem, settings: NestedNetSettings) -> Plan:
    """One network for all tasks, with one output each.

    Raises:
        ValueError: There are more units than tasks, of which no task would have the last.
    """
    if settings.shares and len(settings.shares) > len(problem.tasks):
        raise ValueError(
            f"shares must be no more than the {len(problem.tasks)} tasks, which have one unit more "
            f"each; got {len(settings.shares)}"
        )
    return all_together(Part(masks=nested_masks(problem, settings)))


def plan_nested_net_budgets(problem: Problem, settings: NestedBudgetsSettings) -> Plan:
    """A network of several levels for each task."""
    units = settings.units or len(problem.tasks)
    levels = np.arange(1, units + 1)[None]
    parts = {
        task: Part(masks=unit_rows(problem, levels, shares_of(units), [task]))
        for task in problem.tasks
    }
    rows = tuple(range(units))
    return Plan(parts=parts, phases=tuple(Phase(part=task, rows=rows) for task in parts))
