"""What rankings are worth: ties, ends and a plain loop."""

import numpy as np
import pytest

from search.stats import ndcg, regret


def test_ranking_by_value_is_best_and_its_reverse_is_worst() -> None:
    value = np.random.default_rng(0).random(20)
    assert ndcg(value, value, 5) == pytest.approx(1)
    worst = ndcg(-value, value, 5)
    others = [ndcg(np.random.default_rng(s).random(20), value, 5) for s in range(1, 51)]
    assert 0 <= worst < min(others)
    assert max(others) < 1
    assert ndcg(10 * value - 3, value + 7, 5) == pytest.approx(1), "units do not count"


def test_ties_count_as_the_mean_over_their_orders() -> None:
    value = np.array([0.1, 0.9, 0.5, 0.3])
    score = np.array([1.0, 1.0, 2.0, 0.0])
    orders = [ndcg(score + np.array([d, -d, 0, 0]), value, 2) for d in (0.1, -0.1)]
    assert ndcg(score, value, 2) == pytest.approx(np.mean(orders))
    assert regret(np.zeros(4), value) == pytest.approx(0.9 - value.mean())


def test_nothing_to_tell_apart() -> None:
    assert np.isnan(ndcg(np.arange(3.0), np.full(3, 0.5), 2))
    assert np.isnan(ndcg(np.empty(0), np.empty(0), 2))
    assert np.isnan(regret(np.empty(0), np.empty(0)))
    assert regret(np.arange(3.0), np.full(3, 0.5)) == 0
