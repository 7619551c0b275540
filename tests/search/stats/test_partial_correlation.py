"""What a third quantity does not explain: against plain least squares."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from search.stats.bootstrap import resamples
from search.stats.partial_correlation import OFFSET, Given, design

Floats = NDArray[np.float64]


def log(covariate: Floats) -> Floats:
    return np.asarray(np.log(covariate / covariate.max() + OFFSET))


def powers(covariate: Floats, inner: int = 5) -> list[Floats]:
    """Cubic splines of the logarithm, by truncated powers; 40 candidates have five inner knots."""
    knots = np.quantile(log(covariate), np.linspace(0, 1, inner + 2))[1:-1]
    smooth = [log(covariate) ** power for power in (1, 2, 3)]
    return [*smooth, *(np.clip(log(covariate) - knot, 0, None) ** 3 for knot in knots)]


def left(v: Floats, columns: list[Floats]) -> Floats:
    """Residuals of a fit on a constant and columns."""
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
    columns = [column for v in given for column in powers(v)] + [log(given[0]) * log(given[1])]
    free = 40 - len(columns) - 1
    for values, pair in ((plain, (x, y)), (rank, (stats.rankdata(x), stats.rankdata(y)))):
        remains = [left(v, columns) for v in pair]
        drawn = [[np.repeat(v, row) for v in remains] for row in weights.astype(int)]
        z = np.arctanh([np.corrcoef(*resample)[0, 1] for resample in drawn])
        assert np.arctanh(values[0]) == pytest.approx(z[0], abs=1e-6)
        stretched = (z[1:] - z[0]) * np.sqrt(40 / free)
        assert np.arctanh(values[1:]) - z[0] == pytest.approx(stretched, abs=1e-6)


def test_intervals_hold_zero_where_nothing_is_left(scores: tuple[Floats, ...]) -> None:
    """Of 100 draws 90 or more, at 95 %."""
    _, _, *given = scores
    weights = resamples(40, np.random.default_rng(0), 400)
    known, rng, held = Given(given, weights), np.random.default_rng(1), 0
    for _ in range(100):
        low, high = np.percentile(known.partial(*rng.normal(size=(2, 40)))[1:], [2.5, 97.5])
        held += low <= 0 <= high
    assert held >= 90


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
        assert design([use, other]).shape == (40, 9)
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
