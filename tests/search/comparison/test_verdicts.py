"""What is said of a comparison, in words."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.comparison.verdicts import verdict_of
from search.stats import Estimate, Pair, compare_pairs

Floats = NDArray[np.float64]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def experiment(draws: np.random.Generator, shifts: list[float], seeds: int) -> dict[str, Floats]:
    """Strategies whose seeds have in common how good a start they give."""
    start = draws.normal(0, 2, seeds)
    return {f"s{i}": start + shift + draws.normal(size=seeds) for i, shift in enumerate(shifts)}


def pairs_of(ranked: str, better: set[str], p: float = 0.012) -> list[Pair]:
    """Pairs of strategies with names of one letter, the best first."""
    more = Estimate(value=0.1, low=0.0, high=0.2)
    return [
        Pair(
            a=a, b=b, difference=more, won=0.5, p=p, p_adjusted=p if a + b in better else 0.4
        )
        for a, b in combinations(ranked, 2)
    ]  # fmt: skip


class TestVerdict:
    @pytest.mark.parametrize(
        ("ranked", "better", "expected"),
        [
            (
                "ab",
                {"ab"},
                "a finds the better front: it beats b (Holm-adjusted p <= 0.012, 10 seeds)",
            ),
            (
                "abc",
                {"ab", "ac"},
                "a finds the better front: it beats every other strategy "
                "(Holm-adjusted p <= 0.012, 10 seeds)",
            ),
            (
                "abc",
                {"ac", "bc"},
                "no winner: a and b beat c (Holm-adjusted p < 0.05); between them there is no "
                "difference that 10 seeds could show",
            ),
            (
                "abc",
                set(),
                "no winner: between a, b and c there is no difference that 10 seeds could show "
                "(smallest Holm-adjusted p 0.4)",
            ),
            (
                "abc",
                {"ac"},
                "no winner: a beats c (Holm-adjusted p < 0.05); 10 seeds show no other difference "
                "of a and b, which nothing beats",
            ),
            (
                "abc",
                {"ab", "bc"},
                "no winner: a beats b (Holm-adjusted p < 0.05); 10 seeds show no other difference "
                "of a, which nothing beats",
            ),
            (
                "abcd",
                {"ac", "ad", "bd", "cd"},
                "no winner: a beats c and d; b beats d (Holm-adjusted p < 0.05); 10 seeds show no "
                "other difference of a and b, which nothing beats",
            ),
        ],
    )
    def test_words(self, ranked: str, better: set[str], expected: str) -> None:
        assert verdict_of(pairs_of(ranked, better), 10) == expected

    def test_too_few_seeds(self) -> None:
        assert verdict_of(pairs_of("abc", set(), p=1.0), 5) == (
            "no winner: 5 seeds are too few for a claim (the smallest p that a test of them can "
            "have is 0.062, 0.19 after correction for 3 pairs); it takes 7 seeds or more"
        )
        assert "it takes 6 seeds or more" in verdict_of(pairs_of("ab", set()), 2)
        assert "too few" not in verdict_of(pairs_of("ab", set()), 6)

    def test_all_equal(self) -> None:
        values = {name: np.full(8, 0.5) for name in "abc"}
        pairs = compare_pairs(values, rng())
        assert {pair.won for pair in pairs} == {0.5}
        assert verdict_of(pairs, 8).startswith(
            "no winner: between a, b and c there is no difference"
        )

    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 12))
    def test_never_runs_in_circles(self, seed: int, strategies: int, seeds: int) -> None:
        draws = rng(seed)
        values = experiment(draws, draws.normal(0, 2, strategies).tolist(), seeds)
        pairs = compare_pairs(values, rng(), 20)
        for pair in pairs:
            assert values[pair.a].mean() >= values[pair.b].mean()
        said = verdict_of(pairs, seeds)
        best = max(values, key=lambda name: float(values[name].mean()))
        wins = sum(pair.better == best for pair in pairs)
        assert said.startswith(best if wins == strategies - 1 else "no winner")
