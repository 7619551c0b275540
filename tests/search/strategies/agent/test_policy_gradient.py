import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning import FloatArray
from search.strategies import Outcome, Problem
from search.strategies.agent.distributions import Continuous, Distribution, Levels
from search.strategies.agent.policy_gradient import (
    PolicyGradient,
    PolicyGradientSettings,
    importance,
    leave_one_out,
    surrogate,
)
from search.strategies.batches import Batches

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


def build(problem: Problem | None = None, **changes: Any) -> Batches[PolicyGradient]:
    """An agent that has been told of the initial batch: candidate 1 is the first of its own."""
    settings = dataclasses.replace(PolicyGradientSettings(), **changes)
    problem = problem or make_problem()
    agent = Batches(problem, PolicyGradient(problem, settings))
    (vector,) = agent.ask(1)
    agent.tell([Outcome(index=0, vector=vector, quality=0.5, cost=0.5)])
    return agent


def mean_use(vector: FloatArray) -> float:
    return float(vector[list(USE)].mean())


def saturating(vector: FloatArray) -> tuple[float, float]:
    """Each task's first channels matter most: every budget weight has its own best use."""
    quality = float((1.0 - np.exp(-4.0 * vector[list(USE)])).mean())
    return quality, mean_use(vector)


def generation(strategy: Batches[PolicyGradient], score: Score | None, start: int) -> FloatArray:
    """Answers one generation, with failures where there is no score; returns its vectors."""
    vectors = strategy.ask(100_000)
    outcomes = []
    for i, vector in enumerate(vectors, start=start):
        quality, cost = (None, None) if score is None else score(vector)
        outcomes.append(Outcome(index=i, vector=vector, quality=quality, cost=cost))
    strategy.tell(outcomes)
    return np.array(vectors)


def learn(
    strategy: Batches[PolicyGradient], score: Score, num_generations: int
) -> Batches[PolicyGradient]:
    index = 1
    for _ in range(num_generations):
        index += len(generation(strategy, score, index))
    return strategy


def expected_use(strategy: Batches[PolicyGradient], rho: float) -> float:
    return float(strategy.learner.mean(rho)[list(USE)].mean())


@pytest.mark.parametrize("distribution", ["levels", "continuous"])
def test_the_first_generation_is_drawn_from_equation_8(distribution: str) -> None:
    num, levels, tau, epsilon = 4000, 4, 0.75, 0.2
    strategy = build(
        cost_weights=(0.0, 0.5), samples=num // 2, distribution=distribution, levels=levels,
        tau=tau, epsilon=epsilon,
    )  # fmt: skip
    drawn_ND = np.array(strategy.ask(num))
    explored = 1.0 / (levels + 1) if distribution == "levels" else 0.0
    full = {"levels": tau + (1 - tau) / (levels + 1), "continuous": tau}[distribution]
    expected = (1 - epsilon) * full + epsilon * explored
    # 4.5 standard errors.
    tolerance = 4.5 * (expected * (1 - expected) / num * 2) ** 0.5
    for rows in (drawn_ND[::2], drawn_ND[1::2]):  # both cost weights
        share_U = (rows[:, list(USE)] == 1.0).mean(axis=0)
        np.testing.assert_allclose(share_U, expected, atol=tolerance)
    others = [i for i in range(DIM) if i not in USE]
    # Symmetric around 1/2, with a standard deviation of at most 0.5.
    np.testing.assert_allclose(drawn_ND[:, others].mean(0), 0.5, atol=4.5 * 0.5 / num**0.5)
    # Entries and samples are drawn apart from each other.
    assert np.abs(np.corrcoef(drawn_ND.T) - np.eye(DIM)).max() < 4.5 / num**0.5
    assert abs(np.corrcoef(drawn_ND[1:, 1], drawn_ND[:-1, 1])[0, 1]) < 4.5 / num**0.5


