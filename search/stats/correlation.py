"""How well one kind of score agrees with another: correlations and their intervals.

Legend of shapes: N candidates, T tasks, B rows of weights: the first is all ones, every other
counts how often each candidate was drawn in a bootstrap resample. Every statistic takes weights and
returns one value for each row of them, NaN where either score does not vary.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from partitioning import FloatArray, IntArray
from search.stats.bootstrap import Estimate, resamples

# With so few candidates every correlation is 1 or -1.
FEWEST = 3
# Share of a score's variance, in standard units, under which a resample has none.
NO_VARIANCE = 1e-12


def pearson(x_N: FloatArray, y_N: FloatArray, w_BN: FloatArray) -> FloatArray:
    """Pearson's linear correlation, (B,) in [-1, 1].

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0]), np.ones((1, 3))).round(4)
    array([0.9934])
    """
    return _correlation(_standard(x_N), _standard(y_N), w_BN)


def spearman(x_N: FloatArray, y_N: FloatArray, w_BN: FloatArray) -> FloatArray:
    """Spearman's: Pearson's correlation of the ranks within each resample, ties sharing a rank.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 99.0]), np.ones((1, 3)))
    array([1.])
    """
    return _correlation(_ranks(x_N, w_BN), _ranks(y_N, w_BN), w_BN)


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


def partial(
    x_N: FloatArray,
    y_N: FloatArray,
    given_N: FloatArray,
    w_BN: FloatArray,
    statistic: Statistic = pearson,
) -> FloatArray:
    """What of a correlation a third quantity does not explain, (B,) in [-1, 1].

    r_xy.z = (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)): with Pearson's r the correlation
    of what is left of x and of y after regressing each on z; with Spearman's the same of ranks.
    A z that does not vary explains nothing.

    >>> x, y, z = np.array([[2.0, 1, 4, 3], [1.0, 2, 3, 4], [1.0, 1, 3, 3]])
    >>> partial(x, y, z, np.ones((1, 4))).round(4)
    array([-1.])
    """
    xy_B = statistic(x_N, y_N, w_BN)
    xz_B, yz_B = (np.nan_to_num(statistic(v, given_N, w_BN)) for v in (x_N, y_N))
    left_B = np.maximum(1 - xz_B**2, 0) * np.maximum(1 - yz_B**2, 0)
    return _divided(xy_B - xz_B * yz_B, np.sqrt(left_B), left_B > NO_VARIANCE)


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
        v - ((w_BN * v) @ member_NK / count_BK)[:, band_N] for v in map(_standard, (x_N, y_N))
    )
    return _correlation(x_BN, y_BN, w_BN)


def subsets(use_N: FloatArray, quality_N: FloatArray) -> dict[str, IntArray]:
    """Positions of all candidates, of the half with least use and of the quarter of best quality.

    A half or quarter is rounded up.
    """
    half, quarter = -(-len(use_N) // 2), -(-len(use_N) // 4)
    return {
        "": np.arange(len(use_N)),
        "_cheapest_half": np.argsort(use_N, kind="stable")[:half],
        "_best_quarter": np.argsort(-quality_N, kind="stable")[:quarter],
    }


def correlations(
    score_TN: FloatArray,
    full_TN: FloatArray,
    use_N: FloatArray,
    rng: np.random.Generator,
    number: int = 2000,
) -> dict[str, list[Estimate]]:
    """Every statistic of how well scores predict full training.

    Args:
        score_TN: what is to be trusted, such as the proxy's accuracies.
        full_TN: accuracies of full training.
        use_N: mean use of the candidates: their cost, and what partial correlations are given.
        rng: draws resamples of candidates; the same ones for every task.
        number: of resamples.

    Returns:
        T + 2 estimates by name: for each task, for the mean accuracy over tasks, and the mean over
        tasks of the tasks' own, where one that is not defined counts as 0. Names are pearson,
        spearman and kendall, each alone and with _cheapest_half and _best_quarter (of mean full
        accuracy), and banded, partial and partial_rank.

    Raises:
        ValueError: the shapes differ, or a score is not finite.
    """
    if score_TN.shape != full_TN.shape or score_TN.shape[1:] != use_N.shape:
        raise ValueError(
            "score and full must both be (T, N) and use (N,), got "
            f"{score_TN.shape}, {full_TN.shape} and {use_N.shape}"
        )
    if not all(np.isfinite(array).all() for array in (score_TN, full_TN, use_N)):
        raise ValueError("scores and use must be finite; leave out what failed")
    names = [*(f"{s}{t}" for t in ("", "_cheapest_half", "_best_quarter") for s in STATISTICS)]
    names += ["banded", "partial", "partial_rank"]
    if len(use_N) < FEWEST:
        missing = Estimate(value=np.nan, low=np.nan, high=np.nan)
        return {name: [missing] * (len(score_TN) + 2) for name in names}
    rows = [
        (np.ascontiguousarray(x), np.ascontiguousarray(y))
        for x, y in zip(_with_mean(score_TN), _with_mean(full_TN), strict=True)
    ]
    found: dict[str, list[Estimate]] = {}
    whole_BN = np.empty(0)
    for suffix, chosen in subsets(use_N, full_TN.mean(axis=0)).items():
        w_BN = resamples(len(chosen), rng, number)
        whole_BN = w_BN if suffix == "" else whole_BN
        for name, statistic in STATISTICS.items():
            values = [statistic(x_N[chosen], y_N[chosen], w_BN) for x_N, y_N in rows]
            found[name + suffix] = _estimates(np.array(values))
    band_N = bands(use_N)
    for name, values in (
        ("banded", [banded(x_N, y_N, band_N, whole_BN) for x_N, y_N in rows]),
        ("partial", [partial(x_N, y_N, use_N, whole_BN) for x_N, y_N in rows]),
        ("partial_rank", [partial(x_N, y_N, use_N, whole_BN, spearman) for x_N, y_N in rows]),
    ):
        found[name] = _estimates(np.array(values))
    return found


def _with_mean(accuracy_TN: FloatArray) -> FloatArray:
    """(T + 1, N): the tasks, then their mean."""
    return np.vstack([accuracy_TN, accuracy_TN.mean(axis=0)])


def _estimates(values_RB: FloatArray) -> list[Estimate]:
    """Of tasks and mean accuracy, by resample, to one estimate for each and one for the tasks'."""
    tasks_TB = values_RB[:-1]
    mean_B = np.nan_to_num(tasks_TB).mean(axis=0)
    mean_B[np.isnan(tasks_TB).all(axis=0)] = np.nan
    found = []
    for values_B in (*values_RB, mean_B):
        known = values_B[1:][~np.isnan(values_B[1:])]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        found.append(Estimate(value=float(values_B[0]), low=float(low), high=float(high)))
    return found


def _standard(x_N: FloatArray) -> FloatArray:
    """Of mean 0 and standard deviation 1; zeros where nothing varies beyond rounding."""
    left_N = x_N - x_N.mean()
    deviation = float(left_N.std())
    if deviation <= NO_VARIANCE * float(np.abs(x_N).max()):
        return np.zeros_like(left_N)
    return np.asarray(left_N / deviation, dtype=np.float64)


def _ranks(x_N: FloatArray, w_BN: FloatArray) -> FloatArray:
    """(B, N): ranks from 1 within each resample; ties share the mean of theirs."""
    less_NN = (x_N[:, None] < x_N[None, :]).astype(np.float64)
    equal_NN = (x_N[:, None] == x_N[None, :]).astype(np.float64)
    return np.asarray(w_BN @ less_NN + (w_BN @ equal_NN + 1) / 2, dtype=np.float64)


def _correlation(x: FloatArray, y: FloatArray, w_BN: FloatArray) -> FloatArray:
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
