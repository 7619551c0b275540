"""How much higher some numbers are than others that go with them."""

import numpy as np
from numpy.typing import ArrayLike

from search.stats.bootstrap import LEVEL, Estimate


def paired_interval(a: ArrayLike, b: ArrayLike) -> Estimate:
    """Mean of a - b with Student's 95 % interval, which also holds for few pairs.

    A bootstrap's interval is too narrow with five.

    Args:
        a: (N,).
        b: (N,), each of the seed of that of a.

    Returns:
        Its bounds are NaN with fewer than two pairs, and the mean where all differ by as much.

    Example:
        >>> found = paired_interval([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (2.0, -0.484, 4.484)
    """
    difference_N = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    mean = float(difference_N.mean())
    if len(difference_N) < 2:
        return Estimate(value=mean, low=float("nan"), high=float("nan"))
    if np.ptp(difference_N) == 0:
        return Estimate(value=mean, low=mean, high=mean)
    from scipy.stats import ttest_rel  # takes a second, in every process of a search

    low, high = ttest_rel(a, b).confidence_interval(1 - LEVEL)
    return Estimate(value=mean, low=float(low), high=float(high))
