"""Coordinates in which the whole range of mean use is equally likely, and random points of them.

The mean of many uniform uses is nearly always about a half, so uniform vectors hardly ever cost
little or much. Here the mean use has a coordinate of its own. A point holds it first, then the
entries of a vector, whose uses are moved together until their mean is the one asked for: scaled
down towards 0, or their distances from 1 scaled down, which keeps their order and reaches every
vector (one whose uses have the mean already stays as it is). Where uses come in steps, they are
rounded together, so that their mean is right to one step of one of them.

Legend: d entries of a vector, n of them uses.
"""

from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray
from search.strategies.protocol import Problem
from search.strategies.streams import Stream, generator

#: The fractional parts of its multiples leave no large gap, however many there are.
GOLDEN_RATIO = (1 + 5**0.5) / 2


def uses_of_mean(use_n: FloatArray, mean: float, steps: int | None = None) -> FloatArray:
    """Uses moved together to a given mean, (n,) in [0, 1].

    Args:
        use_n: In [0, 1], at least one.
        mean: In [0, 1].
        steps: Of the uses, which are then rounded to these, see `in_steps`; None where every value
            means another use.

    Example:
        >>> uses_of_mean(np.array([0.2, 0.6]), 0.2), uses_of_mean(np.array([0.2, 0.6]), 0.7)
        (array([0.1, 0.3]), array([0.6, 0.8]))
    """
    now = float(use_n.mean())
    if mean > now:
        use_n = 1 - (1 - use_n) * ((1 - mean) / (1 - now))
    elif now > 0:
        use_n = use_n * (mean / now)
    return in_steps(use_n, steps) if steps else use_n


def in_steps(use_n: FloatArray, steps: int) -> FloatArray:
    """The middles of the steps that have the nearest mean, each next to its use, (n,) in [0, 1].

    Entry i means step floor(steps u_i), and the lowest and highest steps stand for uses 0 and 1.

    Args:
        use_n: In [0, 1].
        steps: Number of steps, at least 1.

    Example:
        >>> in_steps(np.array([0.5, 0.5, 0.0]), 2)
        array([0.75, 0.25, 0.25])
    """
    # Rounded sums differ by what each adds: no error builds up over the entries.
    sums_n = np.floor(np.cumsum((steps - 1) * use_n) + 0.5)
    return np.asarray((np.diff(sums_n, prepend=0.0) + 0.5) / steps, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """What points of a unit cube mean as vectors of a problem.

    Attributes:
        problem: Whose vectors.
        uniform: Whether points are the vectors themselves; so they are, too, in a space without
            uses.
    """

    problem: Problem
    uniform: bool = False

    @property
    def plain(self) -> bool:
        """Whether points are vectors."""
        return self.uniform or not self.problem.use_dims

    @property
    def dim(self) -> int:
        """Entries of a point: d, and the mean use."""
        return self.problem.dim + (not self.plain)

    def vector(self, point: FloatArray) -> FloatArray:
        """The vector of a point.

        Args:
            point: Shape (`dim`,), entries in [0, 1].

        Returns:
            Shape (d,), entries in [0, 1].
        """
        if self.plain:
            return point.copy()
        vector = point[1:].copy()
        dims = list(self.problem.use_dims)
        vector[dims] = uses_of_mean(vector[dims], float(point[0]), self.problem.use_steps)
        return np.clip(vector, 0.0, 1.0)

    def point(self, index: int) -> FloatArray:
        """The index-th random point of the problem's seed, shape (`dim`,), entries in [0, 1).

        Entries are uniform; the mean uses of consecutive points fill their range evenly.
        """
        seed = self.problem.seed
        if self.plain:
            return generator(seed, Stream.UNIFORM, index).random(self.dim)
        point = generator(seed, Stream.EVEN, 1 + index).random(self.dim)
        first = float(generator(seed, Stream.EVEN, 0).random())
        point[0] = (first + index * GOLDEN_RATIO) % 1
        return point

    def points(self, start: int, num: int) -> list[FloatArray]:
        """`num` random points from the start-th on."""
        return [self.point(index) for index in range(start, start + num)]

    def vectors(self, start: int, num: int) -> list[FloatArray]:
        """The vectors of these points."""
        return [self.vector(point) for point in self.points(start, num)]


def random_vectors(problem: Problem, start: int, num: int) -> list[FloatArray]:
    """The random vectors that all strategies of a seed share, `num` from the start-th on."""
    return Coordinates(problem=problem).vectors(start, num)
