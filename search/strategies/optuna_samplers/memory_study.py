"""Optuna's studies in memory, for the strategies that are Optuna's samplers."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from partitioning import FloatArray

BOTH = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # quality and cost
REWARD = (StudyDirection.MAXIMIZE,)


def parameters(vector: FloatArray) -> dict[str, float]:
    """A vector of shape (d,) as Optuna's parameters."""
    return {f"x{i:04}": float(value) for i, value in enumerate(vector)}


class MemoryStudy:
    """An Optuna study of points of the unit cube that lives in memory and speaks of vectors.

    Args:
        dim: Number d of entries.
        sampler: Proposes; it must not belong to another study.
        directions: Of the objectives.
    """

    def __init__(
        self, dim: int, sampler: BaseSampler, directions: Sequence[StudyDirection] = BOTH
    ) -> None:
        self._distributions = dict.fromkeys(parameters(np.zeros(dim)), FloatDistribution(0.0, 1.0))
        with quiet():
            self._study = optuna.create_study(sampler=sampler, directions=directions)

    def add(self, vector: FloatArray, values: Sequence[float]) -> None:
        """Adds a finished trial that was not asked for.

        Args:
            vector: Shape (d,), entries in [0, 1].
            values: One per objective, finite.
        """
        self._study.add_trial(
            optuna.trial.create_trial(
                params=parameters(vector),
                distributions=dict(self._distributions),
                values=list(values),
            )
        )

    def propose(self, vector: FloatArray) -> int:
        """Begins a trial of a given vector, as if the study's genetic sampler had proposed it.

        Args:
            vector: Shape (d,), entries in [0, 1].

        Returns:
            The trial's number.
        """
        sampler = self._study.sampler
        assert isinstance(sampler, BaseGASampler)
        with quiet():
            self._study.enqueue_trial(parameters(vector))
            number = self._study.ask(dict(self._distributions)).number
        # Which also notes it down; a trial without a generation would never be a parent.
        sampler.get_trial_generation(self._study, self._study.trials[number])
        return number

    def ask(self) -> tuple[int, FloatArray]:
        """Proposes: the trial's number and its vector, shape (d,)."""
        with quiet():
            trial = self._study.ask(dict(self._distributions))
        return trial.number, np.array([trial.params[name] for name in self._distributions])

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        """Tells what became of a trial: one finite value per objective, or None of a failed one."""
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        self._study.tell(number, None if values is None else list(values), state)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what Optuna has to say to its own users off the screen.

    These are notes of every new study, that an argument is experimental or deprecated, and that
    Gaussian processes have converged: where all but one of their acquisition values underflow,
    Optuna divides zero by zero and then starts no further ascents.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "`(x0|sigma0)` has been deprecated", FutureWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
