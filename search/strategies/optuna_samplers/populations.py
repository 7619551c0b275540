r"""Strategies of populations: Optuna's NSGA-II, NSGA-III and CMA-ES.

A generation is asked for as a whole and told as a whole, in the order of asking. Where candidates
of a generation fail, as many are asked for again, and the next one begins once it is complete.

NSGA-II (Deb et al. 2002) and NSGA-III (Deb and Jain 2014) keep the best of all generations as
parents, by non-domination rank and, within a rank, by crowding or by reference points. The initial
batch is their generation 0; where it is smaller than the population, uniform draws fill it up.

CMA-ES (Hansen 2016) knows one objective. So there is one per cost weight $\rho_i$, all of them in
the same search, which ascends the reward of the policy-gradient agent, $r = q - \rho_i u^2$ with
quality q and cost u: each goes for another part of the front, and weights mean the same in both
strategies. Each starts from the best of the initial batch by its own reward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Annotated

from optuna.samplers import CmaEsSampler, NSGAIIISampler, NSGAIISampler

from partitioning import FloatArray
from partitioning.settings import (
    DIFFERENT,
    NOT_NEGATIVE,
    POSITIVE,
    Unit,
    at_least,
    checked,
    each,
    interval,
)
from search.strategies.batches import Batches
from search.strategies.coordinates import Coordinates
from search.strategies.optuna_samplers.memory_study import REWARD, MemoryStudy, parameters, quiet
from search.strategies.protocol import Outcome, Problem
from search.strategies.streams import Stream, seed_of

#: The point of a candidate, and what became of it.
Told = tuple[FloatArray, Outcome]


@dataclass(frozen=True, kw_only=True)
@checked()
class Nsga2Settings:
    """Settings of NSGA-II and, with more, of NSGA-III.

    Attributes:
        population: Size of a generation and number of parents kept.
        mutation: Probability that an entry of a child is drawn anew, uniformly. None means 1 / d, d
            being the number of entries.
        crossover: Probability that a child has two parents.
        swapping: Probability that an entry comes from the second parent.
        uniform: As of `tpe`.

    Raises:
        ValueError: A value is outside its range.
    """

    population: Annotated[int, at_least(2), Unit("candidates")] = 16
    mutation: Annotated[float | None, interval("[0, 1]")] = None
    crossover: Annotated[float, interval("[0, 1]")] = 0.9
    swapping: Annotated[float, interval("[0, 1]")] = 0.5
    uniform: bool = False


@dataclass(frozen=True, kw_only=True)
class Nsga3Settings(Nsga2Settings):
    """Settings of NSGA-III: those of NSGA-II, and its reference points.

    Attributes:
        divisions: Into how many parts the reference points divide the line between the objectives.
            Optuna's own default, 3, is meant for more objectives.

    Raises:
        ValueError: A value is outside its range.
    """

    divisions: Annotated[int, at_least(1)] = 15


@dataclass(frozen=True, kw_only=True)
@checked()
class CmaEsSettings:
    """Settings of CMA-ES.

    Attributes:
        cost_weights: Cost weights rho: quality given up for the use of all channels. A generation
            is cost weights x population candidates.
        population: Candidates per cost weight and generation.
        step_size: Initial standard deviation of an entry, as a share of its range.
        uniform: As of `tpe`.

    Raises:
        ValueError: A value is outside its range.
    """

    cost_weights: Annotated[tuple[float, ...], DIFFERENT, each(NOT_NEGATIVE)] = (0.0, 0.1, 0.4)
    population: Annotated[
        int, at_least(4, "of fewer, the covariance would be learnt from one parent")
    ] = 8
    step_size: Annotated[float, POSITIVE] = 0.2
    uniform: bool = False


class Population:
    """One study of a sampler that waits until a generation has its size.

    Args:
        study: Of that sampler.
        size: How many outcomes complete a generation.
        score: The study's objectives of an outcome that has not failed.
        alive: How many of the current generation are there already.
    """

    def __init__(
        self,
        study: MemoryStudy,
        size: int,
        score: Callable[[Outcome], tuple[float, ...]],
        alive: int = 0,
    ) -> None:
        self._study = study
        self._size = size
        self._score = score
        self._alive = alive

    def ask(self) -> list[tuple[int, FloatArray]]:
        """Proposes what the generation lacks; a whole one if the last is complete."""
        if self._alive >= self._size:
            self._alive = 0
        return [self._study.ask() for _ in range(self._size - self._alive)]

    def tell(self, number: int, outcome: Outcome) -> None:
        """Takes in what became of the trial of that number."""
        self._alive += not outcome.failed
        self._study.tell(number, None if outcome.failed else self._score(outcome))


class Generations:
    """Whole generations of one or more populations, turn by turn.

    Args:
        coordinates: Of the problem; the populations live in them.
        start: Makes the populations from the initial batch: the point and the outcome of all that
            have not failed.
    """

    def __init__(self, coordinates: Coordinates, start: Callable[[list[Told]], list[Population]]):
        self._coordinates = coordinates
        self._start = start
        self._populations: list[Population] = []
        #: Population and trial of every candidate that is out; none of the initial batch.
        self._trials: list[tuple[Population, int]] = []

    def learn(self, batch: list[Outcome]) -> list[FloatArray]:
        """Tells every population what became of its trials, and asks all of them for the next."""
        if self._populations:
            for (population, number), outcome in zip(self._trials, batch, strict=True):
                population.tell(number, outcome)
        else:
            points = self._coordinates.points(0, len(batch))
            told = zip(points, batch, strict=True)
            self._populations = self._start([each for each in told if not each[1].failed])
        # Turn by turn, so that a generation cut off by the end of the search covers all alike.
        lists = [[(p, *asked) for asked in p.ask()] for p in self._populations]
        turns = [asked for turn in zip_longest(*lists) for asked in turn if asked is not None]
        self._trials = [(population, number) for population, number, _ in turns]
        return [self._coordinates.vector(point) for _, _, point in turns]


def nsga2(problem: Problem, settings: Nsga2Settings) -> Batches[Generations]:
    """Makes the strategy of Optuna's NSGA-II."""
    sampler = NSGAIISampler(
        population_size=settings.population,
        mutation_prob=settings.mutation,
        crossover_prob=settings.crossover,
        swapping_prob=settings.swapping,
        seed=seed_of(problem.seed, Stream.NSGA2),
    )
    return _nsga(problem, settings, sampler)


