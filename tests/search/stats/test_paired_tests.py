"""Statistics of a comparison: closed forms, plain loops, SciPy, and error rates by simulation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from search.stats import Estimate, compare_pairs, estimates, fewest_seeds, least_p, mean_interval
from search.stats.paired_tests import EXACT, holm, sign_flip

Floats = NDArray[np.float64]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestSignFlip:
    @settings(deadline=None)
    @given(st.lists(st.integers(-3, 3), min_size=2, max_size=7))
    def test_by_enumeration(self, differences: list[int]) -> None:
        found = sign_flip(np.array([differences]) / 7, rng())[0]
        sums = [
            abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in product((-1, 1), repeat=len(differences))
        ]
        expected = sum(s >= abs(sum(differences)) for s in sums) / len(sums)
        assert found == pytest.approx(expected)

    @pytest.mark.parametrize("count", [3, 8, 12])
    def test_is_scipys(self, count: int) -> None:
        difference = rng(count).normal(0.4, 1, (3, count))
        expected = [
            stats.permutation_test(
                (row,), np.mean, permutation_type="samples", n_resamples=np.inf
            ).pvalue
            for row in difference
        ]
        assert sign_flip(difference, rng()) == pytest.approx(expected)

    def test_the_smallest_possible(self) -> None:
        for count in range(2, 13):
            found = sign_flip(np.ones((1, count)), rng())[0]
            assert found == least_p(count) == 2 / 2**count
        assert least_p(EXACT + 9) == sign_flip(np.ones((1, EXACT + 9)), rng())[0]

    def test_many_seeds_are_drawn(self) -> None:
        # 17 seeds: all flips can still be counted by dynamic programming over whole numbers.
        difference = rng(1).integers(-3, 6, EXACT + 1)
        ways = {0: 1}
        for d in difference:
            fresh: dict[int, int] = {}
            for total, n in ways.items():
                for s in (-1, 1):
                    fresh[total + s * int(d)] = fresh.get(total + s * int(d), 0) + n
            ways = fresh
        far = sum(n for total, n in ways.items() if abs(total) >= abs(difference.sum()))
        exact = far / 2 ** (EXACT + 1)
        found = sign_flip(difference[None].astype(float), rng())[0]
        assert 0.01 < exact < 0.5
        # Four standard deviations of 2^16 draws.
        assert abs(found - exact) < 4 * np.sqrt(exact / 2**EXACT)

    def test_nothing_varies(self) -> None:
        assert sign_flip(np.zeros((2, 6)), rng()).tolist() == [1, 1]
        assert sign_flip(np.full((1, 6), 0.1 + 0.2), rng())[0] == 2 / 64


class TestHolm:
    def test_by_hand(self) -> None:
        # Holm 1979: 4 x .005, 3 x .01, 2 x .03, 1 x .04, each at least the one before.
        found = holm(np.array([0.01, 0.04, 0.03, 0.005]))
        assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
        assert holm(np.array([0.2])).tolist() == [0.2]

    @settings(deadline=None)
    @given(st.lists(st.floats(0.001, 1), min_size=1, max_size=8), st.floats(0.01, 0.9))
    def test_rejects_what_the_stepwise_procedure_rejects(
        self, given_p: list[float], level: float
    ) -> None:
        p = np.array(given_p)
        rejected = set()
        for step, index in enumerate(np.argsort(p, kind="stable")):
            if p[index] * (len(p) - step) > level:
                break
            rejected.add(int(index))
        assert set(np.flatnonzero(holm(p) <= level).tolist()) == rejected


class TestInterval:
    def test_of_many_normal_values_is_students(self) -> None:
        values = rng(3).normal(2, 1, 200)
        (found,) = estimates(values[:, None], rng())
        low, high = stats.t.interval(0.95, 199, values.mean(), values.std(ddof=1) / np.sqrt(200))
        assert (found.value, found.low, found.high) == pytest.approx(
            (values.mean(), low, high), abs=0.02
        )

    @pytest.mark.parametrize(("count", "least"), [(5, 0.87), (10, 0.91), (20, 0.92)])
    def test_coverage(self, count: int, least: float) -> None:
        """Of 600 samples; the standard deviation of a share of .95 is .009."""
        draws = rng(count)
        for draw in (draws.standard_normal, lambda size: draws.gamma(4, size=size) / 2 - 2):
            low, high = mean_interval(draw((count, 600)), rng(), 2000)
            covered = float(((low <= 0) & (high >= 0)).mean())
            assert least < covered < 0.98

    def test_is_as_wide_as_students(self) -> None:
        values = rng(4).normal(size=(10, 600))
        low, high = mean_interval(values, rng(), 4000)
        wide = 2 * stats.t.ppf(0.975, 9) * values.std(axis=0, ddof=1) / np.sqrt(10)
        assert np.mean((high - low) / wide) == pytest.approx(1, abs=0.03)

    def test_of_few_seeds_is_their_range(self) -> None:
        found, constant = estimates(np.array([[0.1, 0.3], [0.4, 0.3]]), rng())
        assert found == Estimate(value=0.25, low=0.1, high=0.4)
        found = constant
        assert found.low == pytest.approx(found.value)
        assert found.low <= found.value <= found.high
        with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
            estimates(np.array([[0.1]]), rng())

    def test_columns_are_resampled_together(self) -> None:
        values = rng(1).normal(size=(6, 1)) * np.array([1.0, 2.0])
        low, high = mean_interval(values, rng())
        assert low[1] == pytest.approx(2 * low[0])
        assert high[1] == pytest.approx(2 * high[0])
        again = mean_interval(values, rng())
        assert np.array_equal(again, (low, high))


def experiment(draws: np.random.Generator, shifts: list[float], seeds: int) -> dict[str, Floats]:
    """Strategies whose seeds have in common how good a start they give."""
    start = draws.normal(0, 2, seeds)
    return {f"s{i}": start + shift + draws.normal(size=seeds) for i, shift in enumerate(shifts)}


class TestPairs:
    def test_family_wise_error(self) -> None:
        """400 experiments of five equal strategies and ten seeds: any claim is an error.

        So many errors as are refused have a chance of 1 in 1,000 where the rate is 5 %; uncorrected
        tests make about 100. Fewer than 4 would say that the tests are blunter than they need be.
        """
        draws = rng(7)
        errors, uncorrected = 0, 0
        for _ in range(400):
            pairs = compare_pairs(experiment(draws, [0] * 5, 10), rng(), 20)
            errors += any(pair.better for pair in pairs)
            uncorrected += any(pair.p < 0.05 for pair in pairs)
        assert 4 <= errors <= stats.binom.isf(0.001, 400, 0.05)
        assert uncorrected > 60

    def test_errors_beside_true_differences(self) -> None:
        """Two strategies are equal, a third is far better: claims about the two are errors."""
        draws = rng(8)
        errors, found = 0, 0
        for _ in range(300):
            better = {
                (p.a, p.b): p.better
                for p in compare_pairs(experiment(draws, [0, 0, 3], 10), rng(), 20)
            }
            errors += better[("s0", "s1") if ("s0", "s1") in better else ("s1", "s0")] is not None
            found += better["s2", "s0"] == better["s2", "s1"] == "s2"
        assert errors <= stats.binom.isf(0.001, 300, 0.05)
        assert found > 270

    def test_power_of_pairing(self) -> None:
        """A shift of 1.5 noises, under starts that vary twice the noise, over 10 seeds."""
        draws = rng(9)
        won = [
            compare_pairs(experiment(draws, [0, 1.5], 10), rng(), 20)[0].better == "s1"
            for _ in range(200)
        ]
        assert np.mean(won) > 0.75

    def test_a_pair_in_full(self) -> None:
        a, b = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0.5, 1, 3, 4.5, 4, 5])
        (pair,) = compare_pairs({"b": b, "a": a}, rng())
        assert (pair.a, pair.b) == ("a", "b")
        assert pair.difference.value == pytest.approx(0.5)
        assert pair.won == pytest.approx(4.5 / 6)
        assert pair.p == pair.p_adjusted == sign_flip((a - b)[None], rng())[0]
        assert pair.better is None
        assert pair.difference.low < 0.5 < pair.difference.high

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="at least 2 strategies"):
            compare_pairs({"a": np.ones(3)}, rng())
        with pytest.raises(ValueError, match="a value for each seed"):
            compare_pairs({"a": np.ones(3), "b": np.ones(4)}, rng())
        with pytest.raises(ValueError, match="finite"):
            compare_pairs({"a": np.ones(3), "b": np.array([1, 2, np.nan])}, rng())

    def test_seeds_that_it_takes(self) -> None:
        for strategies in range(2, 12):
            needed = fewest_seeds(strategies)
            for seeds, possible in ((needed, True), (needed - 1, False)):
                values = {str(i): np.full(seeds, float(i)) for i in range(strategies)}
                pairs = compare_pairs(values, rng(), 20)
                smallest = min(pair.p_adjusted for pair in pairs)
                assert (smallest < 0.05) == possible
