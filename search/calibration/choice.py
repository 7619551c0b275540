"""Which candidates a calibration measures: spread over cost, the study's own or drawn ones.

Legend: T tasks, D positions of a vector that say how much is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray, Masks, Space
from search.candidates import Candidate, scored
from search.config import CalibrationConfig

#: Mean uses at which candidates are drawn, as shares of the way from the space's least to its most.
LEVELS = np.linspace(0.07 / 0.95, 0.91 / 0.95, 8)
#: How far the tasks' uses scatter around their mean, at most.
SCATTER = 0.3


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A candidate of a calibration.

    Attributes:
        candidate: Its name in the study's record; None of one that was drawn.
        vector: (dim,) entries in [0, 1].
        masks: What it means.
    """

    candidate: str | None
    vector: tuple[float, ...]
    masks: Masks


def choose(
    candidates: Sequence[Candidate],
    space: Space,
    bounds: tuple[float, float],
    config: CalibrationConfig,
) -> list[Chosen]:
    """The candidates of a calibration: the study's own, and drawn ones where these are too few.

    Args:
        candidates: Of the study's record; those that failed or have the masks of another are left
            out.
        space: Decodes what is drawn.
        bounds: Least and most use that the space searches.
        config: How many, and the seed.
    """
    distinct: dict[Masks, Chosen] = {}
    for candidate in scored(candidates):
        if candidate.decoding is not None:
            masks = candidate.masks
            found = Chosen(candidate=candidate.id, vector=candidate.vector, masks=masks)
            distinct.setdefault(masks, found)
    own = list(distinct.values())
    use = np.array([chosen.masks.mean_use() for chosen in own])
    taken = [own[position] for position in evenly_over_cost(use, config.candidates)]
    vectors = draw(space, bounds, config.candidates - len(taken), config.seed)
    return taken + [
        Chosen(candidate=None, vector=tuple(map(float, v)), masks=space.decode(v).masks)
        for v in vectors
    ]


def evenly_over_cost(cost_N: FloatArray, count: int) -> list[int]:
    """Positions spread over cost: for evenly spaced costs the nearest candidate not yet taken.

    Args:
        cost_N: Finite costs.
        count: How many; all where there are no more.

    >>> evenly_over_cost(np.array([0.1, 0.12, 0.5, 0.9, 0.88]), 3)
    [0, 2, 3]
    """
    if len(cost_N) <= count:
        return list(range(len(cost_N)))
    left_N = np.array(cost_N, dtype=np.float64)
    taken = []
    for cost in np.linspace(left_N.min(), left_N.max(), count):
        taken.append(int(np.argmin(np.abs(left_N - cost))))
        left_N[taken[-1]] = np.inf
    return taken


def draw(space: Space, bounds: tuple[float, float], count: int, seed: int) -> list[FloatArray]:
    """Random vectors of a space whose mean uses are spread evenly.

    Rounds of one vector for each of eight mean uses; of a last round that is not whole, mean uses
    apart. Within a vector the uses scatter around their mean, everything else is uniform.

    Args:
        space: Its `use_dims` are scattered.
        bounds: Least and most use.
        count: How many.
        seed: Draws them.

    Returns:
        `count` vectors (dim,) in [0, 1].
    """
    low, high = bounds
    rng = np.random.default_rng(seed)
    dims = list(space.use_dims)
    found: list[FloatArray] = []
    while len(found) < count:
        vectors = []
        for level in low + (high - low) * LEVELS:
            scatter = min(level - low, high - level, SCATTER)
            use_D = level + scatter * rng.uniform(-1, 1, len(dims))
            use_D = np.clip(use_D + level - use_D.mean(), low, high)
            vector = rng.uniform(size=space.dim)
            vector[dims] = (use_D - low) / (high - low) if high > low else 1.0
            vectors.append(vector)
        missing = min(count - len(found), len(vectors))
        apart = np.linspace(0, len(vectors) - 1, missing).round().astype(int)
        found += [vectors[position] for position in apart]
    return found


def trained_twice(use_N: FloatArray, count: int) -> list[int]:
    """Positions of the candidates that are trained twice: evenly spaced in the order of use."""
    order_N = np.argsort(use_N, kind="stable")
    return [int(order_N[p]) for p in np.linspace(0, len(use_N) - 1, count).round().astype(int)]
