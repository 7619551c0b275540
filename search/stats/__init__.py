"""Statistics of few and noisy numbers: bootstrap intervals, paired tests, correlations, seed noise.

Nothing here knows what the numbers are of.
"""

from search.stats.agreement import correlations
from search.stats.bootstrap import LEVEL, RESAMPLES, Estimate, estimates, mean_interval
from search.stats.correlation import bands
from search.stats.paired_t import paired_interval
from search.stats.paired_tests import (
    MOST_STRATEGIES,
    ROUNDING,
    Pair,
    compare_figures,
    compare_pairs,
    fewest_seeds,
    holm,
    least_p,
)
from search.stats.ranking import ndcg, regret
from search.stats.seed_noise import noise
from search.stats.unpaired_test import welch

__all__ = [
    "LEVEL",
    "MOST_STRATEGIES",
    "RESAMPLES",
    "ROUNDING",
    "Estimate",
    "Pair",
    "bands",
    "compare_figures",
    "compare_pairs",
    "correlations",
    "estimates",
    "fewest_seeds",
    "holm",
    "least_p",
    "mean_interval",
    "ndcg",
    "noise",
    "paired_interval",
    "regret",
    "welch",
]
