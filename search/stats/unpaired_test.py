"""Whether two sets of seeds that have nothing in common differ in their mean."""

import numpy as np

from partitioning import FloatArray


def welch(left_N: FloatArray, right_M: FloatArray) -> float:
    """Two-sided p of Welch's t-test (1947), which does not take the variances for equal.

    Args:
        left_N: Values of one, such as accuracies by seed.
        right_M: Values of the other.

    Returns:
        In [0, 1]; NaN with fewer than 2 values of either, or where neither varies.

    Example:
        >>> round(welch(np.array([0.82, 0.83, 0.84]), np.array([0.80, 0.81, 0.82])), 4)
        0.0705
    """
    if min(len(left_N), len(right_M)) < 2 or not (np.ptp(left_N) or np.ptp(right_M)):
        return float("nan")
    from scipy.stats import ttest_ind  # takes a second, in every process of a search

    return float(ttest_ind(left_N, right_M, equal_var=False).pvalue)
