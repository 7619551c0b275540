import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search.strategies.policy_gradient import (
    PolicyGradient,
    PolicyGradientSettings,
    leave_one_out,
    log_behaviour,
    reinforce,
)
from search.strategies.protocol import FloatArray, Outcome, Problem

DIM = 5
USE = (0, 2)
Score = Callable[[FloatArray], tuple[float, float]]


def make_problem(seed: int = 0, use_dims: tuple[int, ...] = USE) -> Problem:
    return Problem(
        dim=DIM,
        names=tuple(f"entry[{i}]" for i in range(DIM)),
        use_dims=use_dims,
        seed=seed,
        baselines={},
        initial=1,
    )


def build(problem: Problem | None = None, **changes: Any) -> PolicyGradient:
    """An agent that has been told of the initial batch: candidate 1 is the first of its own."""
    settings = dataclasses.replace(PolicyGradientSettings(), **changes)
    agent = PolicyGradient(problem or make_problem(), settings)
    (vector,) = agent.ask(1)
    agent.tell([Outcome(index=0, vector=vector, quality=0.5, cost=0.5)])
    return agent


def mean_use(vector: FloatArray) -> float:
    return float(vector[list(USE)].mean())


def saturating(vector: FloatArray) -> tuple[float, float]:
    """The first channels matter most: every budget weight has its own best use."""
    use = mean_use(vector)
    return 1.0 - math.exp(-4.0 * use), use


def generation(strategy: PolicyGradient, score: Score | None, start: int) -> FloatArray:
    """Answers one generation, with failures where there is no score; returns its vectors."""
    vectors = strategy.ask(100_000)
    outcomes = []
    for i, vector in enumerate(vectors, start=start):
        quality, cost = (None, None) if score is None else score(vector)
        outcomes.append(Outcome(index=i, vector=vector, quality=quality, cost=cost))
    strategy.tell(outcomes)
    return np.array(vectors)


def learn(strategy: PolicyGradient, score: Score, num_generations: int) -> PolicyGradient:
    index = 1
    for _ in range(num_generations):
        index += len(generation(strategy, score, index))
    return strategy


def expected_use(strategy: PolicyGradient, rho: float) -> float:
    probabilities_dh = strategy.probabilities(rho)
    levels_h = np.linspace(0.0, 1.0, probabilities_dh.shape[1])
    return float((probabilities_dh[list(USE)] @ levels_h).mean())


@pytest.mark.parametrize(("tau", "levels"), [(0.75, 10), (0.75, 1), (0.0, 4), (0.5, 4)])
@pytest.mark.parametrize("rho", [0.0, 0.05, 0.3, 0.8])
def test_the_initial_distribution_is_equation_8(tau: float, levels: int, rho: float) -> None:
    probabilities_dh = build(tau=tau, levels=levels).probabilities(rho)
    num_levels = levels + 1
    assert probabilities_dh.shape == (DIM, num_levels)
    for entry in range(DIM):
        for level in range(num_levels):
            if entry not in USE:
                expected = 1.0 / num_levels
            elif level == levels:
                expected = (1.0 - tau) / num_levels + tau
            else:
                expected = (1.0 - tau) / num_levels
            assert probabilities_dh[entry, level] == pytest.approx(expected, rel=1e-12)


