"""PackNet: tasks one after another, each in weights that those before it have left.

Mallya and Lazebnik 2018, "PackNet: adding multiple tasks to a single network by iterative pruning".
A task is trained in the free weights and reads those of the tasks before it, which stay as they
are; then the smallest of its own are given back, and the rest is trained on. Nothing is forgotten,
and every task costs all multiply-accumulates, since what is pruned are single weights.

Grouped (Kim et al. 2019, section 4.1, PackNet+), tasks have groups of channels instead: task i
reads the first i units and changes only the i-th, so that its network is a small one.
"""

from dataclasses import dataclass
from typing import Annotated

from partitioning.settings import checked, interval
from trainers.methods.nested_net import NestedNetSettings, nested_masks
from trainers.methods.networks import Part
from trainers.methods.plan import Phase, Plan, Problem, one_after_another, undivided


@dataclass(frozen=True, kw_only=True)
@checked()
class PacknetSettings:
    """How weights are shared out.

    Attributes:
        keep: Share of the free weights of every layer that a task keeps; None gives all tasks as
            many, until none is left. State it where tasks may come later.
        pruned_at: When the others are pruned, as a share of the task's steps.
    """

    keep: Annotated[float | None, interval("(0, 1)")] = None
    pruned_at: Annotated[float, interval("(0, 1)")] = 0.7


def plan_packnet(problem: Problem, settings: PacknetSettings) -> Plan:
    """Single weights, by their size."""
    tasks = len(problem.tasks)

    def phase(task: int) -> Phase:
        left = tasks - task
        keep = settings.keep or 1 / left
        return Phase(
            part="all", rows=(task,), changes="new", keep=keep, prune_at=settings.pruned_at
        )

    part = Part(masks=undivided(problem), pruned=True)
    return Plan(parts={"all": part}, phases=tuple(map(phase, range(tasks))))


def plan_packnet_grouped(problem: Problem, settings: NestedNetSettings) -> Plan:
    """Units of channels."""
    masks = nested_masks(problem, settings)
    return one_after_another(masks, lambda task, rows: Phase(part="all", rows=rows, changes="new"))
