"""Partial correlations: what of a correlation quantities that are known anyway do not explain.

Legend of shapes: N candidates, K covariates, P columns of a design, B rows of weights: the first is
all ones, every other counts how often each candidate was drawn in a bootstrap resample.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from partitioning import FloatArray
from search.stats.correlation import ranks, standard, weighted_correlation

#: Degree of the splines in a covariate's logarithm. On made-up scores that saturate in use a
#: straight line leaves a partial correlation of up to .98 and a parabola one of up to .8; see
#: docs/log.md, "a calibration that mean use cannot pass".
DEGREE = 3
# Candidates to a column of a covariate: with more of them, a spline has more knots and follows
# curves that bend more sharply, such as a sigmoid or a kink.
PER_COLUMN = 4
MOST_COLUMNS = 8
# Share of the largest value that is added before the logarithm, since a task may use nothing.
OFFSET = 0.01
# Candidates beyond the columns of a regression without which its residuals say nothing.
FEWEST_FREE = 2
# So close to 1 a correlation's z is cut off.
ALMOST = 1 - 1e-12
# Singular values under this share of the largest are of columns that say nothing of their own.
RANK_TOLERANCE = 1e-8


def design(given: Sequence[FloatArray]) -> FloatArray:
    """What is regressed on: a constant, and a cubic spline of every covariate's logarithm.

    A score may depend on a covariate by any curve, and what a straight line misses of it would be
    taken for agreement, since it is missed in both scores alike. A spline has a column for every
    four candidates, at least three (a cubic polynomial) and at most eight, and its knots are at
    quantiles. Of how covariates act together there is one column for every two, the product of
    their logarithms. A step in a score is not followed.

    Args:
        given: At least one covariate (N,) such as use, at least 0 and not 0 throughout.

    Returns:
        (N, P): orthogonal columns that span all of these, each with mean square 1. P is at most
        1 + 8 K + K (K - 1) / 2, and less where covariates do not vary or are the same.

    Raises:
        ValueError: A covariate is negative, or 0 throughout.

    >>> design([np.array([0.1, 0.2, 0.4, 0.8, 0.9]), np.full(5, 0.5)]).shape
    (5, 4)
    """
    columns, logs = [np.ones(len(given[0]))], []
    for covariate_N in given:
        least, most = float(covariate_N.min()), float(covariate_N.max())
        if least < 0 or most == 0:
            raise ValueError(
                f"covariates must be at least 0 and not 0 throughout, got {least} to {most}"
            )
        if least < most:
            logs.append(np.log(covariate_N / most + OFFSET))
            columns += [standard(column_N) for column_N in _spline(logs[-1]).T]
    columns += [standard(standard(a_N) * standard(b_N)) for a_N, b_N in combinations(logs, 2)]
    left_NP, values_P, _ = np.linalg.svd(np.column_stack(columns), full_matrices=False)
    kept_NP = left_NP[:, values_P > RANK_TOLERANCE * values_P[0]]
    return np.asarray(kept_NP * np.sqrt(len(kept_NP)), dtype=np.float64)


def _spline(log_N: FloatArray) -> FloatArray:
    """B-splines of a logarithm that varies; without the first, as they sum to 1."""
    number = int(np.clip(len(log_N) // PER_COLUMN, DEGREE, MOST_COLUMNS))
    knots = np.quantile(log_N, np.linspace(0, 1, number - DEGREE + 2))
    padded = np.concatenate([np.repeat(knots[0], DEGREE), knots, np.repeat(knots[-1], DEGREE)])
    from scipy.interpolate import BSpline  # takes a second, in every process of a search

    basis_NP = BSpline.design_matrix(log_N, padded, DEGREE).toarray()
    return np.asarray(basis_NP[:, 1:], dtype=np.float64)


class Given:
    """Correlations of what a regression on covariates leaves of two scores, in every resample.

    Frisch and Waugh 1933: the correlation of the residuals is the partial correlation.

    Residuals are of one regression on all candidates, and it is they that are drawn again: a
    resample has two thirds of the candidates, too few for as many columns. Since residuals of N
    candidates and P columns are as free as N - P, what a resample differs by is stretched by
    sqrt(N / (N - P)), of Fisher's z.

    Args:
        given: Covariates (N,), see `design`.
        w_BN: Weights.
    """

    def __init__(self, given: Sequence[FloatArray], w_BN: FloatArray) -> None:
        self._design_NP, self._w_BN = design(given), w_BN
        count, columns = self._design_NP.shape
        self._free = count - columns
        self._stretch = np.sqrt(count / max(self._free, 1))

    def partial(self, x_N: FloatArray, y_N: FloatArray) -> FloatArray:
        """Partial Pearson correlation, (B,) in [-1, 1].

        NaN where the covariates explain a score wholly, or there are too few candidates for them.

        >>> rng = np.random.default_rng(0)
        >>> use = np.linspace(0.1, 1, 40)
        >>> x, y = (np.sqrt(use) + 0.1 * rng.normal(size=40) for _ in range(2))
        >>> Given([use], np.ones((1, 40))).partial(x, y).round(2)
        array([-0.21])
        """
        if self._free < FEWEST_FREE:
            return np.full(len(self._w_BN), np.nan)
        r_B = weighted_correlation(self._residuals(x_N), self._residuals(y_N), self._w_BN)
        z_B = np.arctanh(np.clip(r_B, -ALMOST, ALMOST))
        stretched_B: FloatArray = np.tanh(z_B[0] + (z_B - z_B[0]) * self._stretch)
        return stretched_B

    def partial_rank(self, x_N: FloatArray, y_N: FloatArray) -> FloatArray:
        """The same of the scores' ranks, (B,) in [-1, 1]."""
        all_1N = np.ones((1, len(x_N)))
        return self.partial(ranks(x_N, all_1N)[0], ranks(y_N, all_1N)[0])

    def _residuals(self, x_N: FloatArray) -> FloatArray:
        """(N,): what is left of a score, in its standard deviations."""
        x_N = standard(x_N)
        left_N = x_N - self._design_NP @ (self._design_NP.T @ x_N) / len(x_N)
        return np.asarray(left_N, dtype=np.float64)
