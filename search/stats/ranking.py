"""What a ranking is worth to a search: how good its top is, and what its first pick loses.

Legend: N candidates. Candidates that share a score are taken in any order alike: the mean over all
orders of theirs counts.
"""

import numpy as np

from partitioning import FloatArray, IntArray


def ndcg(score_N: FloatArray, value_N: FloatArray, top: int) -> float:
    """Normalised discounted cumulative gain of the first `top` candidates by score.

    The gain is linear: how far a candidate's value lies from the worst (0) to the best (1). Gains
    are divided by log2(1 + position) and summed; 1 is the sum that ranking by value would have.

    Source: Jarvelin and Kekalainen 2002, Cumulated gain-based evaluation of IR techniques; its
    discount by log2(1 + position) is Burges et al. 2005's.

    Args:
        score_N: Ranks the candidates, the largest first.
        value_N: What counts, such as accuracies after full training.
        top: How many positions count, at least 1.

    Returns:
        From 0 to 1; NaN where the values do not vary.

    >>> round(ndcg(np.array([3.0, 2.0, 1.0]), np.array([0.5, 0.9, 0.7]), 2), 4)  # 0, 1 for 1, .5
    0.4796
    >>> ndcg(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.7, 0.9]), 2)
    1.0
    """
    spread = float(np.ptp(value_N)) if len(value_N) else 0.0
    if spread == 0:
        return float("nan")
    gain_N = (value_N - value_N.min()) / spread
    discount_K = 1 / np.log2(2 + np.arange(min(top, len(gain_N))))
    order_N = np.argsort(-score_N, kind="stable")
    best_N = np.sort(gain_N)[::-1]
    reached, ideal = (
        float(gains_N[: len(discount_K)] @ discount_K)
        for gains_N in (_shared(score_N, gain_N)[order_N], best_N)
    )
    return reached / ideal


def regret(score_N: FloatArray, value_N: FloatArray, band_N: IntArray | None = None) -> float:
    """What picking the candidate with the best score loses of the best value.

    Args:
        score_N: Decides the pick.
        value_N: What counts, such as accuracies after full training.
        band_N: Groups of candidates, see `bands`; one is picked in each, and the mean over groups
            counts. None is a single pick of all.

    Returns:
        At least 0, in units of the values; NaN of no candidates.

    >>> score, value = np.array([1.0, 3.0, 2.0, 2.0]), np.array([0.5, 0.7, 0.9, 0.8])
    >>> round(regret(score, value), 4)
    0.2
    >>> round(regret(score, value, np.array([0, 0, 1, 1])), 4)  # none, and .05 of two that tie
    0.025
    """
    if not len(score_N):
        return float("nan")
    groups_N = np.zeros(len(score_N), dtype=np.int64) if band_N is None else band_N
    lost = []
    for group in np.unique(groups_N):
        values, scores = value_N[groups_N == group], score_N[groups_N == group]
        lost.append(values.max() - values[scores == scores.max()].mean())
    return float(np.mean(lost))


def _shared(score_N: FloatArray, gain_N: FloatArray) -> FloatArray:
    """Of every candidate the mean gain of those with its score."""
    _, tied_N = np.unique(score_N, return_inverse=True)
    return np.asarray((np.bincount(tied_N, gain_N) / np.bincount(tied_N))[tied_N])
