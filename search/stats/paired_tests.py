"""Which of several strategies is better: intervals, paired tests and their correction.

Strategies are compared seed by seed, since those of a seed start from the same candidates. Legend
of shapes: N seeds, P pairs of strategies, G points of a curve, M ways to flip signs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from partitioning import FloatArray
from search.stats.bootstrap import LEVEL, RESAMPLES, Estimate, estimates

#: Up to so many seeds all sign flips are tried; with more, 2^EXACT of them at random.
EXACT = 16
# Of which so many are in memory at a time, for all pairs.
FLIPS_AT_ONCE = 4096
#: Share of a sum that rounding may change.
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two strategies held against each other.

    Attributes:
        a: One of them; of those that `compare_pairs` makes the one with the higher mean.
        b: The other.
        difference: Mean over seeds of a less b, with its bootstrap interval.
        won: Share of the seeds in which a is above b; a tie is half.
        p: Of the sign-flip test, in (0, 1].
        p_adjusted: The same after Holm's correction over all pairs.
    """

    a: str
    b: str
    difference: Estimate
    won: float
    p: float
    p_adjusted: float

    @property
    def better(self) -> str | None:
        """The better one; None where chance may have made the difference."""
        if self.p_adjusted >= LEVEL:
            return None
        return self.a if self.difference.value > 0 else self.b


def sign_flip(difference_PN: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Two-sided p of paired differences whose signs are chance, (P,) in (0, 1].

    If two strategies are equally good, the difference of a seed is as likely to be d as -d. p is
    the share of the 2^N ways to flip signs whose sum is at least as far from 0 as the one found.
    It needs no other assumption and is exact up to `EXACT` seeds; beyond, flips are drawn, and the
    one found counts as one of them (Phipson and Smyth 2010).

    Args:
        difference_PN: Differences of P pairs in N seeds.
        rng: Draws flips where there are too many.

    Example:
        >>> sign_flip(np.array([[3.0, 1.0, 2.0], [1.0, -1.0, 0.0]]), np.random.default_rng(0))
        array([0.25, 1.  ])
    """
    count = difference_PN.shape[1]
    found = 0
    if count <= EXACT:
        bit_MN = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        found = 1
        bit_MN = rng.integers(0, 2, size=(2**EXACT - found, count))
    far_P = np.abs(difference_PN.sum(axis=1)) - ROUNDING * np.abs(difference_PN).sum(axis=1)
    as_far_P = np.full(len(difference_PN), found)
    for start in range(0, len(bit_MN), FLIPS_AT_ONCE):
        sign_MN = 1.0 - 2.0 * bit_MN[start : start + FLIPS_AT_ONCE]
        as_far_P += (np.abs(sign_MN @ difference_PN.T) >= far_P).sum(axis=0)
    p_P: FloatArray = as_far_P / (len(bit_MN) + found)
    return p_P


def holm(p_P: FloatArray) -> FloatArray:
    """Adjust p by Holm's method (1979), (P,).

    The smallest p is multiplied by P, the next by P - 1, and so on; none is below one before it.
    That any true null hypothesis is rejected has at most the level's probability, whichever are
    true and however the tests depend on each other, as those of pairs with a strategy in common do.
    It is never weaker than Bonferroni's; methods that are stronger need to know that dependence.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(4)
        array([0.03, 0.06, 0.06])
    """
    order_P = np.argsort(p_P, kind="stable")
    adjusted_P = np.empty(len(p_P))
    times_P = np.arange(len(p_P), 0, -1)
    adjusted_P[order_P] = np.minimum(np.maximum.accumulate(times_P * p_P[order_P]), 1)
    return adjusted_P


def least_p(seeds: int) -> float:
    """The smallest p that a sign-flip test can have: 2 of the 2^N flips are the furthest from 0."""
    return max(2.0 ** (1 - seeds), 2.0**-EXACT)


#: With more strategies there are so many pairs that no adjusted p can fall below the level.
MOST_STRATEGIES = 81


def fewest_seeds(strategies: int) -> int:
    """So many seeds it takes for any adjusted p to be able to fall below the level.

    Args:
        strategies: At most `MOST_STRATEGIES`.

    Example:
        >>> fewest_seeds(2), fewest_seeds(3), fewest_seeds(10)
        (6, 7, 11)
    """
    pairs = strategies * (strategies - 1) // 2
    return next(n for n in range(1, 64) if pairs * 2.0 ** (1 - n) < LEVEL)


def compare_pairs(
    values: Mapping[str, FloatArray], rng: np.random.Generator, number: int = RESAMPLES
) -> tuple[Pair, ...]:
    """Hold every two strategies against each other.

    Args:
        values: By strategy, (N,): one for each seed, in the same order, more is better.
        rng: Draws resamples, and flips of many seeds.
        number: Of resamples.

    Returns:
        All pairs, the strategies ordered by their mean (among equals by the order given).

    Raises:
        ValueError: There are fewer than 2 strategies or seeds, the numbers of seeds differ, or a
            value is not finite.
    """
    if len(values) < 2:
        raise ValueError(f"at least 2 strategies can be compared, got {len(values)}")
    counts = {name: len(value_N) for name, value_N in values.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"every strategy needs a value for each seed, got {counts} values")
    if not all(np.isfinite(value_N).all() for value_N in values.values()):
        raise ValueError("all values must be finite")
    ranked = sorted(values, key=lambda name: -float(values[name].mean()))
    names = list(combinations(ranked, 2))
    return _paired(names, np.array([values[a] - values[b] for a, b in names]), rng, number)


def compare_figures(
    a: str, b: str, differences: Sequence[FloatArray], rng: np.random.Generator
) -> tuple[Pair, ...]:
    """Hold two strategies against each other in several figures, corrected among these.

    Args:
        a: One strategy.
        b: The other.
        differences: Of every figure, (N,) by seed: what a has more of it than b, more being better.
        rng: Draws resamples, and flips of many seeds.

    Returns:
        One pair for every figure.
    """
    return _paired([(a, b)] * len(differences), np.array(differences), rng, RESAMPLES)


def _paired(
    names: Sequence[tuple[str, str]],
    difference_PN: FloatArray,
    rng: np.random.Generator,
    number: int,
) -> tuple[Pair, ...]:
    p_P = sign_flip(difference_PN, rng)
    differences = estimates(difference_PN.T, rng, number)
    return tuple(
        Pair(
            a=a,
            b=b,
            difference=difference,
            won=float(((np.sign(difference_N) + 1) / 2).mean()),
            p=float(p),
            p_adjusted=float(p_adjusted),
        )
        for (a, b), difference_N, difference, p, p_adjusted in zip(
            names, difference_PN, differences, p_P, holm(p_P), strict=True
        )
    )
