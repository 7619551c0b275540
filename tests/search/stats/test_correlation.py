"""Agreement of scores: against SciPy, closed forms and plain loops."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from search.stats import Estimate, correlations, noise
from search.stats.agreement import beside_use, subsets
from search.stats.bootstrap import resamples
from search.stats.correlation import banded, bands, kendall, pearson, spearman
from search.stats.seed_noise import seed_noise

Floats = NDArray[np.float64]
ORACLES = [
    (pearson, stats.pearsonr),
    (spearman, stats.spearmanr),
    (kendall, stats.kendalltau),
]


def ones(count: int) -> Floats:
    return np.ones((1, count))


@pytest.fixture
def scores() -> tuple[Floats, Floats]:
    """Two scores that agree somewhat, with ties in both."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=20).round(1)
    return x, (x + rng.normal(size=20)).round(1)


@pytest.mark.parametrize(("ours", "oracle"), ORACLES)
def test_values_and_resamples_are_scipys(
    ours: object, oracle: object, scores: tuple[Floats, Floats]
) -> None:
    x, y = scores
    weights = resamples(len(x), np.random.default_rng(0), 50)
    found = ours(x, y, weights)  # type: ignore[operator]
    for value, row in zip(found, weights.astype(int), strict=True):
        expected = oracle(np.repeat(x, row), np.repeat(y, row))[0]  # type: ignore[operator]
        assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("ours", "oracle"), ORACLES)
def test_what_does_not_vary_has_no_correlation(ours: object, oracle: object) -> None:
    x = np.array([0.1 + 0.2, 0.3, 0.3, 0.3])  # differs by rounding alone
    y = np.array([1.0, 2.0, 3.0, 4.0])
    if ours is pearson:
        assert np.isnan(ours(x, y, ones(4))).all()
    assert np.isnan(ours(np.full(4, 0.7), y, ones(4))).all()  # type: ignore[operator]
    one_drawn = np.array([[0.0, 4.0, 0.0, 0.0]])
    assert np.isnan(ours(y, y**2, one_drawn)).all()  # type: ignore[operator]
    assert np.isnan(ours(y[:2], y[:2], ones(2))).all()  # type: ignore[operator]


def test_resamples_draw_candidates_with_repetition() -> None:
    weights = resamples(7, np.random.default_rng(0), 3000)
    assert weights.shape == (3001, 7)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 7).all()
    # A count of a multinomial: mean 1, variance 1 - 1/7; 3,000 draws pin them to about .02 and .03.
    assert weights[1:].mean(axis=0) == pytest.approx(np.ones(7), abs=0.08)
    assert weights[1:].var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.15)


def test_bands_are_neighbours_in_cost() -> None:
    rng = np.random.default_rng(3)
    cost = rng.random(80)
    band = bands(cost)
    assert np.bincount(band).tolist() == [10] * 8
    for number in range(7):
        assert cost[band == number].max() < cost[band == number + 1].min()
    assert np.bincount(bands(cost[:32])).tolist() == [4] * 8
    assert np.bincount(bands(cost[:11])).tolist() == [6, 5]
    assert bands(cost[:3]).tolist() == [0, 0, 0]


def test_within_bands_against_a_loop() -> None:
    rng = np.random.default_rng(4)
    cost = np.repeat([0.1, 0.4, 0.7, 1.0], 4) + 1e-3 * rng.random(16)
    x = 5 * cost + 0.1 * rng.normal(size=16)
    y = 5 * cost + 0.1 * rng.normal(size=16)
    band = bands(cost)
    weights = resamples(16, np.random.default_rng(0), 20)
    found = banded(x, y, band, weights)
    for value, row in zip(found, weights.astype(int), strict=True):
        left: list[list[float]] = [[], []]
        for number in range(4):
            count = np.where(band == number, row, 0)
            for out, v in zip(left, (x, y), strict=True):
                drawn = np.repeat(v, count)
                out.extend(drawn - drawn.mean() if len(drawn) else [])
        assert value == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-10)
    # Cost explains nearly everything, the rest is unrelated.
    assert pearson(x, y, ones(16))[0] > 0.98
    assert abs(found[0]) < 0.7


def test_noise_between_seeds() -> None:
    repeats = [np.array([0.5, 0.7]), np.array([0.6, 0.6, 0.9]), np.array([0.1])]
    # Squares .02 and .06 with one and two degrees of freedom.
    assert seed_noise(repeats) == pytest.approx(np.sqrt(0.08 / 3))
    assert np.isnan(seed_noise([np.array([0.5])]))
    found = noise(np.array([0.1, 0.5, 0.9]), [np.array([0.5, 0.7])])
    assert found.std == pytest.approx(0.4)
    assert found.ratio == pytest.approx(0.4 / np.sqrt(0.02))
    assert found.ceiling == pytest.approx(np.sqrt(1 - 0.02 / 0.16))
    assert noise(np.array([0.1, 0.2]), [np.array([0.0, 1.0])]).ceiling == 0
    assert np.isnan(noise(np.array([0.5, 0.5]), [np.array([0.1, 0.2])]).ratio)
    assert noise(np.array([0.5, 0.6]), [np.array([0.1, 0.1])]).ratio == float("inf")
    unknown = noise(np.array([0.5, 0.6]), [np.array([0.1])])
    assert np.isnan([unknown.seed_std, unknown.ratio, unknown.ceiling]).all()


