"""The bootstrap: resamples, estimates with intervals, and intervals of means of few seeds.

Legend of shapes: N candidates or seeds, G points of a curve, B rows of weights: the first is all
ones, every other counts how often each candidate was drawn in a resample.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from partitioning import FloatArray

#: Family-wise error that is accepted, and 1 less the intervals' confidence.
LEVEL = 0.05
#: Resamples of a bootstrap.
RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A statistic of all candidates, with a percentile bootstrap interval of 95 %.

    Attributes:
        value: of all candidates; NaN where it is not defined.
        low: 2.5th percentile over resamples of candidates; NaN where no resample defines it.
        high: 97.5th percentile.
    """

    value: float
    low: float
    high: float


def resamples(count: int, rng: np.random.Generator, number: int = 2000) -> FloatArray:
    """Weights of the bootstrap.

    Args:
        count: N, at least 1.
        rng: draws the candidates, N of N with repetition.
        number: of resamples.

    Returns:
        (1 + number, N): a row of ones, then how often each candidate was drawn; every row sums
        to N.
    """
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=number)
    return np.vstack([np.ones(count), drawn]).astype(np.float64)


def mean_interval(
    values_NG: FloatArray, rng: np.random.Generator, number: int = RESAMPLES
) -> tuple[FloatArray, FloatArray]:
    """Expanded percentile bootstrap interval of 95 % of means over seeds.

    The plain percentile interval is too narrow for few seeds: by sqrt((N - 1) / N), and as if their
    deviation were known. The expanded one takes the quantiles at Phi(-sqrt(N / (N - 1)) t), t being
    the quantile of Student's distribution with N - 1 degrees of freedom, so that it is as wide as
    the t interval where values are normal, and lopsided where they are. Below 5 seeds this is the
    range of the values, the most a bootstrap can say.

    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap, 4.2 and 5.3.

    Args:
        values_NG: Values by seed, at least 2 seeds.
        rng: Draws the seeds, with repetition.
        number: Of resamples.

    Returns:
        Lower and upper ends, (G,) each.

    Raises:
        ValueError: There are fewer than 2 seeds.
    """
    count = len(values_NG)
    if count < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got {count}")
    from scipy.special import stdtrit  # takes a second, in every process of a search

    t = float(stdtrit(count - 1, LEVEL / 2))
    tail = 100 * NormalDist().cdf(t * np.sqrt(count / (count - 1)))
    mean_BG = resamples(count, rng, number)[1:] @ values_NG / count
    low_G, high_G = np.percentile(mean_BG, [tail, 100 - tail], axis=0)
    mean_G = values_NG.mean(axis=0)  # rounding must not put it outside
    return np.minimum(low_G, mean_G), np.maximum(high_G, mean_G)


def estimates(
    values_NG: FloatArray, rng: np.random.Generator, number: int = RESAMPLES
) -> list[Estimate]:
    """Means over seeds with their intervals, from the same resamples, see `mean_interval`.

    Args:
        values_NG: G figures by seed.
        rng: Draws the seeds.
        number: Of resamples.
    """
    low_G, high_G = mean_interval(values_NG, rng, number)
    rows = zip(values_NG.mean(axis=0), low_G, high_G, strict=True)
    return [Estimate(value=float(v), low=float(low), high=float(high)) for v, low, high in rows]