def test_the_first_generation_is_drawn_from_the_initial_distribution() -> None:
    num, levels, epsilon = 4000, 4, 0.2
    strategy = build(budgets=(0.0, 0.5), samples=num // 2, levels=levels, epsilon=epsilon)
    drawn = np.array(strategy.ask(num)) * levels
    np.testing.assert_array_equal(drawn, np.round(drawn))
    for rows in (drawn[::2], drawn[1::2]):  # both budgets
        for entry in range(DIM):
            share_h = np.bincount(rows[:, entry].astype(int), minlength=levels + 1) / len(rows)
            p_h = strategy.probabilities(0.0)[entry]
            expected_h = (1 - epsilon) * p_h + epsilon / (levels + 1)
            # 4.5 standard errors; there are 50 comparisons.
            tolerance_h = 4.5 * np.sqrt(expected_h * (1 - expected_h) / len(rows))
            assert (np.abs(share_h - expected_h) < tolerance_h).all()
    # Entries and samples are drawn apart from each other.
    correlation = np.corrcoef(drawn.T) - np.eye(DIM)
    assert np.abs(correlation).max() < 4.5 / num**0.5
    assert abs(np.corrcoef(drawn[1:, 1], drawn[:-1, 1])[0, 1]) < 4.5 / num**0.5


def test_exploration_decays_as_set() -> None:
    num, levels = 3000, 4
    strategy = build(
        budgets=(0.0,), samples=num, levels=levels, tau=0.9, epsilon=1.0, epsilon_decay=0.5
    )
    initial = strategy.probabilities(0.0)[USE[0], -1]
    for step in range(3):
        # All fail, so that nothing is learnt and the share of the highest level follows epsilon.
        vectors = generation(strategy, None, 1 + step * num)
        epsilon = 0.5**step
        expected = (1 - epsilon) * initial + epsilon / (levels + 1)
        share = float((vectors[:, list(USE)] == 1.0).mean())
        assert share == pytest.approx(expected, abs=4.5 * 0.5 / (2 * num) ** 0.5)
    assert strategy.probabilities(0.0)[USE[0], -1] == initial


def test_a_generation_samples_every_budget_alike() -> None:
    strategy = build(budgets=(0.0, 0.1, 0.2), samples=5)
    assert len(strategy.ask(1000)) == 15
    assert strategy.ask(1000) == []


@given(
    rewards=st.lists(
        st.lists(st.one_of(st.floats(-1.0, 1.0), st.just(float("nan"))), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_leave_one_out_against_loops(rewards: list[list[float]]) -> None:
    rewards_BS = np.array(rewards)
    expected_BS = np.zeros_like(rewards_BS)
    counted = []
    for b, s in itertools.product(range(len(rewards)), range(3)):
        others = [r for i, r in enumerate(rewards[b]) if i != s and not math.isnan(r)]
        if math.isnan(rewards[b][s]) or not others:
            continue
        expected_BS[b, s] = rewards[b][s] - sum(others) / len(others)
        counted.append(expected_BS[b, s] ** 2)
    rms = math.sqrt(sum(counted) / len(counted)) if counted else 0.0
    before = rewards_BS.copy()
    advantage_BS = leave_one_out(rewards_BS)
    np.testing.assert_array_equal(rewards_BS, before)
    # Differences of 1e-12 may pass for rounding errors.
    if rms > 1e-9:
        np.testing.assert_allclose(advantage_BS, expected_BS / rms, atol=1e-2)
    else:
        assert np.isfinite(advantage_BS).all()


def test_equal_rewards_have_no_advantage() -> None:
    # 0.1 + 0.2 is not 0.3: a rounding error must not pass for a difference.
    assert not leave_one_out(np.full((3, 4), 0.1)).any()
    assert not leave_one_out(np.array([[0.3, 0.1 + 0.2, 0.3]])).any()
    assert not leave_one_out(np.full((2, 3), np.nan)).any()


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_the_estimate_is_the_gradient_of_the_expected_reward(epsilon: float) -> None:
    # Two entries of three levels: the expectation over what acts can be summed up.
    rng = np.random.default_rng(0)
    reward_of = rng.random((3, 3))
    logits_BDh = torch.tensor(rng.normal(size=(1, 2, 3)), requires_grad=True)

    behaviour_BDh = log_behaviour(torch.log_softmax(logits_BDh, -1), epsilon)
    p_Dh = behaviour_BDh.exp()[0]
    np.testing.assert_allclose(p_Dh.sum(-1).detach(), 1.0)
    expected_reward = sum(
        reward_of[i, j] * p_Dh[0, i] * p_Dh[1, j] for i, j in itertools.product(range(3), range(3))
    )
    assert isinstance(expected_reward, torch.Tensor)
    (exact,) = torch.autograd.grad(expected_reward, logits_BDh)

    num = 200_000
    drawn = [rng.choice(3, num, p=p_Dh[entry].detach().numpy()) for entry in range(2)]
    rewards_BS = reward_of[drawn[0], drawn[1]][None]
    advantage_BS = leave_one_out(rewards_BS)
    rms = (rewards_BS - rewards_BS.mean()).std()
    levels_BDS = torch.tensor(np.stack(drawn)[None])
    behaviour_BDh = log_behaviour(torch.log_softmax(logits_BDh, -1), epsilon)
    surrogate = reinforce(behaviour_BDh, levels_BDS, torch.from_numpy(advantage_BS))
    (estimate,) = torch.autograd.grad(surrogate, logits_BDh)
    # Advantages have mean square 1 and the gradient of a log-probability is at most 1.
    tolerance = 5 * rms / num**0.5
    np.testing.assert_allclose(estimate.numpy() * rms, exact.numpy(), atol=tolerance)
    assert exact.abs().max() > 5 * tolerance


def test_improbable_levels_give_finite_gradients() -> None:
    logits_BDh = torch.tensor([[[0.0, -2000.0]]], dtype=torch.float64, requires_grad=True)
    for epsilon in (0.0, 1e-320, 0.5, 1.0):
        log_p_BDh = log_behaviour(torch.log_softmax(logits_BDh, -1), epsilon)
        surrogate = reinforce(
            log_p_BDh, torch.tensor([[[0]]]), torch.ones((1, 1), dtype=torch.float64)
        )
        (gradient,) = torch.autograd.grad(surrogate, logits_BDh)
        assert torch.isfinite(gradient).all()


def test_mean_use_falls_as_the_budget_weight_rises() -> None:
    budgets = (0.0, 0.3, 1.0, 3.0)
    strategy = learn(build(budgets=budgets, samples=8), saturating, 60)
    uses = [expected_use(strategy, rho) for rho in budgets]
    assert uses == sorted(uses, reverse=True)
    # The best by calculus: 4 exp(-4 u) = 2 rho u. Levels are 0.1 apart; over
    # eight seeds the largest difference was 0.053.
    np.testing.assert_allclose(uses, [1.0, 0.60, 0.40, 0.25], atol=0.08)


def test_the_reward_is_quality_less_rho_times_squared_cost() -> None:
    # With d = 1 and the two budgets 0 and 1, quality grows by 1/2 and squared cost by 1: the
    # first budget should go up, the second down; with the cost not squared both would be as good
    # at any level, as cost is 0.5 + use / 2 here.
    def score(vector: FloatArray) -> tuple[float, float]:
        use = float(vector[0])
        return 0.5 * use, 0.5 + 0.5 * use

    problem = Problem(dim=1, names=("use",), use_dims=(0,), seed=0, baselines={}, initial=1)
    strategy = build(problem, budgets=(0.0, 1.0), samples=16, levels=1, tau=0.0)
    learn(strategy, score, 40)
    assert strategy.probabilities(0.0)[0, 1] > 0.9
    assert strategy.probabilities(1.0)[0, 1] < 0.1


def test_the_use_is_the_cost_by_default_and_the_vector_if_set() -> None:
    def constant(vector: FloatArray) -> tuple[float, float]:
        return 0.5, 0.5

    def misleading(vector: FloatArray) -> tuple[float, float]:
        return 0.5, 1.0 - mean_use(vector)

    initial = expected_use(build(), 0.5)
    settings: dict[str, Any] = {"budgets": (0.5,), "samples": 16, "entropy": 0.0}
    assert expected_use(learn(build(**settings), constant, 20), 0.5) == pytest.approx(initial)
    assert expected_use(learn(build(**settings), misleading, 40), 0.5) > initial + 0.05
    for score in (constant, misleading):
        assert expected_use(learn(build(use="vector", **settings), score, 40), 0.5) < 0.2


def test_the_difference_of_two_budgets_is_not_taken_for_an_advantage() -> None:
    # Qualities of a budget are all the same: however much better another one is, there is
    # nothing to learn.
    strategy = build(budgets=(0.0, 0.5), samples=3)
    before = [strategy.probabilities(rho) for rho in (0.0, 0.5)]
    vectors = strategy.ask(6)
    strategy.tell(
        [
            Outcome(index=i, vector=vector, quality=float(i % 2), cost=0.5)
            for i, vector in enumerate(vectors, start=1)
        ]
    )
    for rho, probabilities in zip((0.0, 0.5), before, strict=True):
        np.testing.assert_array_equal(strategy.probabilities(rho), probabilities)


def test_entropy_keeps_the_distribution_wide() -> None:
    def entropy_after(weight: float) -> float:
        strategy = learn(build(budgets=(0.0,), entropy=weight, samples=8), saturating, 40)
        p_dh = strategy.probabilities(0.0)
        return float(-(p_dh * np.log(p_dh)).sum(axis=1).mean())

    narrow, wide, widest = entropy_after(0.0), entropy_after(0.3), entropy_after(30.0)
    assert narrow < wide < widest
    assert widest == pytest.approx(math.log(11), abs=0.05)


def test_where_all_is_explored_there_is_no_gradient() -> None:
    # What acts does then not depend on the network. Taking the network's own probabilities of
    # explored levels would move it.
    strategy = build(epsilon=1.0, epsilon_decay=1.0, entropy=0.0)
    before = strategy.probabilities(0.1)
    learn(strategy, saturating, 3)
    np.testing.assert_array_equal(strategy.probabilities(0.1), before)


def test_single_survivors_teach_nothing() -> None:
    strategy = build(budgets=(0.0, 0.5), samples=3)
    before = strategy.probabilities(0.0)
    vectors = strategy.ask(6)
    strategy.tell(
        [
            Outcome(index=i, vector=vector, quality=0.1 * i if i < 3 else None, cost=0.5)
            for i, vector in enumerate(vectors, start=1)
        ]
    )
    np.testing.assert_array_equal(strategy.probabilities(0.0), before)
    assert len(strategy.ask(100)) == 6


def test_weights_depend_on_the_seed() -> None:
    # Before the first step all seeds agree on the distribution, so let them take the same one.
    def after(seed: int) -> FloatArray:
        return learn(build(make_problem(seed)), lambda v: (float(v.mean()), 0.5), 1).probabilities(
            0.3
        )

    np.testing.assert_array_equal(after(0), after(0))
    assert not np.array_equal(after(0), after(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": ()}, r"budgets must be one or more different weights, got \(\)"),
        ({"budgets": (0.1, 0.1)}, "budgets must be one or more different weights"),
        ({"budgets": (0.1, -0.1)}, "budgets must be finite and not negative"),
        ({"budgets": (float("nan"),)}, "budgets must be finite and not negative"),
        ({"samples": 1}, "samples must be at least 2.* got 1"),
        ({"levels": 0}, "levels and hidden must be at least 1, got 0 and 16"),
        ({"hidden": 0}, "levels and hidden must be at least 1, got 10 and 0"),
        ({"tau": 1.0}, r"tau must be in \[0, 1\), got 1.0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"entropy": -1.0}, "entropy must be finite and not negative, got -1.0"),
        ({"epsilon": 1.5}, r"epsilon must be in \[0, 1\], got 1.5"),
        ({"epsilon_decay": 0.0}, r"epsilon_decay must be in \(0, 1\], got 0.0"),
        ({"use": "macs"}, "use must be one of cost, vector, got 'macs'"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyGradientSettings(**changes)


def test_the_use_of_a_vector_without_use_entries_is_refused() -> None:
    with pytest.raises(ValueError, match='use must be "cost" in a space without use entries'):
        build(make_problem(use_dims=()), use="vector")
    assert build(make_problem(use_dims=())).ask(1)


def test_a_single_budget_of_zero_works() -> None:
    strategy = learn(build(budgets=(0.0,)), saturating, 3)
    assert np.isfinite(strategy.probabilities(0.0)).all()
