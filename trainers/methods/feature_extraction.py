"""The first task's network, frozen, with something of every later task's own behind it.

Feature extraction (Donahue et al. 2014) trains a head alone. DA-CNN (Wang, Ramanan and Hebert 2017,
"Growing a brain", which Kim et al. 2019 compare with) adds fully connected layers before it.
"""

from dataclasses import dataclass
from typing import Annotated

from partitioning.settings import at_least, checked
from trainers.methods.networks import Part
from trainers.methods.plan import Phase, Plan, Problem, undivided
from trainers.methods.single import NoSettings


@dataclass(frozen=True, kw_only=True)
@checked()
class DaCnnSettings:
    """What is added.

    Attributes:
        layers: Fully connected ones before the head of every task but the first, each as wide as
            the features.
    """

    layers: Annotated[int, at_least(1)] = 2


def plan_feature_extraction(problem: Problem, settings: NoSettings) -> Plan:
    """A head for every later task."""
    return _frozen(problem, 0)


def plan_da_cnn(problem: Problem, settings: DaCnnSettings) -> Plan:
    """Layers and a head for every later task."""
    return _frozen(problem, settings.layers)


def _frozen(problem: Problem, layers: int) -> Plan:
    later = len(problem.tasks) - 1
    part = Part(masks=undivided(problem), hidden=(0, *[layers] * later))
    heads = (
        Phase(part="all", rows=(row,), changes="head", inherits={row: 0})
        for row in range(1, 1 + later)
    )
    return Plan(parts={"all": part}, phases=(Phase(part="all", rows=(0,)), *heads))