def test_exploration_decays_as_set() -> None:
    num, levels, tau = 3000, 4, 0.9
    strategy = build(
        cost_weights=(0.0,), samples=num, levels=levels, tau=tau, epsilon=1.0, epsilon_decay=0.5
    )
    for step in range(3):
        # All fail, so that nothing is learnt and the share of the highest level follows epsilon.
        vectors = generation(strategy, None, 1 + step * num)
        epsilon = 0.5**step
        expected = (1 - epsilon) * tau + 1 / (levels + 1) * (1 - tau * (1 - epsilon))
        share = float((vectors[:, list(USE)] == 1.0).mean())
        assert share == pytest.approx(expected, abs=4.5 * 0.5 / (2 * num) ** 0.5)


def test_a_generation_samples_every_budget_alike() -> None:
    strategy = build(cost_weights=(0.0, 0.1, 0.2), samples=5)
    assert len(strategy.ask(1000)) == 15
    assert strategy.ask(1000) == []


@given(
    rewards=arrays(
        np.float64, (2, 3), elements=st.one_of(st.floats(-1.0, 1.0), st.just(float("nan")))
    ),
    weights=arrays(np.float64, (2, 3), elements=st.floats(0.01, 2.0)),
)
def test_leave_one_out_against_loops(rewards: FloatArray, weights: FloatArray) -> None:
    rewards_BN = np.where(
        np.isnan(rewards).any(axis=0), np.nan, rewards
    )  # failed for all cost weights
    before = rewards_BN.copy()
    advantage_BN = leave_one_out(rewards_BN, weights)
    np.testing.assert_array_equal(rewards_BN, before)
    for reward, weight, advantage in zip(rewards_BN, weights, advantage_BN, strict=True):
        alive = [n for n in range(3) if not math.isnan(reward[n])]
        expected = np.zeros(3)
        for n in alive:
            others = [i for i in alive if i != n]
            if others:
                total = sum(weight[i] for i in others)
                expected[n] = reward[n] - sum(weight[i] * reward[i] for i in others) / total
        total = sum(weight[n] for n in alive)
        rms = math.sqrt(sum(weight[n] * expected[n] ** 2 for n in alive) / total) if alive else 0.0
        # Differences of 1e-12 may pass for rounding errors.
        if rms > 1e-9:
            np.testing.assert_allclose(advantage, expected / rms, atol=1e-2)
        else:
            assert np.isfinite(advantage).all()


def test_equal_rewards_have_no_advantage() -> None:
    # 0.1 + 0.2 is not 0.3: a rounding error must not pass for a difference.
    for rewards in (np.full((3, 4), 0.1), [[0.3, 0.1 + 0.2, 0.3]], np.full((2, 3), np.nan)):
        assert not leave_one_out(np.array(rewards), np.ones(np.shape(rewards))).any()


def test_importance_weights_of_parted_budgets() -> None:
    log_density_BN = np.array([[-1e4, 0.0, -5.0], [-2e4, -1e4, -5.0]])
    np.testing.assert_allclose(importance(log_density_BN), [[2, 2, 1], [0, 0, 1]])


