"""Regularised evolution: mutation, tournaments, and death of old age (Real et al. 2019).

Real et al. (2019, algorithm 1) keep a population of the P youngest. In every cycle S members are
drawn at random, a mutated copy of the best of them joins, and the oldest member dies, however good:
what survives must be good again and again, not once by luck.

Differs from the paper, which has one objective and categorical choices: the best of a tournament
is the first by non-domination rank in the population and, within a rank, by room on its front
(Deb et al. 2002), so that no weight between quality and cost has to be set; a mutation moves a few
entries by Gaussian steps. The population grows from the initial batch, and cycles run in batches
whose parents are drawn from one population, so that the order in which outcomes arrive changes
nothing.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray
from search.candidates import best_first
from search.strategies.batches import next_index
from search.strategies.protocol import Outcome, Problem
from search.strategies.random_search import uniform_vectors
from search.strategies.streams import Stream, generator


@dataclass(frozen=True, kw_only=True)
class RegularisedEvolutionSettings:
    """Settings of regularised evolution.

    Attributes:
        population: Members P, at least 2.
        tournament: Members S of a tournament, from 1 (a random parent) to P.
        entries: How many entries a mutation moves; at least 1, and all where there are fewer.
        step_size: Standard deviation of a mutation, as a share of an entry's range; positive.
        batch: Candidates per batch, at least 1.

    Raises:
        ValueError: If a value is outside its range.
    """

    population: int = 32
    tournament: int = 8
    entries: int = 3
    step_size: float = 0.3
    batch: int = 8

    def __post_init__(self) -> None:
        if self.population < 2:
            raise ValueError(f"population must be at least 2, got {self.population}")
        if not 1 <= self.tournament <= self.population:
            raise ValueError(
                f"tournament must be from 1 to population = {self.population}, "
                f"got {self.tournament}"
            )
        if self.entries < 1 or self.batch < 1:
            raise ValueError(
                f"entries and batch must be at least 1, got {self.entries} and {self.batch}"
            )
        if not (self.step_size > 0.0 and math.isfinite(self.step_size)):
            raise ValueError(f"step_size must be positive and finite, got {self.step_size}")


class RegularisedEvolution:
    """An ageing population, which learns from batches.

    Failed candidates do not join; while nothing has joined, uniform vectors are drawn.
    """

    def __init__(self, problem: Problem, settings: RegularisedEvolutionSettings) -> None:
        self._problem = problem
        self._settings = settings
        self._number = 0
        self._population: deque[Outcome] = deque(maxlen=settings.population)  # the oldest first

    def learn(self, batch: list[Outcome]) -> list[FloatArray]:
        """Lets the batch join, and breeds mutants of tournament winners."""
        settings = self._settings
        self._population.extend(outcome for outcome in batch if not outcome.failed)
        if not self._population:
            return uniform_vectors(self._problem, next_index(batch), settings.batch)
        rng = generator(self._problem.seed, Stream.REGULARISED_EVOLUTION, self._number)
        self._number += 1
        scores_N2 = np.array([outcome.scores() for outcome in self._population])
        order_N = best_first(scores_N2[:, 0], scores_N2[:, 1])
        drawn = min(settings.tournament, len(order_N))
        children = []
        for _ in range(settings.batch):
            place = rng.choice(len(order_N), drawn, replace=False).min()
            parent = self._population[order_N[place]]
            children.append(self._mutated(np.asarray(parent.vector), rng))
        return children

    def _mutated(self, vector: FloatArray, rng: np.random.Generator) -> FloatArray:
        settings = self._settings
        num = min(settings.entries, len(vector))
        moved = rng.choice(len(vector), num, replace=False)
        child = vector.copy()
        child[moved] += settings.step_size * rng.standard_normal(num)
        return np.clip(child, 0.0, 1.0)
