"""The strategies: what proposes candidates, each behind the same ask and tell.

A new strategy is one file and one line of `STRATEGIES`, which drives the config, the command
line's help and the contract tests alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search.strategies.agent.policy_gradient import PolicyGradient, PolicyGradientSettings
from search.strategies.baselines import BaselineSettings, fixed_baselines
from search.strategies.batches import Batches, BatchLearner
from search.strategies.coordinates import uses_of_mean
from search.strategies.es.evolution import EvolutionSettings, evolution
from search.strategies.local_refinement import LocalRefinement, LocalRefinementSettings
from search.strategies.optuna_samplers.models import GpSettings, TpeSettings, gp, tpe
from search.strategies.optuna_samplers.populations import (
    CmaEsSettings,
    Nsga2Settings,
    Nsga3Settings,
    cma_es,
    nsga2,
    nsga3,
)
from search.strategies.protocol import Outcome, Problem, Strategy, TaskFacts, TaskKnowledge
from search.strategies.random_search import RandomSettings, random_draws
from search.strategies.regularised_evolution import (
    RegularisedEvolution,
    RegularisedEvolutionSettings,
)
from search.strategies.sobol import SobolSettings, sobol_points
from search.strategies.task_models.kernel import entry_kinds, matern
from search.strategies.task_models.strategy import TaskModels, TaskModelsSettings


@dataclass(frozen=True, kw_only=True)
class StrategyType:
    """An entry of the registry.

    Attributes:
        settings: Frozen dataclass of the strategy's settings, every one with a default.
        build: Makes a strategy from its problem and an instance of `settings`.
        summary: One line for the command line's help.
    """

    settings: type[Any]
    build: Callable[[Problem, Any], Strategy]
    summary: str


def _in_batches(
    make: Callable[[Problem, Any], BatchLearner],
) -> Callable[[Problem, Any], Strategy]:
    """The strategy of a learner that is made from a problem and settings."""
    return lambda problem, settings: Batches(problem, make(problem, settings))


STRATEGIES: dict[str, StrategyType] = {
    "random": StrategyType(
        settings=RandomSettings,
        build=random_draws,
        summary="random vectors, spread evenly over the range of mean use",
    ),
    "es": StrategyType(
        settings=EvolutionSettings,
        build=evolution,
        summary="evolution strategies: antithetic directions and a pull towards fewer channels",
    ),
    "policy_gradient": StrategyType(
        settings=PolicyGradientSettings,
        build=_in_batches(PolicyGradient),
        summary="a policy-gradient agent that covers a range of cost weights in one search",
    ),
    "regularised_evolution": StrategyType(
        settings=RegularisedEvolutionSettings,
        build=_in_batches(RegularisedEvolution),
        summary="regularised evolution: mutants of tournament winners, the oldest die",
    ),
    "local_refinement": StrategyType(
        settings=LocalRefinementSettings,
        build=_in_batches(LocalRefinement),
        summary="small steps from the front, shrinking where they gain nothing",
    ),
    "nsga2": StrategyType(
        settings=Nsga2Settings,
        build=nsga2,
        summary="NSGA-II (Optuna): a genetic algorithm that spreads along the front",
    ),
    "nsga3": StrategyType(
        settings=Nsga3Settings,
        build=nsga3,
        summary="NSGA-III (Optuna): the same, spread by reference points",
    ),
    "tpe": StrategyType(
        settings=TpeSettings,
        build=tpe,
        summary="multi-objective TPE (Optuna): densities of good and bad candidates",
    ),
    "gp": StrategyType(
        settings=GpSettings,
        build=gp,
        summary="Gaussian processes (Optuna): the largest expected hypervolume improvement",
    ),
    "task_models": StrategyType(
        settings=TaskModelsSettings,
        build=_in_batches(TaskModels),
        summary="a Gaussian process per task, over the entries that concern it",
    ),
    "cma_es": StrategyType(
        settings=CmaEsSettings,
        build=cma_es,
        summary="CMA-ES (Optuna) on quality less a cost penalty, one per cost weight",
    ),
    "sobol": StrategyType(
        settings=SobolSettings,
        build=sobol_points,
        summary="quasi-random search: scrambled Sobol points",
    ),
    "baselines": StrategyType(
        settings=BaselineSettings,
        build=fixed_baselines,
        summary="fixed baselines, each proposed once: share all, independent, equal uses",
    ),
}

__all__ = [
    "STRATEGIES",
    "Outcome",
    "Problem",
    "Strategy",
    "StrategyType",
    "TaskFacts",
    "TaskKnowledge",
    "entry_kinds",
    "matern",
    "uses_of_mean",
]