@pytest.mark.parametrize("distribution", [Levels(2), Continuous()])
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_the_estimate_is_the_gradient_of_the_expected_reward(
    distribution: Distribution, epsilon: float
) -> None:
    # Two cost weights whose distributions differ, of one entry: the expectation over what acts is
    # a sum over levels, or an integral between two probabilities.
    rng = np.random.default_rng(0)
    parameters_BDk = torch.tensor(rng.normal(size=(2, 1, distribution.size)), requires_grad=True)
    penalty_B = np.array([0.2, 2.0])

    def rewards_of(values: FloatArray) -> FloatArray:
        quality = 0.8 + np.sin(2.5 * values)
        return np.asarray(quality - penalty_B[:, None] * values**2)

    def log_density(values: FloatArray) -> torch.Tensor:
        given = torch.from_numpy(values[:, None])
        return distribution.log_density(parameters_BDk, given, epsilon)[..., 0]

    if isinstance(distribution, Levels):
        grid, step = np.array([0.0, 0.5, 1.0]), np.ones(3)
    else:
        inside = (np.arange(20_000) + 0.5) / 20_000
        grid = np.concatenate([[0.0, 1.0], inside])
        step = np.concatenate([[1.0, 1.0], np.full(20_000, 1 / 20_000)])
    p_BG = log_density(grid).exp() * torch.from_numpy(step)
    np.testing.assert_allclose(p_BG.sum(-1).detach(), 1.0, atol=1e-6)
    reward_B = (p_BG * torch.from_numpy(rewards_of(grid))).sum(-1)
    (exact,) = torch.autograd.grad(reward_B.sum(), parameters_BDk)

    num = 100_000
    uniform_SB1 = torch.tensor(rng.random((num, 2, 1)))
    policy_SB1 = distribution.sample(parameters_BDk.detach(), uniform_SB1)
    explored_SB1 = distribution.explore(torch.tensor(rng.random((num, 2, 1))))
    acted = torch.where(torch.tensor(rng.random((num, 2, 1))) < epsilon, explored_SB1, policy_SB1)
    values = acted.flatten().numpy()
    rewards_BN = rewards_of(values)
    log_BN = log_density(values)
    (estimate,) = torch.autograd.grad(surrogate(log_BN, rewards_BN), parameters_BDk)
    # The surrogate divides by each budget's RMS.
    p_BG = p_BG.detach()
    variance_B = (p_BG * torch.from_numpy(rewards_of(grid)) ** 2).sum(-1) - reward_B.detach() ** 2
    estimate *= variance_B.sqrt()[:, None, None]
    # Advantages have mean square 1, weights are at most 2, and the gradient of a log-density is
    # about 1 for logits and 0.2 for the continuous parameters: 5 standard errors.
    slope = 1.0 if isinstance(distribution, Levels) else 0.2
    tolerance = 5 * float(variance_B.max()) ** 0.5 * 2.0 * slope / (2 * num) ** 0.5
    np.testing.assert_allclose(estimate.numpy(), exact.numpy(), atol=tolerance)
    assert exact.abs().max() > 5 * tolerance


@pytest.mark.parametrize("distribution", ["levels", "continuous"])
def test_mean_use_falls_as_the_budget_weight_rises(distribution: str) -> None:
    cost_weights = (0.0, 0.3, 1.0, 3.0, 10.0)
    strategy = build(cost_weights=cost_weights, samples=16, distribution=distribution)
    learn(strategy, saturating, 60)
    uses = [expected_use(strategy, rho) for rho in cost_weights]
    # The best by calculus: 4 exp(-4 u) = 2 rho u, and the upper bound without a penalty. Levels
    # are 0.1 apart; over six seeds the largest differences were 0.025 and 0.094.
    tolerance = {"levels": 0.06, "continuous": 0.15}[distribution]
    np.testing.assert_allclose(uses, [1.0, 0.603, 0.402, 0.250, 0.125], atol=tolerance)
    # Over the whole range, not only at the cost weights that were sampled.
    between = [expected_use(strategy, rho) for rho in np.linspace(0.0, 10.0**0.5, 21) ** 2]
    assert np.diff(between).max() < 1e-3
    assert np.diff(between[::4]).max() < 0.0


def test_the_reward_is_quality_less_rho_times_squared_cost() -> None:
    # With d = 1 and the two cost weights 0 and 1, quality grows by 1/2 and squared cost by 1: the
    # first budget should go up, the second down; with the cost not squared both would be as good
    # at any level, as cost is 0.5 + use / 2 here.
    def score(vector: FloatArray) -> tuple[float, float]:
        use = float(vector[0])
        return 0.5 * use, 0.5 + 0.5 * use

    problem = Problem(dim=1, names=("use",), use_dims=(0,), seed=0, baselines={}, initial=1)
    strategy = build(problem, cost_weights=(0.0, 1.0), samples=16, levels=1, tau=0.0)
    learn(strategy, score, 40)
    assert strategy.learner.mean(0.0)[0] > 0.9
    assert strategy.learner.mean(1.0)[0] < 0.1


def test_the_use_is_the_cost_by_default_and_the_vector_if_set() -> None:
    def constant(vector: FloatArray) -> tuple[float, float]:
        return 0.5, 0.5

    def misleading(vector: FloatArray) -> tuple[float, float]:
        return 0.5, 1.0 - mean_use(vector)

    initial = expected_use(build(), 0.5)
    settings: dict[str, Any] = {"cost_weights": (0.5,), "samples": 16, "entropy": 0.0}
    assert expected_use(learn(build(**settings), constant, 20), 0.5) == pytest.approx(initial)
    assert expected_use(learn(build(**settings), misleading, 40), 0.5) > initial + 0.05
    for score in (constant, misleading):
        assert expected_use(learn(build(use="vector", **settings), score, 40), 0.5) < 0.2


