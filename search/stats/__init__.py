"""Statistics of few and noisy numbers: bootstrap intervals, paired tests, correlations, seed noise.

Nothing here knows what the numbers are of.
"""

from search.stats.agreement import correlations
from search.stats.bootstrap import LEVEL, RESAMPLES, Estimate, estimate, mean_interval
from search.stats.correlation import bands
from search.stats.paired_tests import (
    MOST_STRATEGIES,
    ROUNDING,
    Pair,
    compare_pairs,
    fewest_seeds,
    least_p,
)
from search.stats.ranking import ndcg, regret
from search.stats.seed_noise import noise

__all__ = [
    "LEVEL",
    "MOST_STRATEGIES",
    "RESAMPLES",
    "ROUNDING",
    "Estimate",
    "Pair",
    "bands",
    "compare_pairs",
    "correlations",
    "estimate",
    "fewest_seeds",
    "least_p",
    "mean_interval",
    "ndcg",
    "noise",
    "regret",
]
