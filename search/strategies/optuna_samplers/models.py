"""Strategies that model the outcomes so far: Optuna's TPE and Gaussian processes.

Both propose a batch, wait for it, and begin anew: a fresh sampler of its own seed is shown the
outcomes, so that a batch depends on them and on its number alone. Within a batch the sampler
knows of the proposals still under way (TPE counts them among the bad, the Gaussian processes take
the expected improvement of the whole batch).

TPE is multi-objective as in Ozaki et al. (2022, "Multiobjective tree-structured Parzen estimator"):
what counts as good is chosen by non-domination rank and within a rank by hypervolume. The Gaussian
processes, one per objective, propose where the logarithm of the expected hypervolume improvement is
largest (Daulton et al. 2020; Ament et al. 2023).

The optimum of an acquisition function depends on the last bits of linear algebra, so a search by
Gaussian processes can be resumed only on the kind of processor that it was begun on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from optuna.samplers import BaseSampler, GPSampler, TPESampler

from partitioning import FloatArray
from partitioning.settings import Unit, at_least, checked
from search.strategies.batches import Batches, next_index
from search.strategies.coordinates import Coordinates
from search.strategies.optuna_samplers.memory_study import MemoryStudy, quiet
from search.strategies.protocol import Outcome, Problem
from search.strategies.streams import Stream, seed_of
from search.strategies.window import window


@dataclass(frozen=True, kw_only=True)
@checked()
class TpeSettings:
    """Settings of the tree-structured Parzen estimator.

    Attributes:
        batch: Candidates per batch.
        startup: Outcomes from which on it models; before that it draws uniformly.
        window: How many outcomes it is shown: the best half and the newest.
        acquisition: Points drawn from the density of the good, of which it proposes the best.
        multivariate: Model the entries together: several times faster, but no better than random
            search on a front of which both ends matter.
        uniform: Search the entries of vectors as they are. Without it the mean use has a coordinate
            of its own, so that the whole range of cost is as likely from the start.

    Raises:
        ValueError: A value is outside its range.
    """

    batch: Annotated[int, at_least(1), Unit("candidates")] = 8
    startup: Annotated[int, at_least(1), Unit("outcomes")] = 10
    window: Annotated[int, at_least(2), at_least("startup"), Unit("outcomes")] = 250
    acquisition: Annotated[int, at_least(1), Unit("points")] = 24
    multivariate: bool = False
    uniform: bool = False


@dataclass(frozen=True, kw_only=True)
@checked()
class GpSettings:
    """Settings of the Gaussian processes.

    Time per proposal grows with `window` squared and more: one takes a second or two.

    Attributes:
        batch: Candidates per batch.
        startup: Outcomes from which on it models; before that it draws uniformly.
        window: How many outcomes it is shown: the best half and the newest.
        uniform: As of `tpe`.

    Raises:
        ValueError: A value is outside its range.
    """

    batch: Annotated[int, at_least(1), Unit("candidates")] = 8
    startup: Annotated[int, at_least(2), Unit("outcomes")] = 10
    window: Annotated[int, at_least("startup"), Unit("outcomes")] = 100
    uniform: bool = False


class ModelBased:
    """Batches from a sampler that is shown the outcomes so far; failed candidates teach nothing.

    Args:
        coordinates: Of the problem; the sampler searches them.
        make: Makes the sampler from a seed.
        stream: That of its seeds.
        batch: Candidates per batch, at least 1.
        shown: How many outcomes the sampler is shown, at least 2; see `window`.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        make: Callable[[int], BaseSampler],
        *,
        stream: Stream,
        batch: int,
        shown: int,
    ) -> None:
        self._coordinates = coordinates
        self._make = make
        self._stream = stream
        self._batch = batch
        self._shown = shown
        self._number = 0
        self._alive: list[Outcome] = []
        #: Points by the index of the candidate.
        self._points = dict(enumerate(coordinates.points(0, coordinates.problem.initial)))

    def learn(self, batch: list[Outcome]) -> list[FloatArray]:
        """Shows a fresh sampler a window of the outcomes and has it propose a batch."""
        self._alive += [outcome for outcome in batch if not outcome.failed]
        seed = seed_of(self._coordinates.problem.seed, self._stream, self._number)
        self._number += 1
        with quiet():
            study = MemoryStudy(self._coordinates.dim, self._make(seed))
        for outcome in window(self._alive, self._shown):
            study.add(self._points[outcome.index], outcome.scores())
        points = [study.ask()[1] for _ in range(self._batch)]
        self._points |= dict(enumerate(points, start=next_index(batch)))
        return [self._coordinates.vector(point) for point in points]


def tpe(problem: Problem, settings: TpeSettings) -> Batches[ModelBased]:
    """Makes the strategy of Optuna's TPE."""

    def make(seed: int) -> BaseSampler:
        return TPESampler(
            n_startup_trials=settings.startup,
            n_ei_candidates=settings.acquisition,
            multivariate=settings.multivariate,
            constant_liar=True,
            seed=seed,
        )

    return _batches(problem, settings, make, Stream.TPE)


def gp(problem: Problem, settings: GpSettings) -> Batches[ModelBased]:
    """Makes the strategy of Optuna's Gaussian processes."""

    def make(seed: int) -> BaseSampler:
        return GPSampler(
            n_startup_trials=settings.startup, warn_independent_sampling=False, seed=seed
        )

    return _batches(problem, settings, make, Stream.GP)


def _batches(
    problem: Problem,
    settings: TpeSettings | GpSettings,
    make: Callable[[int], BaseSampler],
    stream: Stream,
) -> Batches[ModelBased]:
    coordinates = Coordinates(problem=problem, uniform=settings.uniform)
    learner = ModelBased(
        coordinates, make, stream=stream, batch=settings.batch, shown=settings.window
    )
    return Batches(problem, learner, coordinates=coordinates)
