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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from optuna.samplers import BaseSampler, GPSampler, TPESampler

from partitioning import FloatArray
from partitioning.settings import Unit, at_least, checked
from search.candidates import best_first
from search.strategies.ledger import Ledger
from search.strategies.optuna_samplers.memory_study import MemoryStudy, quiet, sampler_seed
from search.strategies.protocol import Outcome, Problem
from search.strategies.random_search import uniform_vectors

TPE_STREAM = 10
GP_STREAM = 11


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

    Raises:
        ValueError: A value is outside its range.
    """

    batch: Annotated[int, at_least(1), Unit("candidates")] = 8
    startup: Annotated[int, at_least(1), Unit("outcomes")] = 10
    window: Annotated[int, at_least(2), at_least("startup"), Unit("outcomes")] = 250
    acquisition: Annotated[int, at_least(1), Unit("points")] = 24
    multivariate: bool = False


@dataclass(frozen=True, kw_only=True)
@checked()
class GpSettings:
    """Settings of the Gaussian processes.

    Time per proposal grows with `window` squared and more, and with the last three.

    Attributes:
        batch: Candidates per batch.
        startup: Outcomes from which on it models; before that it draws uniformly.
        window: How many outcomes it is shown: the best half and the newest.
        acquisition: Quasi-random points at which the acquisition function is looked at.
        searches: Gradient ascents of the acquisition function, from the best of these points and
            from members of the front.
        samples: Quasi-random samples that the expectation is the mean of.

    Raises:
        ValueError: A value is outside its range.
    """

    batch: Annotated[int, at_least(1), Unit("candidates")] = 8
    startup: Annotated[int, at_least(2), Unit("outcomes")] = 10
    window: Annotated[int, at_least("startup"), Unit("outcomes")] = 100
    acquisition: Annotated[int, at_least(2), Unit("points")] = 512
    searches: Annotated[int, at_least(2)] = 4
    samples: Annotated[int, at_least(1)] = 64


def window(outcomes: Sequence[Outcome], size: int) -> list[Outcome]:
    """Which outcomes to model where there are too many: the best half and the newest.

    The best by non-domination rank, within a rank by room on the front; the rest of the window is
    of the newest others.

    Args:
        outcomes: In the order of asking, none of them failed.
        size: How many to keep.

    Returns:
        At most size of them, in the order of asking.
    """
    if len(outcomes) <= size:
        return list(outcomes)
    scores_N2 = np.array([outcome.scores() for outcome in outcomes])
    best = best_first(scores_N2[:, 0], scores_N2[:, 1])[: size // 2]
    others = np.setdiff1d(np.arange(len(outcomes)), best)
    return [outcomes[i] for i in np.union1d(best, others[size // 2 - size :])]


class ModelBased:
    """Batches from a sampler that is shown the outcomes so far.

    Asks for a whole batch, then waits: `ask` returns nothing while outcomes of a batch are
    outstanding. Failed candidates teach nothing.

    Args:
        problem: What to search.
        make: Makes the sampler from a seed.
        stream: First word of the spawn key of its seeds.
        batch: Candidates per batch, at least 1.
        shown: How many outcomes the sampler is shown, at least 2; see `window`.
    """

    def __init__(
        self,
        problem: Problem,
        make: Callable[[int], BaseSampler],
        *,
        stream: int,
        batch: int,
        shown: int,
    ) -> None:
        self._problem = problem
        self._make = make
        self._stream = stream
        self._batch = batch
        self._shown = shown
        self._number = 0
        self._alive: list[Outcome] = []
        self._ledger = Ledger()
        self._ledger.queue(uniform_vectors(problem, 0, problem.initial))

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes the next at most n vectors of the batch; none while it is outstanding."""
        return self._ledger.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in outcomes, and models them once the batch is complete.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal.
        """
        self._ledger.tell(outcomes)
        if not self._ledger.complete:
            return
        self._alive += [outcome for outcome in self._ledger.drain() if not outcome.failed]
        seed = sampler_seed(self._problem.seed, self._stream, self._number)
        self._number += 1
        with quiet():
            study = MemoryStudy(self._problem.dim, self._make(seed))
        for outcome in window(self._alive, self._shown):
            study.add(outcome.vector, outcome.scores())
        self._ledger.queue(study.ask()[1] for _ in range(self._batch))


def tpe(problem: Problem, settings: TpeSettings) -> ModelBased:
    """Makes the strategy of Optuna's TPE."""

    def make(seed: int) -> BaseSampler:
        return TPESampler(
            n_startup_trials=settings.startup,
            n_ei_candidates=settings.acquisition,
            multivariate=settings.multivariate,
            constant_liar=True,
            seed=seed,
        )

    return ModelBased(problem, make, stream=TPE_STREAM, batch=settings.batch, shown=settings.window)


def gp(problem: Problem, settings: GpSettings) -> ModelBased:
    """Makes the strategy of Optuna's Gaussian processes."""

    def make(seed: int) -> BaseSampler:
        sampler = GPSampler(
            n_startup_trials=settings.startup, warn_independent_sampling=False, seed=seed
        )
        # Optuna has no public way to set them, and its own are made for tens of trials.
        sampler._n_preliminary_samples = settings.acquisition
        sampler._n_local_search = settings.searches
        sampler._n_qmc_samples_ehvi = settings.samples
        return sampler

    return ModelBased(problem, make, stream=GP_STREAM, batch=settings.batch, shown=settings.window)
