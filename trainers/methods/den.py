"""Deep elastic networks: a level of every block, chosen for each image by a selector.

Ahn et al. 2019, "Deep elastic networks with model selection for multi-task learning". A block has
levels: of a residual block the lowest is the shortcut alone, of others it has one part of the
channels. With d_i(l) the share of block i's weights that level l uses, networks f and selector g
make small

    E_{z ~ g(x)} [ CE(f(x; z), y) + rho ((1/n) sum_i d_i(z_i))^2 ]        (eq. 4, 5)

in turn: f by SGD on models that are drawn, at first the whole one with probability tau, else any
(eq. 8), later from g; g by the sampled gradient (eq. 7).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning.settings import NOT_NEGATIVE, at_least, checked, interval
from trainers.methods.elastic import ElasticPhase, SelectorSettings, elastic_plan
from trainers.methods.plan import Plan, Problem


@dataclass(frozen=True, kw_only=True)
@checked()
class DenSettings(SelectorSettings):
    """Levels, and how networks and selector are trained in turn.

    Attributes:
        groups: Parts of a block's channels. There is a level for each, and where blocks lie beside
            shortcuts a lowest one without any.
        cost_weight: rho: the loss that a model of all channels must save to be worth it.
        whole: tau, the probability of the whole model in the first stage; 0 has all as likely.
    """

    groups: Annotated[int, at_least(1)] = 3
    cost_weight: Annotated[float, NOT_NEGATIVE] = 0.1
    whole: Annotated[float, interval("[0, 1)")] = 0.75


def plan_den(problem: Problem, settings: DenSettings) -> Plan:
    """All tasks have the parts of blocks in one order."""
    return elastic_plan(
        problem,
        settings,
        order_TU=np.tile(np.arange(settings.groups), (len(problem.tasks), 1)),
        cost_weights=(settings.cost_weight,),
        first=ElasticPhase(part="all", rows=(), draw="whole_or_any", whole=settings.whole),
    )
