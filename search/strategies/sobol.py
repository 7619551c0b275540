"""Quasi-random search: scrambled Sobol points, which leave fewer holes than uniform ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch.quasirandom import SobolEngine

from partitioning import FloatArray
from search.strategies.fixed_sequence import FixedSequence
from search.strategies.protocol import Problem
from search.strategies.random_search import uniform_vectors
from search.strategies.streams import Stream, seed_of


@dataclass(frozen=True, kw_only=True)
class SobolSettings:
    """Quasi-random search has nothing to set."""


def sobol_points(problem: Problem, settings: SobolSettings) -> FixedSequence:
    """Makes the strategy of the initial batch, then of a scrambled Sobol sequence (Owen 1998).

    Any 2^k points from the sequence's start are spread evenly over every entry: one of them lies in
    each of 2^k equal parts of [0, 1].
    """
    seed = seed_of(problem.seed, Stream.SOBOL)
    points = _points(SobolEngine(problem.dim, scramble=True, seed=seed))
    return FixedSequence(chain(uniform_vectors(problem, 0, problem.initial), points))


def _points(engine: SobolEngine) -> Iterator[FloatArray]:
    while True:
        yield engine.draw(1, dtype=torch.float64)[0].numpy()
