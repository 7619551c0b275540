"""Correlations of two scores, overall and within bands of cost.

Legend of shapes: N candidates, B rows of weights: the first is all ones, every other counts how
often each candidate was drawn in a bootstrap resample. Every statistic takes weights and returns
one value for each row of them, NaN where either score does not vary.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from partitioning import FloatArray, IntArray

# With so few candidates every correlation is 1 or -1.
FEWEST = 3
# Share of a score's variance, in standard units, under which a resample has none.
NO_VARIANCE = 1e-12


def pearson(x_N: FloatArray, y_N: FloatArray, w_BN: FloatArray) -> FloatArray:
    """Pearson's linear correlation, (B,) in [-1, 1].

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0]), np.ones((1, 3))).round(4)
    array([0.9934])
    """
    return weighted_correlation(standard(x_N), standard(y_N), w_BN)


def spearman(x_N: FloatArray, y_N: FloatArray, w_BN: FloatArray) -> FloatArray:
    """Spearman's: Pearson's correlation of the ranks within each resample, ties sharing a rank.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 99.0]), np.ones((1, 3)))
    array([1.])
    """
    return weighted_correlation(ranks(x_N, w_BN), ranks(y_N, w_BN), w_BN)


def kendall(x_N: FloatArray, y_N: FloatArray, w_BN: FloatArray) -> FloatArray:
    """Kendall's tau-b: pairs in the same order less pairs in opposite order, (B,) in [-1, 1].

    The difference is divided by the geometric mean of the numbers of pairs not tied in x and in y.

    >>> x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 4.0, 3.0])
    >>> kendall(x, y, np.ones((1, 4))).round(4)
    array([0.6667])
    """
    x_NN, y_NN = (np.sign(v[:, None] - v[None, :]) for v in (x_N, y_N))
    same_B, x_B, y_B = (
        np.sum((w_BN @ pairs_NN) * w_BN, axis=1) for pairs_NN in (x_NN * y_NN, x_NN**2, y_NN**2)
    )
    defined_B = (x_B > 0) & (y_B > 0) & (len(x_N) >= FEWEST)
    return _divided(same_B, np.sqrt(x_B * y_B), defined_B)


Statistic = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
STATISTICS: dict[str, Statistic] = {"pearson": pearson, "spearman": spearman, "kendall": kendall}


def bands(cost_N: FloatArray) -> IntArray:
    """The band of each candidate: bands of N // 8 neighbours in cost, or 4 where that is more.

    Returns:
        (N,), from 0 for the cheapest; where N does not divide, the first bands have one more.

    >>> bands(np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8])).tolist()
    [1, 0, 0, 0, 0, 1, 1, 1]
    """
    size = max(4, len(cost_N) // 8)
    band_N = np.zeros(len(cost_N), dtype=np.int64)
    order_N = np.argsort(cost_N, kind="stable")
    for number, members in enumerate(np.array_split(order_N, max(1, len(cost_N) // size))):
        band_N[members] = number
    return band_N


def banded(x_N: FloatArray, y_N: FloatArray, band_N: IntArray, w_BN: FloatArray) -> FloatArray:
    """Pearson's correlation within bands: of both scores less their band's mean, pooled, (B,).

    >>> x, y = np.array([1.0, 2.0, 11.0, 12.0]), np.array([2.0, 1.0, 12.0, 11.0])
    >>> banded(x, y, np.array([0, 0, 1, 1]), np.ones((1, 4)))
    array([-1.])
    """
    member_NK = np.eye(band_N.max(initial=0) + 1)[band_N]
    count_BK = np.maximum(w_BN @ member_NK, 1)
    x_BN, y_BN = (
        v - ((w_BN * v) @ member_NK / count_BK)[:, band_N] for v in map(standard, (x_N, y_N))
    )
    return weighted_correlation(x_BN, y_BN, w_BN)


def standard(x_N: FloatArray) -> FloatArray:
    """Of mean 0 and standard deviation 1; zeros where nothing varies beyond rounding."""
    left_N = x_N - x_N.mean()
    deviation = float(left_N.std())
    if deviation <= NO_VARIANCE * float(np.abs(x_N).max()):
        return np.zeros_like(left_N)
    return np.asarray(left_N / deviation, dtype=np.float64)


def ranks(x_N: FloatArray, w_BN: FloatArray) -> FloatArray:
    """(B, N): ranks from 1 within each resample; ties share the mean of theirs."""
    less_NN = (x_N[:, None] < x_N[None, :]).astype(np.float64)
    equal_NN = (x_N[:, None] == x_N[None, :]).astype(np.float64)
    return np.asarray(w_BN @ less_NN + (w_BN @ equal_NN + 1) / 2, dtype=np.float64)


def weighted_correlation(x: FloatArray, y: FloatArray, w_BN: FloatArray) -> FloatArray:
    """Weighted Pearson correlation (B,) of x and y, (N,) or (B, N)."""
    count_B1 = w_BN.sum(axis=1, keepdims=True)
    x_BN, y_BN = (v - (w_BN * v).sum(axis=1, keepdims=True) / count_B1 for v in (x, y))
    both_B, x_B, y_B = (
        (w_BN * product_BN).sum(axis=1) for product_BN in (x_BN * y_BN, x_BN**2, y_BN**2)
    )
    least_B = NO_VARIANCE * count_B1[:, 0]
    defined_B = (x_B > least_B) & (y_B > least_B) & (w_BN.shape[1] >= FEWEST)
    return np.clip(_divided(both_B, np.sqrt(x_B * y_B), defined_B), -1, 1)


def _divided(above_B: FloatArray, below_B: FloatArray, defined_B: NDArray[np.bool_]) -> FloatArray:
    """The quotient where it is defined, else NaN."""
    quotient_B = np.full(len(above_B), np.nan)
    np.divide(above_B, below_B, out=quotient_B, where=defined_B)
    return quotient_B
