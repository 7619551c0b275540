"""Uniform random search: the baseline that every other strategy has to beat."""

from dataclasses import dataclass
from itertools import count

from partitioning import FloatArray
from search.strategies.fixed_sequence import FixedSequence
from search.strategies.protocol import Problem
from search.strategies.streams import Stream, generator


def uniform_vector(seed: int, index: int, dim: int) -> FloatArray:
    """Draws the index-th uniform vector of a seed, a function of its arguments alone.

    Args:
        seed: Not negative.
        index: Position in the sequence, from 0.
        dim: Number d of entries.

    Returns:
        Shape (d,), entries in [0, 1).

    Example:
        >>> uniform_vector(0, 3, 2).tolist() == uniform_vector(0, 3, 2).tolist()
        True
    """
    return generator(seed, Stream.UNIFORM, index).random(dim)


def uniform_vectors(problem: Problem, start: int, num: int) -> list[FloatArray]:
    """The uniform vectors of a problem's seed from the start-th on, `num` of them."""
    return [uniform_vector(problem.seed, i, problem.dim) for i in range(start, start + num)]


@dataclass(frozen=True, kw_only=True)
class RandomSettings:
    """Random search has nothing to set."""


def random_vectors(problem: Problem, settings: RandomSettings) -> FixedSequence:
    """Makes the strategy that proposes uniform vectors for ever."""
    return FixedSequence(uniform_vector(problem.seed, i, problem.dim) for i in count())
