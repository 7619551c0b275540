"""Deep virtual networks: the units of one network in another order for every task.

Kim et al. 2019, "Deep Virtual Networks for memory efficient inference of multiple tasks". All
feature maps are split into k units. Task j takes them in an order of its own (eq. 3), and the first
l of them are its network h^{l,j}(W). All k x n_h networks are trained together (eq. 4),

    min over W of  sum_j sum_l L(h^{l,j}(W); D_j),

so that the gradient of unit i is the sum over the networks that have it (eq. 5).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning import Masks, neighbours_first, virtual_masks
from partitioning.settings import at_least, checked, one_of
from trainers.methods.networks import Part
from trainers.methods.plan import (
    SHARES_OF_UNITS,
    Plan,
    Problem,
    all_together,
    given_masks,
    shares_of,
)


@dataclass(frozen=True, kw_only=True)
@checked()
class DvnSettings:
    """Units, and the order in which tasks take them.

    Attributes:
        units: How many; None takes as many as tasks. There are as many levels.
        shares: Of the channels for each unit, in the order of units; None makes them equal.
        order: rule (the task's own unit first, then its neighbours by distance; own units begin
            again where there are more tasks), random (drawn with the training's seed), or same (the
            units in one order for all tasks).
        masks: In place of all these: a file of masks, or STUDY@PICK, the masks of a candidate of a
            study (of a space of kind unit_order, whose strategies search orders).
    """

    units: Annotated[int | None, at_least(1)] = None
    shares: Annotated[tuple[float, ...] | None, SHARES_OF_UNITS] = None
    order: Annotated[str, one_of(("rule", "random", "same"))] = "rule"
    masks: str | None = None

    def _check(self) -> None:
        if self.masks is not None and (self.units, self.shares, self.order) != (None, None, "rule"):
            raise ValueError("masks says all of units, shares and order; leave these out")
        if None not in (self.units, self.shares) and self.units != len(self.shares or ()):
            raise ValueError(
                f"shares must be given for each of {self.units} units, got {len(self.shares or ())}"
            )


def plan_dvn(problem: Problem, settings: DvnSettings) -> Plan:
    """All tasks and levels together."""
    return all_together(Part(masks=dvn_masks(problem, settings)))


def dvn_masks(problem: Problem, settings: DvnSettings) -> Masks:
    """The rows of all tasks and levels."""
    if settings.masks is not None:
        return given_masks(problem, settings.masks)
    tasks = len(problem.tasks)
    units = settings.units or (len(settings.shares) if settings.shares else tasks)
    order_TU = np.tile(np.arange(units), (tasks, 1))
    if settings.order == "rule":
        order_TU = neighbours_first(units)[np.arange(tasks) % units]
    elif settings.order == "random":
        order_TU = np.random.default_rng(problem.seed).permuted(order_TU, axis=1)
    counts_TL = np.tile(np.arange(1, units + 1), (tasks, 1))
    return virtual_masks(
        problem.tasks,
        problem.groups,
        counts_TL,
        order_TU=order_TU,
        shares=shares_of(units, settings.shares),
    )
