"""Which candidates a calibration measures: spread over cost, the study's own or drawn ones.

Legend: T tasks, D positions of a vector that say how much is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray, Masks, Space
from search.candidates import Candidate, scored
from search.config import CalibrationConfig
from search.strategies import uses_of_mean


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
    config: CalibrationConfig,
) -> list[Chosen]:
    """The candidates of a calibration: the study's own, and drawn ones where these are too few.

    Args:
        candidates: Of the study's record; those that failed or have the masks of another are left
            out.
        space: Decodes what is drawn.
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
    vectors = draw(space, config.candidates - len(taken), config.seed)
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


def draw(space: Space, count: int, seed: int) -> list[FloatArray]:
    """Random vectors of a space that differ in how much is used, and in how much is shared.

    Mean uses are spread evenly over the range that is searched. So are, in an order of their own,
    the means of all other entries, which in a space of sharing matrices are overlaps: candidates of
    one use share anything from least to most. What a proxy knows beside use could hardly be told
    where overlaps were drawn on their own, as their effects would average out.

    Args:
        space: Its `use_dims` say how much is used.
        count: How many.
        seed: Draws them.

    Returns:
        `count` vectors (dim,) in [0, 1].
    """
    rng = np.random.default_rng(seed)
    dims = list(space.use_dims)
    others = np.setdiff1d(np.arange(space.dim), dims)
    level_N = (np.arange(count) + 0.5) / count
    found: list[FloatArray] = []
    for use, sharing in zip(level_N, rng.permutation(level_N), strict=True):
        vector = rng.uniform(size=space.dim)
        vector[dims] = uses_of_mean(vector[dims], float(use), space.use_steps)
        if len(others):
            vector[others] = uses_of_mean(vector[others], float(sharing))
        found.append(np.clip(vector, 0.0, 1.0))
    return found


def trained_twice(use_N: FloatArray, count: int) -> list[int]:
    """Positions of the candidates that are trained twice: evenly spaced in the order of use."""
    order_N = np.argsort(use_N, kind="stable")
    return [int(order_N[p]) for p in np.linspace(0, len(use_N) - 1, count).round().astype(int)]
