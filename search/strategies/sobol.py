"""Quasi-random search: scrambled Sobol points, which leave fewer holes than uniform ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch.quasirandom import SobolEngine

from partitioning import FloatArray
from search.strategies.coordinates import Coordinates
from search.strategies.fixed_sequence import FixedSequence
from search.strategies.protocol import Problem
from search.strategies.streams import Stream, seed_of


@dataclass(frozen=True, kw_only=True)
class SobolSettings:
    """Settings of quasi-random search.

    Attributes:
        uniform: Spread points over the entries of vectors. Without it the mean use has a coordinate
            of its own, see `random`.
    """

    uniform: bool = False


def sobol_points(problem: Problem, settings: SobolSettings) -> FixedSequence:
    """Makes the strategy of the initial batch, then of a scrambled Sobol sequence (Owen 1998).

    Any 2^k points from the sequence's start are spread evenly over every coordinate: one of them
    lies in each of 2^k equal parts of [0, 1].
    """
    coordinates = Coordinates(problem=problem, uniform=settings.uniform)
    seed = seed_of(problem.seed, Stream.SOBOL)
    engine = SobolEngine(coordinates.dim, scramble=True, seed=seed)
    points = chain(coordinates.points(0, problem.initial), _points(engine))
    return FixedSequence(coordinates.vector(point) for point in points)


def _points(engine: SobolEngine) -> Iterator[FloatArray]:
    while True:
        yield engine.draw(1, dtype=torch.float64)[0].numpy()
