"""How well one kind of score agrees with another: every statistic with its interval.

Legend of shapes: N candidates, T tasks, B rows of weights: the first is all ones, every other
counts how often each candidate was drawn in a bootstrap resample.
"""

import numpy as np

from partitioning import FloatArray, IntArray
from search.stats.bootstrap import Estimate, resamples
from search.stats.correlation import FEWEST, STATISTICS, banded, bands
from search.stats.partial_correlation import Given


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
    use_TN: FloatArray,
    rng: np.random.Generator,
    number: int = 2000,
) -> dict[str, list[Estimate]]:
    """Every statistic of how well scores predict full training.

    Args:
        score_TN: What is to be trusted, such as the proxy's accuracies.
        full_TN: Accuracies of full training.
        use_TN: Use by task. Its mean over tasks is the candidates' cost.
        rng: Draws resamples of candidates; the same ones for every task.
        number: Of resamples.

    Returns:
        T + 2 estimates by name: for each task, for the mean accuracy over tasks, and the mean over
        tasks of the tasks' own, where one that is not defined counts as 0. Names are pearson,
        spearman and kendall, each alone and with _cheapest_half and _best_quarter (of mean full
        accuracy), banded, and partial and partial_rank: of a task given mean use and its own use,
        of the mean accuracy given mean use.

    Raises:
        ValueError: The shapes differ, a score is not finite, or a use is negative.
    """
    if not score_TN.shape == full_TN.shape == use_TN.shape:
        raise ValueError(
            "score, full and use must all be (T, N), got "
            f"{score_TN.shape}, {full_TN.shape} and {use_TN.shape}"
        )
    if not all(np.isfinite(array).all() for array in (score_TN, full_TN, use_TN)):
        raise ValueError("scores and use must be finite; leave out what failed")
    names = [*(f"{s}{t}" for t in ("", "_cheapest_half", "_best_quarter") for s in STATISTICS)]
    names += ["banded", "partial", "partial_rank"]
    if score_TN.shape[1] < FEWEST:
        missing = Estimate(value=np.nan, low=np.nan, high=np.nan)
        return {name: [missing] * (len(score_TN) + 2) for name in names}
    rows = [
        (np.ascontiguousarray(x), np.ascontiguousarray(y))
        for x, y in zip(_with_mean(score_TN), _with_mean(full_TN), strict=True)
    ]
    use_N = use_TN.mean(axis=0)
    found: dict[str, list[Estimate]] = {}
    whole_BN = np.empty(0)
    for suffix, chosen in subsets(use_N, full_TN.mean(axis=0)).items():
        w_BN = resamples(len(chosen), rng, number)
        whole_BN = w_BN if suffix == "" else whole_BN
        for name, statistic in STATISTICS.items():
            values = [statistic(x_N[chosen], y_N[chosen], w_BN) for x_N, y_N in rows]
            found[name + suffix] = _estimates(np.array(values))
    band_N = bands(use_N)
    found["banded"] = _estimates(np.array([banded(x, y, band_N, whole_BN) for x, y in rows]))
    return found | beside_use(score_TN, full_TN, use_TN, whole_BN)


def beside_use(
    score_TN: FloatArray, full_TN: FloatArray, use_TN: FloatArray, w_BN: FloatArray
) -> dict[str, list[Estimate]]:
    """Partial correlations: the entries partial and partial_rank of `correlations`.

    Args:
        score_TN: What is to be trusted.
        full_TN: Accuracies of full training.
        use_TN: Use by task.
        w_BN: Resamples of candidates.
    """
    use_N = use_TN.mean(axis=0)
    known = [*(Given([use_N, own_N], w_BN) for own_N in use_TN), Given([use_N], w_BN)]
    rows = list(zip(known, _with_mean(score_TN), _with_mean(full_TN), strict=True))
    return {
        "partial": _estimates(np.array([given.partial(x, y) for given, x, y in rows])),
        "partial_rank": _estimates(np.array([given.partial_rank(x, y) for given, x, y in rows])),
    }


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
