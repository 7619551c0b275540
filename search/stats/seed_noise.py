"""How far scores of candidates differ beside how far seeds of one candidate do. N candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What of a task's full scores is chance.

    Attributes:
        std: standard deviation (ddof 1) of the scores over candidates.
        seed_std: standard deviation between seeds of one candidate, see `seed_noise`.
        ratio: std / seed_std; NaN where the scores do not vary.
        ceiling: the Pearson correlation that a perfect predictor of the scores' mean over seeds
            would have with the scores of one seed: sqrt(1 - seed_std^2 / std^2), at least 0.
    """

    std: float
    seed_std: float
    ratio: float
    ceiling: float


def seed_noise(scores_by_seed: Sequence[FloatArray]) -> float:
    """Standard deviation between seeds, pooled over candidates.

    Args:
        scores_by_seed: the scores of each candidate, one per seed; those with a single one say
        nothing.

    Returns:
        sqrt(sum of squared deviations from the candidate's mean / sum of (seeds - 1)), NaN where
        no candidate has two.

    >>> round(seed_noise([np.array([1.0, 3.0]), np.array([5.0, 5.0]), np.array([9.0])]), 6)
    1.0
    """
    freedom = sum(len(scores) - 1 for scores in scores_by_seed)
    if not freedom:
        return float("nan")
    squares = sum(float(np.sum((scores - scores.mean()) ** 2)) for scores in scores_by_seed)
    return float(np.sqrt(squares / freedom))


def noise(full_N: FloatArray, scores_by_seed: Sequence[FloatArray]) -> Noise:
    """How far candidates differ beside how far seeds do; see `Noise`.

    >>> found = noise(np.array([0.0, 2.0, 4.0]), [np.array([1.0, 1.0 + 2**0.5])])
    >>> round(found.ratio, 6), round(found.ceiling, 6)
    (2.0, 0.866025)
    """
    std = float(np.std(full_N, ddof=1)) if len(full_N) > 1 else float("nan")
    between = seed_noise(scores_by_seed)
    ratio = ceiling = float("nan")
    if std > 0:
        ceiling = float(np.sqrt(np.maximum(1 - between**2 / std**2, 0)))
        ratio = std / between if between != 0 else float("inf")
    return Noise(std=std, seed_std=between, ratio=ratio, ceiling=ceiling)
