"""How far scores of candidates differ beside how far seeds of one candidate do. N candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What of a task's full scores is chance.

    Attributes:
        spread: standard deviation (ddof 1) of the scores over candidates.
        noise: standard deviation between seeds of one candidate, see `seed_noise`.
        ratio: spread / noise; NaN where the scores do not vary.
        ceiling: the Pearson correlation that a perfect predictor of the scores' mean over seeds
            would have with the scores of one seed: sqrt(1 - noise^2 / spread^2), at least 0.
    """

    spread: float
    noise: float
    ratio: float
    ceiling: float


def seed_noise(repeats: Sequence[FloatArray]) -> float:
    """Standard deviation between seeds, pooled over candidates.

    Args:
        repeats: the scores of each candidate, one per seed; those with a single one say nothing.

    Returns:
        sqrt(sum of squared deviations from the candidate's mean / sum of (seeds - 1)), NaN where
        no candidate has two.

    >>> round(seed_noise([np.array([1.0, 3.0]), np.array([5.0, 5.0]), np.array([9.0])]), 6)
    1.0
    """
    freedom = sum(len(scores) - 1 for scores in repeats)
    if not freedom:
        return float("nan")
    squares = sum(float(np.sum((scores - scores.mean()) ** 2)) for scores in repeats)
    return float(np.sqrt(squares / freedom))


def noise(full_N: FloatArray, repeats: Sequence[FloatArray]) -> Noise:
    """How far candidates differ beside how far seeds do; see `Noise`.

    >>> found = noise(np.array([0.0, 2.0, 4.0]), [np.array([1.0, 1.0 + 2**0.5])])
    >>> round(found.ratio, 6), round(found.ceiling, 6)
    (2.0, 0.866025)
    """
    spread = float(np.std(full_N, ddof=1)) if len(full_N) > 1 else float("nan")
    between = seed_noise(repeats)
    ratio = ceiling = float("nan")
    if spread > 0:
        ceiling = float(np.sqrt(np.maximum(1 - between**2 / spread**2, 0)))
        ratio = spread / between if between != 0 else float("inf")
    return Noise(spread=spread, noise=between, ratio=ratio, ceiling=ceiling)