def test_the_ceiling_is_what_a_perfect_predictor_reaches() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=20_000)
    seeds = truth[:, None] + 0.8 * rng.normal(size=(20_000, 2))
    found = noise(seeds[:, 0], list(seeds))
    assert found.seed_std == pytest.approx(0.8, abs=0.02)
    assert found.ceiling == pytest.approx(np.corrcoef(truth, seeds[:, 0])[0, 1], abs=0.02)


def test_subsets() -> None:
    use, quality = np.array([0.5, 0.1, 0.9, 0.3, 0.7]), np.array([0.2, 0.1, 0.9, 0.8, 0.3])
    found = subsets(use, quality)
    assert found[""].tolist() == [0, 1, 2, 3, 4]
    assert found["_cheapest_half"].tolist() == [1, 3, 0]
    assert found["_best_quarter"].tolist() == [2, 3]


class TestCompare:
    @pytest.fixture
    def data(self) -> tuple[Floats, Floats, Floats]:
        rng = np.random.default_rng(6)
        use = rng.uniform(0.1, 1, (3, 24))
        full = use + 0.2 * rng.normal(size=(3, 24))
        return full + 0.3 * rng.normal(size=(3, 24)), full, use

    def test_rows_are_tasks_mean_accuracy_and_mean_over_tasks(
        self, data: tuple[Floats, Floats, Floats]
    ) -> None:
        score, full, use = data
        found = correlations(score, full, use, np.random.default_rng(0), 200)
        own = [stats.pearsonr(x, y)[0] for x, y in zip(score, full, strict=True)]
        mean = stats.pearsonr(score.mean(axis=0), full.mean(axis=0))[0]
        values = [estimate.value for estimate in found["pearson"]]
        assert values == pytest.approx([*own, mean, np.mean(own)])
        best = np.argsort(-full.mean(axis=0))[:6]
        half = np.argsort(use.mean(axis=0))[:12]
        for name, oracle in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
            for suffix, chosen in (("_best_quarter", best), ("_cheapest_half", half)):
                expected = oracle(score[1, chosen], full[1, chosen])[0]
                assert found[name + suffix][1].value == pytest.approx(expected)
        same = beside_use(score, full, use, resamples(24, np.random.default_rng(0), 200))
        assert {name: found[name] for name in same} == same
        for estimates in found.values():
            assert len(estimates) == 5
            for estimate in estimates:
                assert estimate.low <= estimate.value <= estimate.high

    def test_the_interval_covers_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(7)
        covered = 0
        for _ in range(100):
            x = rng.normal(size=60)
            y = 0.6 * x + 0.8 * rng.normal(size=60)  # a true correlation of .6
            found = correlations(x[None], y[None], rng.random((1, 60)), rng, 200)["pearson"][0]
            covered += found.low <= 0.6 <= found.high
        # About 94 of 100 are expected, give or take 2.4 by chance.
        assert 85 <= covered <= 99

    def test_a_task_that_does_not_vary_counts_as_0(
        self, data: tuple[Floats, Floats, Floats]
    ) -> None:
        score, full, use = data
        score[1] = 0.25
        found = correlations(score, full, use, np.random.default_rng(0), 100)
        assert np.isnan([found["pearson"][1].value, found["kendall"][1].low]).all()
        own = [found["pearson"][row].value for row in (0, 2)]
        assert found["pearson"][4].value == pytest.approx(sum(own) / 3)

    def test_the_same_seed_gives_the_same_interval(
        self, data: tuple[Floats, Floats, Floats]
    ) -> None:
        first, again = (correlations(*data, np.random.default_rng(3), 50) for _ in range(2))
        assert first == again

    def test_too_few_candidates(self) -> None:
        found = correlations(
            np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2)), np.random.default_rng(0)
        )
        assert all(np.isnan(e.value) for estimates in found.values() for e in estimates)
        assert isinstance(found["banded"][3], Estimate)

    def test_bad_input(self) -> None:
        rng = np.random.default_rng(0)
        with pytest.raises(ValueError, match=r"\(T, N\)"):
            correlations(np.ones((2, 3)), np.ones((2, 4)), np.ones((2, 4)), rng)
        with pytest.raises(ValueError, match="finite"):
            correlations(np.full((1, 3), np.nan), np.ones((1, 3)), np.ones((1, 3)), rng)
