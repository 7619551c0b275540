"""Random search over the whole range of cost: what every other strategy has to beat."""

from dataclasses import dataclass
from itertools import count

from search.strategies.coordinates import Coordinates
from search.strategies.fixed_sequence import FixedSequence
from search.strategies.protocol import Problem


@dataclass(frozen=True, kw_only=True)
class RandomSettings:
    """Settings of random search.

    Attributes:
        uniform: Draw every entry uniformly, on its own. Mean uses are then nearly always about a
            half, so that hardly any candidate is cheap. Without it, mean uses are spread evenly
            over the range that is searched.
    """

    uniform: bool = False


def random_vectors(problem: Problem, settings: RandomSettings) -> FixedSequence:
    """Makes the strategy that proposes random vectors for ever."""
    coordinates = Coordinates(problem=problem, uniform=settings.uniform)
    return FixedSequence(coordinates.vector(coordinates.point(i)) for i in count())
