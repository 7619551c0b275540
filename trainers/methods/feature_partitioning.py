"""Feature partitioning: how many channels each task has, and how much each pair shares.

Newell et al. 2019, "Feature partitioning for efficient multi-task architectures": masks that
realise a sharing matrix P. Here, as with every method of a comparison, the losses of all tasks are
added up in every step, where the paper draws one task a step.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning import Masks, SolverConfig, VirtualNetwork, refine, solve
from partitioning.settings import above, at_most, checked, interval
from trainers.methods.networks import Part
from trainers.methods.plan import Plan, Problem, all_together, given_masks


@dataclass(frozen=True, kw_only=True)
@checked()
class PartitioningSettings:
    """A sharing matrix with one use and one overlap, or masks.

    Attributes:
        use: Share of the channels that every task uses.
        overlap: How much each pair of tasks shares: 0 is the least and 1 the most that is possible.
        masks: In place of both: a file of masks, or STUDY@PICK, those of a study's candidate.
    """

    use: Annotated[float, above(0), at_most(1)] = 0.5
    overlap: Annotated[float, interval("[0, 1]")] = 0.5
    masks: str | None = None

    def _check(self) -> None:
        if self.masks is not None and (self.use, self.overlap) != (0.5, 0.5):
            raise ValueError("masks says use and overlap; leave these out")


def plan_feature_partitioning(problem: Problem, settings: PartitioningSettings) -> Plan:
    """All rows together."""
    masks = (
        _solved(problem, settings)
        if settings.masks is None
        else given_masks(problem, settings.masks)
    )
    return all_together(Part(masks=masks))


def _solved(problem: Problem, settings: PartitioningSettings) -> Masks:
    tasks = len(problem.tasks)
    raw_TT = np.full((tasks, tasks), settings.overlap)
    np.fill_diagonal(raw_TT, settings.use)
    target_TT = refine(raw_TT)
    widths = {group.width for group in problem.groups}
    solved = {width: solve(target_TT, width, SolverConfig()).masks_TC for width in widths}
    return Masks(
        networks=tuple(VirtualNetwork(task=task) for task in problem.tasks),
        groups=problem.groups,
        forward={group.name: solved[group.width] for group in problem.groups},
    )
