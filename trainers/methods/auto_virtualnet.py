"""Auto-VirtualNet: for every task, image and budget a network of building blocks, by an agent.

Kim et al. 2021, "Auto-VirtualNet: cost-adaptive dynamic architecture search for multi-task
learning". Modules of one network are split into b building blocks, which every task has in an order
of its own, as in deep virtual networks. An agent gives for each module and each of n_h budgets how
many of them an image's network has (eq. 5), none among it, and both make small (eq. 7, 8)

    E [ sum_i L(g(x; M^i), y) + rho_i ((1/m) sum_j p_j(M^i) / t_j)^2 ].

Before that the networks are trained with building blocks that are dropped at random.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning import neighbours_first
from partitioning.settings import DIFFERENT, NOT_NEGATIVE, at_least, checked, each, interval
from trainers.methods.elastic import ElasticPhase, SelectorSettings, elastic_plan
from trainers.methods.plan import Plan, Problem


@dataclass(frozen=True, kw_only=True)
@checked()
class AutoVirtualnetSettings(SelectorSettings):
    """Building blocks, budgets, and how networks and agent are trained in turn.

    Attributes:
        groups: Building blocks b of a module; a task begins with one of its own, then come its
            neighbours.
        cost_weights: rho of every budget, the largest first: the loss that all building blocks must
            save to be worth it. Each is a level, and all come of one training.
        dropped: Share of the modules, before there is an agent, of which an image has any number of
            building blocks in place of all.
    """

    groups: Annotated[int, at_least(1)] = 3
    cost_weights: Annotated[tuple[float, ...], DIFFERENT, each(NOT_NEGATIVE)] = (1.0, 0.3, 0.1)
    dropped: Annotated[float, interval("[0, 1)")] = 0.5

    def _check(self) -> None:
        if not self.cost_weights or list(self.cost_weights) != sorted(self.cost_weights)[::-1]:
            raise ValueError(
                "cost_weights must be one or more, the largest first, got "
                f"{list(self.cost_weights)}"
            )


def plan_auto_virtualnet(problem: Problem, settings: AutoVirtualnetSettings) -> Plan:
    """Every task has the building blocks in an order of its own."""
    tasks = np.arange(len(problem.tasks))
    return elastic_plan(
        problem,
        settings,
        order_TU=neighbours_first(settings.groups)[tasks % settings.groups],
        cost_weights=settings.cost_weights,
        first=ElasticPhase(
            part="all", rows=(), draw="each_whole_or_any", whole=1 - settings.dropped
        ),
    )
