r"""A policy-gradient agent: one small network, one search, a whole front.

After Auto-VirtualNet (Kim et al., section 3.3, eq. 5-8) and deep elastic networks (DEN; Ahn et al.
2019, eq. 6-8). Legend: B cost weights, S samples per cost weight, N = B x S candidates of a
generation, d entries of a vector, h = b + 1 levels of an entry ("nothing" included).

    eq. 5     the agent (`network.py`) gives, for what is known of the tasks and a
              cost weight $\rho_i$, a distribution for each of the d entries: over h levels that
              lie evenly in [0, 1], or a continuous one (`distributions.py`)
    eq. 6     a candidate is a sample of it
    eq. 7     all cost weights are sampled in every generation
    eq. 8     reward $r = q - \rho_i u^2$, with quality q in place of the negative loss and mean
              use u in place of the mean share of a module's parameters
    DEN 7     $\nabla J = \frac{1}{|Z|} \sum_{z \in Z} r(z) \nabla \log p(z)$ (REINFORCE)
    DEN 8     initially $p = (1 - \tau)/h + \tau$ for the highest level, $(1 - \tau)/h$ for others

Differs from the papers:

- DEN's eq. 8 is a distribution over whole networks. Here it holds for every entry of channel use on
  its own (the joint one does not factorise), and other entries start uniform.
- Every candidate teaches every cost weight. Its reward is known for all of them, and with weights
  $w_i = p_i(z) / \frac{1}{B} \sum_j p_j(z)$ (the balance heuristic of Veach and Guibas 1995) a
  generation counts as drawn from the mixture of all cost weights: the estimate stays unbiased and
  weights are at most B. At the start, when cost weights agree, each learns from B times as many
  candidates; when they have parted, each is left with its own.
- Rewards have the weighted mean of the other candidates taken off (leave-one-out baseline) and are
  divided by their root mean square, cost weight by cost weight, so that learning rate and entropy
  weight mean the same whatever the spread of qualities and of penalties.
- Entries are explored at random with probability epsilon. The p of weights and gradients is that
  of the mixture, (1 - epsilon) p + epsilon uniform, the policy that really acts, and the gradient
  of an improbable action stays bounded.
- The initial batch, which all strategies share, teaches nothing: steps on it, which helped with 64
  candidates, hurt with 500.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from partitioning import FloatArray
from partitioning.settings import (
    DIFFERENT,
    NOT_NEGATIVE,
    POSITIVE,
    at_least,
    checked,
    each,
    interval,
    one_of,
)
from search.strategies.agent.distributions import DISTRIBUTIONS, Continuous, Distribution, Levels
from search.strategies.agent.network import Agent
from search.strategies.protocol import Outcome, Problem
from search.strategies.streams import Stream, seed_of
from trainers import policy

USES = ("cost", "vector")
# What the others of a baseline must weigh; their own cost weight weighs each of its candidates up
# to B.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, kw_only=True)
@checked()
class PolicyGradientSettings:
    """Settings of the policy-gradient agent.

    Attributes:
        cost_weights: Cost weights rho: quality given up for the use of all channels. A generation
            is cost weights x samples candidates.
        samples: Samples S per cost weight and generation.
        distribution: The distribution of an entry: levels, or continuous, a Gaussian cut to [0, 1].
        levels: Highest level b of an entry; there are b + 1.
        tau: Weight of full use in the initial distribution of use entries. The papers' 0.75 costs a
            generation or two; less is better for less than a hundred candidates.
        learning_rate: Learning rate of Adam.
        entropy: Weight of the entropy bonus.
        epsilon: Share of entries drawn uniformly in the first generation.
        epsilon_decay: What epsilon is multiplied with after every generation.
        hidden: Hidden units H of the network.
        use: What the reward takes for the mean use u: cost, the outcome's cost (the study's
            `objective.cost`, which lies in [0, 1]), or vector, the mean of the proposal's use
            entries.

    Raises:
        ValueError: A value is outside its range.
    """

    cost_weights: Annotated[tuple[float, ...], DIFFERENT, each(NOT_NEGATIVE)] = (
        0.0,
        0.3,
        1.0,
        3.0,
        10.0,
    )
    samples: Annotated[
        int, at_least(2, "a sample's baseline is the mean of the others of its cost weight")
    ] = 4
    distribution: Annotated[str, one_of(DISTRIBUTIONS)] = "levels"
    levels: Annotated[int, at_least(1)] = 10
    tau: Annotated[float, interval("[0, 1)")] = 0.75
    learning_rate: Annotated[float, POSITIVE] = 0.1
    entropy: Annotated[float, NOT_NEGATIVE] = 0.3
    epsilon: Annotated[float, interval("[0, 1]")] = 0.2
    epsilon_decay: Annotated[float, interval("(0, 1]")] = 0.9
    hidden: Annotated[int, at_least(1)] = 16
    use: Annotated[str, one_of(USES)] = "cost"


def importance(log_density_BN: FloatArray) -> FloatArray:
    """Weights under which candidates of all cost weights together count as each cost weight's own.

    Args:
        log_density_BN: Logarithms of every cost weight's density at every candidate, shape (B, N),
            where each cost weight has drawn as many candidates as any other.

    Returns:
        Shape (B, N), in [0, B], of mean 1 over the cost weights.

    Example:
        >>> importance(np.log([[0.3, 0.5], [0.1, 0.5]]))
        array([[1.5, 1. ],
               [0.5, 1. ]])
    """
    ratio_BN = np.exp(log_density_BN - log_density_BN.max(axis=0))
    weights_BN: FloatArray = ratio_BN / ratio_BN.mean(axis=0)
    return weights_BN


def leave_one_out(rewards_BN: FloatArray, weights_BN: FloatArray) -> FloatArray:
    """Rewards less the weighted mean reward of the others, over their cost weight's RMS.

    Args:
        rewards_BN: Every candidate's reward under every cost weight; NaN where it failed.
        weights_BN: How much the candidate counts for the cost weight, not negative.

    Returns:
        Shape (B, N), of weighted root mean square 1 over those of a cost weight that count; 0 where
        a candidate failed, where others weigh next to nothing, or where no reward differs.

    Example:
        >>> leave_one_out(np.array([[3.0, 1.0, np.nan]]), np.ones((1, 3)))
        array([[ 1., -1.,  0.]])
    """
    alive_BN = ~np.isnan(rewards_BN)
    weights_BN = np.where(alive_BN, weights_BN, 0.0)
    rewards_BN = np.where(alive_BN, rewards_BN, 0.0)
    weighted_BN = weights_BN * rewards_BN
    others_BN = weights_BN.sum(axis=1, keepdims=True) - weights_BN
    counts_BN = alive_BN & (others_BN > LEAST_WEIGHT)
    baseline_BN = weighted_BN.sum(axis=1, keepdims=True) - weighted_BN
    baseline_BN /= np.where(counts_BN, others_BN, 1.0)
    advantage_BN = np.where(counts_BN, rewards_BN - baseline_BN, 0.0)
    # Equal rewards leave rounding errors, which must not be blown up to 1.
    advantage_BN[np.abs(advantage_BN) <= 1e-12 * (1.0 + np.abs(rewards_BN))] = 0.0
    weights_BN = weights_BN * counts_BN
    total_B1 = np.maximum(weights_BN.sum(axis=1, keepdims=True), LEAST_WEIGHT)
    square_B1 = (weights_BN * np.square(advantage_BN)).sum(axis=1, keepdims=True) / total_B1
    return advantage_BN / np.sqrt(np.where(square_B1 > 0.0, square_B1, 1.0))


def surrogate(log_density_BN: Tensor, rewards_BN: FloatArray) -> Tensor:
    """A scalar whose gradient estimates that of the expected reward, summed over cost weights.

    Args:
        log_density_BN: Logarithms of every cost weight's density at every candidate.
        rewards_BN: Every candidate's reward under every cost weight; NaN where it failed.

    Returns:
        DEN's eq. 7, weighted by importance times advantage.
    """
    weights_BN = importance(log_density_BN.detach().numpy())
    advantage_BN = leave_one_out(rewards_BN, weights_BN)
    return (torch.from_numpy(weights_BN * advantage_BN) * log_density_BN).mean(1).sum()


class PolicyGradient:
    """Samples every cost weight in each generation and follows REINFORCE.

    Failed candidates drop out of the estimate, as does a candidate left without siblings; where
    nothing is left, the network stays as it is and new samples are drawn.

    Raises:
        ValueError: If the reward is to take the use from a vector that has no use entries.
    """

    def __init__(self, problem: Problem, settings: PolicyGradientSettings) -> None:
        if settings.use == "vector" and not problem.use_dims:
            raise ValueError('use must be "cost" in a space without use entries, got "vector"')
        self._problem = problem
        self._settings = settings
        seed = seed_of(problem.seed, Stream.POLICY_GRADIENT)
        self._generator = torch.Generator().manual_seed(seed)
        self._distribution: Distribution = (
            Levels(settings.levels) if settings.distribution == "levels" else Continuous()
        )
        self._agent = Agent(
            problem,
            self._distribution,
            largest=max(settings.cost_weights),
            hidden=settings.hidden,
            tau=settings.tau,
            generator=self._generator,
        )
        self._generation = 0  # of the initial batch

    @cached_property
    def _optimizer(self) -> torch.optim.Adam:
        """Made for the first step, as torch loads a second's worth for it: a check makes none."""
        return torch.optim.Adam(self._agent.parameters(), lr=self._settings.learning_rate)

    def mean(self, rho: float) -> FloatArray:
        """Expected entries for a cost weight, without exploration, shape (d,)."""
        with torch.no_grad():
            return self._distribution.mean(self._agent([rho]))[0].numpy()

    def learn(self, batch: list[Outcome]) -> FloatArray:
        """Makes a step, of all generations but the initial batch, and samples the next one."""
        if self._generation > 0:
            self._step(batch)
        self._generation += 1
        return self._sample()

    @property
    def _epsilon(self) -> float:
        return self._settings.epsilon * self._settings.epsilon_decay ** (self._generation - 1)

    def _sample(self) -> FloatArray:
        """A generation (eq. 6, 7), shape (S B, d)."""
        settings = self._settings
        shape = (2, settings.samples, len(settings.cost_weights), self._problem.dim)
        chosen_SBD, drawn_SBD = torch.rand(shape, dtype=torch.float64, generator=self._generator)
        with torch.no_grad():
            policy_SBD = self._distribution.sample(self._agent(settings.cost_weights), drawn_SBD)
        explored_SBD = self._distribution.explore(drawn_SBD)
        values_SBD = policy.explore(policy_SBD, chosen_SBD, explored_SBD, self._epsilon)
        # Sample by sample, so that a generation cut off by the end of the search covers all
        # cost weights alike.
        return values_SBD.flatten(0, 1).numpy()

    def _rewards(self, generation: list[Outcome]) -> FloatArray:
        """Rewards under every cost weight (eq. 8), shape (B, N); NaN where a candidate failed."""
        use_dims = list(self._problem.use_dims)
        rho_B = np.array(self._settings.cost_weights)
        rewards_BN = np.full((len(rho_B), len(generation)), np.nan)
        for n, outcome in enumerate(generation):
            if outcome.failed:
                continue
            quality, use = outcome.scores()
            if self._settings.use == "vector":
                use = float(np.mean(outcome.vector[use_dims]))
            rewards_BN[:, n] = quality - rho_B * use**2
        return rewards_BN

    def _step(self, generation: list[Outcome]) -> None:
        """One step of Adam on the entropy-regularised REINFORCE estimate (DEN, eq. 7)."""
        rewards_BN = self._rewards(generation)
        if not leave_one_out(rewards_BN, np.ones_like(rewards_BN)).any():
            return
        values_ND = torch.from_numpy(np.array([outcome.vector for outcome in generation]))
        parameters_BDk = self._agent(self._settings.cost_weights)
        log_density_BND = self._distribution.log_density(parameters_BDk, values_ND, self._epsilon)
        expected = surrogate(log_density_BND.sum(-1), rewards_BN)
        entropy = self._distribution.entropy(parameters_BDk).sum()
        self._optimizer.zero_grad()
        loss = -(expected + self._settings.entropy * entropy)
        torch.autograd.backward(loss)
        self._optimizer.step()
