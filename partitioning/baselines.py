"""Fixed ways of sharing to compare a search with, as sharing matrices (T, T)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from partitioning.sharing import FloatArray, realised

Baseline = Callable[[int, int, np.random.Generator], FloatArray]


def share_all(num_tasks: int) -> FloatArray:
    """Every task uses every channel."""
    return equal_use(num_tasks, 1.0)


def independent(num_tasks: int) -> FloatArray:
    """Every task has 1/T of the channels to itself.

    Where C is no multiple of T, the solver's masks differ from C/T by the rounding.
    """
    return np.asarray(np.eye(num_tasks) / num_tasks, dtype=np.float64)


def share_half(num_tasks: int) -> FloatArray:
    """All tasks share half of the channels, and the other half is split among them.

    Example:
        >>> share_half(2).tolist()
        [[0.75, 0.5], [0.5, 0.75]]
    """
    return 0.5 + 0.5 * independent(num_tasks)


def equal_use(num_tasks: int, fraction: float) -> FloatArray:
    """All tasks use the same `fraction` of the channels: a slimmer network, shared by all.

    Raises:
        ValueError: `fraction` is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie above 0 and be at most 1, got {fraction}")
    return np.full((num_tasks, num_tasks), fraction)


def random_masks(num_tasks: int, channels: int, use: float, rng: np.random.Generator) -> FloatArray:
    """Each channel joins each task with probability `use`, independently.

    Rows without any channel are drawn again: a task must have some.

    Args:
        num_tasks: T >= 1.
        channels: C >= 1.
        use: probability, above 0 and at most 1.
        rng: where the randomness comes from.

    Returns:
        (T, T), the realised P of the masks drawn.

    Raises:
        ValueError: no channels, or `use` out of range.
    """
    if channels < 1 or not 0 < use <= 1:
        raise ValueError(
            f"random masks need at least 1 channel and use above 0 and at most 1, "
            f"got {channels} channels and use = {use}"
        )
    masks_TC = np.zeros((num_tasks, channels), dtype=np.bool_)
    while not (filled_T := masks_TC.any(axis=1)).all():
        masks_TC[~filled_T] = rng.random((np.count_nonzero(~filled_T), channels)) < use
    return realised(masks_TC)


def _fixed(matrix: Callable[[int], FloatArray]) -> Baseline:
    return lambda num_tasks, channels, rng: matrix(num_tasks)


def _random(use: float) -> Baseline:
    return lambda num_tasks, channels, rng: random_masks(num_tasks, channels, use, rng)


# Each takes (num_tasks, channels, rng) and returns P (T, T); only the random ones use the last two.
BASELINES: dict[str, Baseline] = {
    "share_all": _fixed(share_all),
    "independent": _fixed(independent),
    "share_half": _fixed(share_half),
    **{
        f"equal_{percent}": _fixed(partial(equal_use, fraction=percent / 100))
        for percent in range(10, 100, 10)
    },
    **{f"random_{percent}": _random(percent / 100) for percent in (30, 50, 70)},
}
