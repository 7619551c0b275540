"""Random search over the whole range of cost: what every other strategy has to beat.

With fixed uses it draws what is left, how the tasks share: what of quality is due to sharing at one
cost (Newell et al. 2019, section 5.2 and figure 4, middle).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Annotated

from partitioning import FloatArray
from partitioning.settings import SOME, checked, each, interval
from search.strategies.coordinates import Coordinates
from search.strategies.fixed_sequence import FixedSequence
from search.strategies.protocol import Problem


@dataclass(frozen=True, kw_only=True)
@checked()
class RandomSettings:
    """Settings of random search.

    Attributes:
        uniform: Draw every entry uniformly, on its own. Mean uses are then nearly always about a
            half, so that hardly any candidate is cheap. Without it, mean uses are spread evenly
            over the range that is searched.
        use: Uses that every candidate has, while all other entries are drawn uniformly, the same
            ones for any `use`. One number for all uses, or one for each in their order, as shares
            of the range that is searched: 0 stands for its lowest use and 1 for its highest, so
            that with `space.use: [0, 1]` they are shares of the channels. None draws uses, too.
    """

    uniform: bool = False
    use: Annotated[tuple[float, ...] | None, SOME, each(interval("[0, 1]"))] = None

    def _check(self) -> None:
        if self.uniform and self.use is not None:
            raise ValueError(
                "uniform must be false where use is given, as uses are not drawn then, got true"
            )


def random_draws(problem: Problem, settings: RandomSettings) -> FixedSequence:
    """Makes the strategy that proposes random vectors for ever.

    Raises:
        ValueError: `use` has neither one number nor one for each use entry of the problem.
    """
    uniform = settings.uniform or settings.use is not None
    coordinates = Coordinates(problem=problem, uniform=uniform)
    vectors = (coordinates.vector(coordinates.point(i)) for i in count())
    if settings.use is None:
        return FixedSequence(vectors)
    dims = list(problem.use_dims)
    if not dims:
        raise ValueError("use must be null in a space without use entries")
    if len(settings.use) not in (1, len(dims)):
        raise ValueError(
            f"use must have one number, or one for each of the {len(dims)} use entries of the "
            f"space, got {len(settings.use)}"
        )
    return FixedSequence(_replaced(vector, dims, settings.use) for vector in vectors)


def _replaced(vector: FloatArray, dims: Sequence[int], use: Sequence[float]) -> FloatArray:
    """A vector, (d,), in which uses, one for all or one for each, stand at these positions."""
    vector[list(dims)] = use
    return vector