def nsga3(problem: Problem, settings: Nsga3Settings) -> Batches[Generations]:
    """Makes the strategy of Optuna's NSGA-III."""
    with quiet():
        sampler = NSGAIIISampler(
            population_size=settings.population,
            mutation_prob=settings.mutation,
            crossover_prob=settings.crossover,
            swapping_prob=settings.swapping,
            dividing_parameter=settings.divisions,
            seed=seed_of(problem.seed, Stream.NSGA3),
        )
    return _nsga(problem, settings, sampler)


def _nsga(
    problem: Problem, settings: Nsga2Settings, sampler: NSGAIISampler | NSGAIIISampler
) -> Batches[Generations]:
    coordinates = Coordinates(problem=problem, uniform=settings.uniform)

    def start(alive: list[Told]) -> list[Population]:
        study = MemoryStudy(coordinates.dim, sampler)
        # All before any is told, or those beyond the size of a population would be of generation 1.
        numbers = [study.propose(point) for point, _ in alive]
        for number, (_, outcome) in zip(numbers, alive, strict=True):
            study.tell(number, outcome.scores())
        return [Population(study, settings.population, Outcome.scores, len(alive))]

    return Batches(problem, Generations(coordinates, start), coordinates=coordinates)


def cma_es(problem: Problem, settings: CmaEsSettings) -> Batches[Generations]:
    """Makes the strategy of Optuna's CMA-ES, one per cost weight."""
    coordinates = Coordinates(problem=problem, uniform=settings.uniform)

    def start(alive: list[Told]) -> list[Population]:
        weights = range(len(settings.cost_weights))
        return [_cma_es(coordinates, settings, which, alive) for which in weights]

    return Batches(problem, Generations(coordinates, start), coordinates=coordinates)


def _cma_es(
    coordinates: Coordinates, settings: CmaEsSettings, which: int, alive: list[Told]
) -> Population:
    def reward(outcome: Outcome) -> tuple[float]:
        quality, cost = outcome.scores()
        return (quality - settings.cost_weights[which] * cost**2,)

    best = max(alive, key=lambda told: reward(told[1]), default=None)  # the first of equals
    with quiet():
        sampler = CmaEsSampler(
            x0=None if best is None else parameters(best[0]),
            sigma0=settings.step_size,
            n_startup_trials=0,
            warn_independent_sampling=False,
            seed=seed_of(coordinates.problem.seed, Stream.CMA_ES, which),
            popsize=settings.population,
        )
    study = MemoryStudy(coordinates.dim, sampler, REWARD)
    for point, outcome in alive:  # Optuna draws uniformly until a trial tells it the search space
        study.add(point, reward(outcome))
    return Population(study, settings.population, reward)
