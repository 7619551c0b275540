"""Uniform random search: the baseline that every other strategy has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray
from search.strategies.ledger import Ledger
from search.strategies.protocol import Outcome, Problem

# First word of the spawn key, so that no two strategies draw from one stream of a seed.
STREAM = 0


def uniform_vector(seed: int, index: int, dim: int) -> FloatArray:
    """Draws the index-th uniform vector of a seed, a function of its arguments alone.

    Args:
        seed: Not negative.
        index: Position in the sequence, from 0.
        dim: Number d of entries.

    Returns:
        Shape (d,), entries in [0, 1).

    Example:
        >>> bool(np.array_equal(uniform_vector(0, 3, 2), uniform_vector(0, 3, 2)))
        True
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(STREAM, index))
    return np.random.default_rng(sequence).random(dim)


def uniform_vectors(problem: Problem, start: int, num: int) -> list[FloatArray]:
    """The uniform vectors of a problem's seed from the start-th on, `num` of them."""
    return [uniform_vector(problem.seed, i, problem.dim) for i in range(start, start + num)]


@dataclass(frozen=True, kw_only=True)
class RandomSettings:
    """Random search has nothing to set."""


class RandomSearch:
    """Proposes uniform vectors for ever and learns nothing."""

    def __init__(self, problem: Problem, settings: RandomSettings) -> None:
        self._problem = problem
        self._settings = settings
        self._ledger = Ledger()

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes n vectors."""
        self._ledger.queue(uniform_vectors(self._problem, self._ledger.asked, n))
        return self._ledger.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Checks the outcomes off.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal.
        """
        self._ledger.tell(outcomes)
        self._ledger.drain()
