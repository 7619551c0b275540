"""What a third quantity does not explain: against plain least squares, in every resample."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from search.stats.bootstrap import resamples
from search.stats.partial_correlation import OFFSET, Given, design

Floats = NDArray[np.float64]


def powers(covariate: Floats, inner: int = 3) -> list[Floats]:
    """Cubic splines of the logarithm, by truncated powers; 40 candidates have three inner knots."""
    log = np.log(covariate / covariate.max() + OFFSET)
    knots = np.quantile(log, np.linspace(0, 1, inner + 2))[1:-1]
    return [*(log**power for power in (1, 2, 3)), *(np.clip(log - k, 0, None) ** 3 for k in knots)]


def left(v: Floats, columns: list[Floats]) -> Floats:
    """Residuals of a fit on a constant and columns, of the candidates that were drawn."""
    matrix = np.column_stack([np.ones(len(v)), *columns])
    return np.asarray(v - matrix @ np.linalg.lstsq(matrix, v, rcond=None)[0])


@pytest.fixture
def scores() -> tuple[Floats, Floats, Floats, Floats]:
    rng = np.random.default_rng(2)
    mean, own = rng.uniform(0.1, 1, (2, 40))
    x, y = (np.sqrt(mean) + own + 0.3 * rng.normal(size=40) for _ in range(2))
    return x, y, mean, own


def test_it_is_the_correlation_of_residuals(scores: tuple[Floats, ...]) -> None:
    x, y, *given = scores
    weights = resamples(40, np.random.default_rng(0), 20)
    known = Given(given, weights)
    plain, rank = known.partial(x, y), known.partial_rank(x, y)
    columns = [column for v in given for column in powers(v)]
    for value, of_ranks, row in zip(plain, rank, weights.astype(int), strict=True):
        drawn = [np.repeat(column, row) for column in columns]
        pair = [np.repeat(v, row) for v in (x, y)]
        expected = np.corrcoef(*(left(v, drawn) for v in pair))[0, 1]
        assert value == pytest.approx(expected, abs=1e-6)
        expected = np.corrcoef(*(left(stats.rankdata(v), drawn) for v in pair))[0, 1]
        assert of_ranks == pytest.approx(expected, abs=1e-6)


def test_a_curve_is_explained(scores: tuple[Floats, ...]) -> None:
    _, _, use, own = scores
    rng = np.random.default_rng(0)
    ones = np.ones((1, 40))
    x, y = (1 - np.exp(-use / s) + 0.02 * rng.normal(size=40) for s in (0.15, 0.3))
    assert stats.pearsonr(x, y)[0] > 0.9
    straight = [v - np.polyval(np.polyfit(use, v, 1), use) for v in (x, y)]
    assert np.corrcoef(*straight)[0, 1] > 0.8, "a straight line leaves the curve"
    assert abs(Given([use], ones).partial(x, y)[0]) < 0.35
    assert Given([own], ones).partial(x, y)[0] > 0.9, "other uses explain nothing"
    assert np.isnan(Given([use], ones).partial(powers(use)[1], y)).all()


def test_covariates_that_say_nothing_of_their_own(scores: tuple[Floats, ...]) -> None:
    x, y, use, _ = scores
    ones = np.ones((1, 40))
    alone = Given([use], ones).partial(x, y)
    for other in (use, 3 * use, np.full(40, 0.5)):
        assert design([use, other]).shape == (40, 7)
        assert Given([use, other], ones).partial(x, y) == pytest.approx(alone)
    assert Given([np.full(40, 0.5)], ones).partial(x, y)[0] == pytest.approx(
        np.corrcoef(x, y)[0, 1]
    )


def test_too_few_candidates_leave_nothing(scores: tuple[Floats, ...]) -> None:
    x, y, mean, own = (v[:8] for v in scores)
    assert np.isnan(Given([mean, own], np.ones((1, 8))).partial(x, y)).all()
    assert np.isfinite(Given([mean], np.ones((1, 8))).partial(x, y)).all()


def test_a_task_may_use_nothing(scores: tuple[Floats, ...]) -> None:
    x, y, use, _ = scores
    use[0] = 0
    assert np.isfinite(Given([use], np.ones((1, 40))).partial(x, y)).all()
    for bad in (-use, np.zeros(40)):
        with pytest.raises(ValueError, match="at least 0 and not 0 throughout"):
            design([bad])