def test_entropy_keeps_the_distribution_wide() -> None:
    def use_after(weight: float) -> float:
        strategy = build(cost_weights=(0.0,), entropy=weight, samples=8)
        return expected_use(learn(strategy, saturating, 40), 0.0)

    # Widest of all is the uniform distribution, of mean 1/2.
    narrow, wide, widest = use_after(0.0), use_after(1.0), use_after(30.0)
    assert narrow > wide > widest
    assert widest == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("distribution", ["levels", "continuous"])
def test_where_all_is_explored_there_is_no_gradient(distribution: str) -> None:
    # What acts does then not depend on the network. Taking the network's own probabilities of
    # explored levels would move it.
    strategy = build(epsilon=1.0, epsilon_decay=1.0, entropy=0.0, distribution=distribution)
    before = strategy.learner.mean(0.1)
    learn(strategy, saturating, 3)
    np.testing.assert_array_equal(strategy.learner.mean(0.1), before)


def test_a_single_survivor_teaches_nothing() -> None:
    strategy = build(cost_weights=(0.0, 0.5), samples=3)
    before = strategy.learner.mean(0.0)
    vectors = strategy.ask(6)
    strategy.tell(
        [
            Outcome(index=i, vector=vector, quality=0.1 if i == 3 else None, cost=0.5)
            for i, vector in enumerate(vectors, start=1)
        ]
    )
    np.testing.assert_array_equal(strategy.learner.mean(0.0), before)
    assert len(strategy.ask(100)) == 6


def test_a_budget_learns_from_the_candidates_of_others() -> None:
    # All that the first budget draws fails: what it learns, it learns from the second.
    cost_weights, samples = (0.0, 0.01), 64
    strategy = build(cost_weights=cost_weights, samples=samples, entropy=0.0)
    before = expected_use(strategy, 0.0)
    vectors = strategy.ask(1000)
    outcomes = []
    for i, vector in enumerate(vectors):
        quality = 1.0 - mean_use(vector) if i % 2 else None
        outcomes.append(Outcome(index=1 + i, vector=vector, quality=quality, cost=0.5))
    strategy.tell(outcomes)
    assert expected_use(strategy, 0.0) < before - 0.05


def test_weights_depend_on_the_seed() -> None:
    # Before the first step all seeds agree on the distribution, so let them take the same one.
    def after(seed: int) -> FloatArray:
        strategy = build(make_problem(seed))
        return learn(strategy, lambda v: (float(v.mean()), 0.5), 1).learner.mean(0.3)

    np.testing.assert_array_equal(after(0), after(0))
    assert not np.array_equal(after(0), after(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cost_weights": ()}, r"cost_weights must be one or more different numbers, .* got \[\]"),
        ({"cost_weights": (0.1, 0.1)}, r"one or more different numbers, .* got \[0.1, 0.1\]"),
        ({"cost_weights": (0.1, -0.1)}, r"cost_weights .* not negative, got \[0.1, -0.1\]"),
        ({"cost_weights": (float("nan"),)}, r"each finite and not negative, got \[nan\]"),
        ({"samples": 1}, "samples must be at least 2.* got 1"),
        ({"levels": 0}, "levels must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"tau": 1.0}, r"tau must be in \[0, 1\), got 1.0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"entropy": -1.0}, "entropy must be finite and not negative, got -1.0"),
        ({"epsilon": 1.5}, r"epsilon must be in \[0, 1\], got 1.5"),
        ({"epsilon_decay": 0.0}, r"epsilon_decay must be in \(0, 1\], got 0.0"),
        ({"distribution": "beta"}, "distribution must be one of levels, continuous, got 'beta'"),
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
    strategy = learn(build(cost_weights=(0.0,)), saturating, 3)
    assert np.isfinite(strategy.learner.mean(0.0)).all()
