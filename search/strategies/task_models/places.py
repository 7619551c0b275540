r"""Places: what gradient ascent moves, and what it means for vectors and for models of the tasks.

Where the vector is one sharing matrix, models see the matrix P that it asks for, eq. 4 of
`partitioning/sharing.py`: an overlap there means the same whatever the two tasks use. Not every P
can be realised by masks, so ascents do not move its entries but K soft channels, which task t uses
with the probability $m_{kt} \in [0, 1]$, all tasks independently:

    $P_{tt} = \frac{1}{K} \sum_k m_{kt}$,  $P_{tj} = \frac{1}{K} \sum_k m_{kt} m_{kj}$.

That is a mean of realisable matrices, so channels enough realise it. Use entries count as they
stand in the vector, 0 and 1 being the space's bounds. In other spaces models see the vector's
entries, and ascents move these.

Legend: M places, d entries of a vector or point, T tasks, K soft channels.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from partitioning import (
    FloatArray,
    entry_tasks,
    matrix_to_vector,
    refine,
    unrefine,
    vector_to_matrix,
)
from search.strategies.protocol import Problem


class Places(Protocol):
    """What ascents move, and how it hangs together with vectors and with what the models see."""

    def random(self, rng: np.random.Generator) -> FloatArray:
        """Draws a place to start from, entries in [0, 1]."""
        ...

    def points(self, places_M: Tensor) -> Tensor:
        """The points of M places, shape (M, d), differentiable in them."""
        ...

    def point(self, vector_D: FloatArray) -> FloatArray:
        """What the models see of a vector, shape (d,), entries in [0, 1]."""
        ...

    def vector(self, point_D: FloatArray) -> FloatArray:
        """A vector that the models see as this point, shape (d,), entries in [0, 1]."""
        ...


class EntryPlaces:
    """Places, points and vectors of any space are the same, of shape (d,)."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def random(self, rng: np.random.Generator) -> FloatArray:
        """Draws every entry uniformly."""
        return rng.random(self._dim)

    def points(self, places_MD: Tensor) -> Tensor:
        """Returns the places, which are points already."""
        return places_MD

    def point(self, vector_D: FloatArray) -> FloatArray:
        """Returns the vector, which is what the models see."""
        return vector_D

    def vector(self, point_D: FloatArray) -> FloatArray:
        """Returns the point, which is a vector already."""
        return point_D


class SoftChannelPlaces:
    """Places are probabilities m of shape (K, T), K = 2T; points are P, by `matrix_to_vector`."""

    def __init__(self, num_tasks: int) -> None:
        self._num_tasks = num_tasks
        self._rows, self._columns = np.triu_indices(num_tasks, k=1)

    def random(self, rng: np.random.Generator) -> FloatArray:
        """Draws channels of which every task uses about the same random share, each for itself."""
        used_KT = rng.random((2 * self._num_tasks, self._num_tasks)) < rng.random()
        return np.where(used_KT, 0.9, 0.1)

    def points(self, places_MKT: Tensor) -> Tensor:
        """Computes P of the soft channels, which is realisable."""
        shared_MTT = places_MKT.mT @ places_MKT / places_MKT.shape[1]
        return torch.cat([places_MKT.mean(dim=1), shared_MTT[:, self._rows, self._columns]], dim=1)

    def point(self, vector_D: FloatArray) -> FloatArray:
        """Computes the P that a vector asks for where its use entries are the use (eq. 4)."""
        return matrix_to_vector(refine(vector_to_matrix(vector_D, self._num_tasks)))

    def vector(self, point_D: FloatArray) -> FloatArray:
        """Finds the vector that asks for a P, the inverse of `point`."""
        return matrix_to_vector(unrefine(vector_to_matrix(point_D, self._num_tasks)))


def places_of(problem: Problem) -> Places:
    """Soft channels where the vector is one sharing matrix of several tasks, else its entries."""
    num_tasks = len(problem.use_dims)
    if num_tasks > 1 and problem.concerns == entry_tasks(num_tasks):
        return SoftChannelPlaces(num_tasks)
    return EntryPlaces(problem.dim)
