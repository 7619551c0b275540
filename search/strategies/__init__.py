"""The strategies: what proposes candidates, each behind the same ask and tell.

A new strategy is one file and one line of `STRATEGIES`, which drives the config, the command
line's help and the contract tests alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search.strategies.evolution import Evolution, EvolutionSettings
from search.strategies.fixed import BaselineSettings, FixedBaselines
from search.strategies.policy_gradient import PolicyGradient, PolicyGradientSettings
from search.strategies.protocol import FloatArray, Outcome, Problem, Strategy
from search.strategies.random_search import RandomSearch, RandomSettings


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


STRATEGIES: dict[str, StrategyType] = {
    "random": StrategyType(
        settings=RandomSettings,
        build=RandomSearch,
        summary="uniform random vectors",
    ),
    "es": StrategyType(
        settings=EvolutionSettings,
        build=Evolution,
        summary="evolution strategies: antithetic directions and a pull towards fewer channels",
    ),
    "policy_gradient": StrategyType(
        settings=PolicyGradientSettings,
        build=PolicyGradient,
        summary="a policy-gradient agent that covers a range of channel budgets in one search",
    ),
    "baselines": StrategyType(
        settings=BaselineSettings,
        build=FixedBaselines,
        summary="fixed baselines, each proposed once: share all, independent, equal budgets",
    ),
}

__all__ = ["STRATEGIES", "FloatArray", "Outcome", "Problem", "Strategy", "StrategyType"]
