"""A network for each task, and one for all: what sharing is held against.

min over W_1 .. W_k of  sum_j L(W_j; D_j)            single: k times the weights
min over W          of  sum_j L(W; D_j)              shared: once, and a head for each task
"""

from dataclasses import dataclass

from trainers.methods.networks import Part
from trainers.methods.plan import Phase, Plan, Problem, all_together, undivided


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """A method without settings."""


def plan_single(problem: Problem, settings: NoSettings) -> Plan:
    """A whole network for each task."""
    parts = {task: Part(masks=undivided(problem, [task])) for task in problem.tasks}
    return Plan(parts=parts, phases=tuple(Phase(part=task, rows=(0,)) for task in parts))


def plan_shared(problem: Problem, settings: NoSettings) -> Plan:
    """One network; norms and heads are each task's own."""
    return all_together(Part(masks=undivided(problem)))
