"""Strategies learn: they find what random search does not."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from partitioning import FloatArray
from search.candidates import hypervolume
from search.strategies import STRATEGIES, Outcome, Problem, Strategy
from search.strategies.agent.policy_gradient import PolicyGradientSettings
from search.strategies.es.evolution import EvolutionSettings
from search.strategies.local_refinement import LocalRefinementSettings
from search.strategies.optuna_samplers.models import GpSettings, TpeSettings
from search.strategies.optuna_samplers.populations import (
    CmaEsSettings,
    Nsga2Settings,
    Nsga3Settings,
)
from search.strategies.random_search import RandomSettings
from search.strategies.regularised_evolution import RegularisedEvolutionSettings
from search.strategies.task_models.strategy import TaskModelsSettings
from tests.helpers.strategies import make_problem, propose


def random_search(problem: Problem) -> Strategy:
    return STRATEGIES["random"].build(problem, RandomSettings())


LEARNING: dict[str, Any] = {
    "es": EvolutionSettings(directions=4, diagonal_l2=(0.0,)),
    "policy_gradient": PolicyGradientSettings(cost_weights=(0.0,)),
    "regularised_evolution": RegularisedEvolutionSettings(population=16, tournament=6, entries=2),
    "local_refinement": LocalRefinementSettings(entries=3.0),
    "nsga2": Nsga2Settings(population=8),
    "nsga3": Nsga3Settings(population=8),
    "tpe": TpeSettings(multivariate=True),
    "cma_es": CmaEsSettings(cost_weights=(0.0,)),
    "task_models": TaskModelsSettings(searches=10, steps=12, window=60, fit_window=60),
}


@pytest.mark.parametrize("name", list(LEARNING))
def test_better_than_random_where_the_optimum_is_known(name: str) -> None:
    optimum_D = np.linspace(0.2, 0.8, 8)

    def regret(vectors: FloatArray) -> FloatArray:
        squared: FloatArray = np.square(vectors - optimum_D)
        return np.asarray(squared.mean(axis=-1))

    def score(index: int, vector: FloatArray) -> Outcome:
        return Outcome(index=index, vector=vector, quality=1.0 - float(regret(vector)), cost=0.5)

    num, num_late = 192, 48
    # A uniform entry has variance 1/12 around 1/2.
    regret_of_random = float(np.mean(1.0 / 12.0 + np.square(optimum_D - 0.5)))
    for seed in range(3):
        problem = make_problem(8, seed)
        late_random = regret(propose(random_search(problem), num, score=score)[-num_late:])
        # Regret of a uniform vector has a standard deviation of 0.035: 5 standard errors of 48.
        assert late_random.mean() == pytest.approx(regret_of_random, abs=5 * 0.035 / 48**0.5)
        strategy = STRATEGIES[name].build(problem, LEARNING[name])
        late = regret(propose(strategy, num, score=score)[-num_late:])
        # Over ten seeds the largest was 0.044 (0.034 of the strategies of populations, TPE and
        # CMA-ES, 0.019 of the models of tasks), and 0.121 is expected of random: half of that is
        # far from both.
        assert late.mean() < 0.5 * regret_of_random


FRONT: dict[str, Any] = {
    "regularised_evolution": RegularisedEvolutionSettings(),
    "local_refinement": LocalRefinementSettings(),
    "nsga2": Nsga2Settings(),
    "nsga3": Nsga3Settings(),
    "tpe": TpeSettings(),
    "gp": GpSettings(startup=12, window=48),
    "task_models": TaskModelsSettings(searches=10, steps=12, window=60, fit_window=60),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "gp" else ()) for n in FRONT]
)
def test_a_better_front_than_that_of_random_search(name: str) -> None:
    num_use, others_D = 3, np.linspace(0.2, 0.8, 6)
    # Models take their time.
    num, seeds = {"gp": (48, 1), "tpe": (192, 2), "task_models": (64, 3)}.get(name, (192, 5))

    def score(index: int, vector: FloatArray) -> Outcome:
        """Quality saturates in use, and the other entries have an optimum of their own."""
        use = float(vector[:num_use].mean())
        regret = float(np.square(vector[num_use:] - others_D).mean())
        quality = use * (2.0 - use) - 3.0 * regret
        return Outcome(index=index, vector=vector, quality=quality, cost=use)

    def front_of(strategy: Strategy) -> float:
        outcomes = [
            score(i, vector) for i, vector in enumerate(propose(strategy, num, score=score))
        ]
        quality, cost = zip(*(outcome.scores() for outcome in outcomes), strict=True)
        return hypervolume(quality, cost, reference=(-0.5, 1.1))

    gains = []
    for seed in range(seeds):
        problem = dataclasses.replace(make_problem(9, seed), baselines={}, initial=16)
        found = front_of(STRATEGIES[name].build(problem, FRONT[name]))
        gains.append(found - front_of(random_search(problem)))
    # Over ten seeds (TPE 5, models of tasks 6, Gaussian processes 2) gains had a mean from 0.032
    # (regularised evolution) to 0.102 and a standard deviation from 0.008 to 0.024; random search
    # reaches 0.61 to 0.69.
    assert np.mean(gains) > 0.02
