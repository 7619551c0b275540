"""Partial correlations: what of a correlation quantities that are known anyway do not explain.

Legend of shapes: N candidates, K covariates, P columns of a design, B rows of weights: the first is
all ones, every other counts how often each candidate was drawn in a bootstrap resample.
"""

from collections.abc import Sequence

import numpy as np

from partitioning import FloatArray
from search.stats.correlation import ranks, standard, weighted_correlation

#: Degree of the splines in a covariate's logarithm. On made-up scores that saturate in use a
#: straight line leaves a partial correlation of up to .98 and a parabola one of up to .8; see
#: docs/log.md, "a calibration that mean use cannot pass".
DEGREE = 3
# Candidates to a column of a covariate: with more of them, a spline has more knots and follows
# curves that bend more sharply, such as a sigmoid or a kink.
PER_COLUMN = 6
MOST_COLUMNS = 8
# Share of the largest value that is added before the logarithm, since a task may use nothing.
OFFSET = 0.01
# Degrees of freedom that a resample must leave.
FEWEST_FREE = 2
# Added to sums of squares, as a share of them: a resample may have too few distinct candidates for
# all columns.
RIDGE = 1e-12
# Singular values under this share of the largest are of columns that say nothing of their own.
RANK_TOLERANCE = 1e-8


def design(given: Sequence[FloatArray]) -> FloatArray:
    """What is regressed on: a constant, and a cubic spline of every covariate's logarithm.

    A score may depend on a covariate by any curve, and what a straight line misses of it would be
    taken for agreement, since it is missed in both scores alike. A spline has a column for every
    six candidates, at least three (a cubic polynomial) and at most eight, and its knots are at
    quantiles.
    Interactions of covariates are not among the columns, and a step in a score is not followed.

    Args:
        given: At least one covariate (N,) such as use, at least 0 and not 0 throughout.

    Returns:
        (N, P): orthogonal columns that span the splines, each with mean square 1. P is at most
        1 + 8 K, and less where covariates do not vary or are the same.

    Raises:
        ValueError: A covariate is negative, or 0 throughout.

    >>> design([np.array([0.1, 0.2, 0.4, 0.8, 0.9]), np.full(5, 0.5)]).shape
    (5, 4)
    """
    columns = [np.ones(len(given[0]))]
    for covariate_N in given:
        least, most = float(covariate_N.min()), float(covariate_N.max())
        if least < 0 or most == 0:
            raise ValueError(
                f"covariates must be at least 0 and not 0 throughout, got {least} to {most}"
            )
        if least < most:
            columns += [standard(column_N) for column_N in _spline(covariate_N / most).T]
    left_NP, values_P, _ = np.linalg.svd(np.column_stack(columns), full_matrices=False)
    kept_NP = left_NP[:, values_P > RANK_TOLERANCE * values_P[0]]
    return np.asarray(kept_NP * np.sqrt(len(kept_NP)), dtype=np.float64)


def _spline(covariate_N: FloatArray) -> FloatArray:
    """B-splines of a covariate in [0, 1] that varies; without the first, as they sum to 1."""
    log_N = np.log(covariate_N + OFFSET)
    number = int(np.clip(len(log_N) // PER_COLUMN, DEGREE, MOST_COLUMNS))
    knots = np.quantile(log_N, np.linspace(0, 1, number - DEGREE + 2))
    padded = np.concatenate([np.repeat(knots[0], DEGREE), knots, np.repeat(knots[-1], DEGREE)])
    from scipy.interpolate import BSpline  # takes a second, in every process of a search

    basis_NP = BSpline.design_matrix(log_N, padded, DEGREE).toarray()
    return np.asarray(basis_NP[:, 1:], dtype=np.float64)


class Given:
    """Correlations of what a regression on covariates leaves of two scores, in every resample.

    Frisch and Waugh 1933: the correlation of the residuals is the partial correlation.

    Args:
        given: Covariates (N,), see `design`.
        w_BN: Weights. The regression is fitted anew in each row.
    """

    def __init__(self, given: Sequence[FloatArray], w_BN: FloatArray) -> None:
        self._design_NP, self._w_BN = design(given), w_BN
        count, columns = self._design_NP.shape
        products_NQ = (self._design_NP[:, :, None] * self._design_NP[:, None, :]).reshape(count, -1)
        gram_BPP = (w_BN @ products_NQ).reshape(-1, columns, columns)
        ridge_PP = RIDGE * count * np.eye(columns)
        self._inverse_BPP = np.linalg.inv(gram_BPP + ridge_PP)
        # Of distinct candidates: with fewer, residuals are rounding errors or correlate by 1 or -1.
        self._free_B = np.count_nonzero(w_BN, axis=1) - columns >= FEWEST_FREE

    def partial(self, x_N: FloatArray, y_N: FloatArray) -> FloatArray:
        """Partial Pearson correlation, (B,) in [-1, 1].

        NaN where the covariates explain a score wholly, or a resample has too few distinct
        candidates for them.

        >>> rng = np.random.default_rng(0)
        >>> use = np.linspace(0.1, 1, 40)
        >>> x, y = (np.sqrt(use) + 0.1 * rng.normal(size=40) for _ in range(2))
        >>> Given([use], np.ones((1, 40))).partial(x, y).round(2)
        array([-0.2])
        """
        return self._correlation(standard(x_N), standard(y_N))

    def partial_rank(self, x_N: FloatArray, y_N: FloatArray) -> FloatArray:
        """The same of the scores' ranks within each resample, (B,) in [-1, 1]."""
        count = len(x_N)
        x_BN, y_BN = (ranks(v, self._w_BN) / count for v in (x_N, y_N))
        return self._correlation(x_BN, y_BN)

    def _correlation(self, x: FloatArray, y: FloatArray) -> FloatArray:
        values_B = weighted_correlation(self._residuals(x), self._residuals(y), self._w_BN)
        return np.where(self._free_B, values_B, np.nan)

    def _residuals(self, x: FloatArray) -> FloatArray:
        """(B, N): of a score (N,) or (B, N), by weighted least squares within each row."""
        explained_BP = (self._w_BN * x) @ self._design_NP
        factors_BP = np.einsum("bpq,bq->bp", self._inverse_BPP, explained_BP)
        return np.asarray(x - factors_BP @ self._design_NP.T, dtype=np.float64)
