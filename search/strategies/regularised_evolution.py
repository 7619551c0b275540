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

from collections import deque
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning import FloatArray
from partitioning.settings import POSITIVE, Unit, at_least, between, checked
from search.candidates import best_first
from search.strategies.batches import next_index
from search.strategies.coordinates import random_vectors
from search.strategies.protocol import Outcome, Problem
from search.strategies.streams import Stream, generator


@dataclass(frozen=True, kw_only=True)
@checked()
class RegularisedEvolutionSettings:
    """Settings of regularised evolution.

    Attributes:
        population: Members P.
        tournament: Members S of a tournament, from 1 (a random parent) to P.
        entries: How many entries a mutation moves; all where there are fewer.
        step_size: Standard deviation of a mutation, as a share of an entry's range.
        batch: Candidates per batch.

    Raises:
        ValueError: A value is outside its range.
    """

    population: Annotated[int, at_least(2), Unit("candidates")] = 32
    tournament: Annotated[int, between(1, "population"), Unit("candidates")] = 8
    entries: Annotated[int, at_least(1)] = 3
    step_size: Annotated[float, POSITIVE] = 0.3
    batch: Annotated[int, at_least(1), Unit("candidates")] = 8


class RegularisedEvolution:
    """An ageing population, which learns from batches.

    Failed candidates do not join; while nothing has joined, random vectors are drawn.
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
            return random_vectors(self._problem, next_index(batch), settings.batch)
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
