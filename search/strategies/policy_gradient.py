r"""A policy-gradient agent: one small network, one search, a whole front.

After Auto-VirtualNet (Kim et al., section 3.3, eq. 5-8) and deep elastic networks (DEN; Ahn et al.
2019, eq. 6-8). Legend: B budgets, S samples per budget, d entries of a vector, h = b + 1 levels of
an entry ("nothing" included), H hidden units.

    eq. 5     the agent gives, for budget weight $\rho_i$, one categorical distribution over the h
              levels of each of the d entries
    eq. 6     a candidate is a sample of it; levels lie evenly in [0, 1]
    eq. 7     all budgets are sampled in every generation
    eq. 8     reward $r = q - \rho_i u^2$, with quality q in place of the negative loss and mean
              use u in place of the mean share of a module's parameters
    DEN 7     $\nabla J = \frac{1}{|Z|} \sum_{z \in Z} r(z) \nabla \log p(z)$ (REINFORCE)
    DEN 8     initially $p = (1 - \tau)/h + \tau$ for the highest level, $(1 - \tau)/h$ for others

Differs from the papers: DEN's eq. 8 is a distribution over whole networks, here it holds for every
entry of channel use on its own (the joint one does not factorise), and other entries start
uniform. Rewards have the mean of the budget's other samples taken off (leave-one-out baseline) and
are divided by their root mean square over the generation, so that learning rate and entropy weight
mean the same whatever the spread of qualities. Actions of the epsilon-greedy exploration are drawn
from (1 - epsilon) p + epsilon / h per entry, and it is the logarithm of *that* probability which
is differentiated: the estimate stays unbiased for the policy that really acts, and the gradient of
an improbable action stays bounded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search.strategies.ledger import Ledger
from search.strategies.protocol import FloatArray, Outcome, Problem
from search.strategies.random_search import uniform_vector

STREAM = 2
USES = ("cost", "vector")


@dataclass(frozen=True, kw_only=True)
class PolicyGradientSettings:
    """Settings of the policy-gradient agent.

    Attributes:
        budgets: Budget weights rho, different, finite and not negative: quality given up for the
            use of all channels. A generation is budgets x samples candidates.
        samples: Samples S per budget and generation, at least 2 (the baseline needs another one).
        levels: Highest level b of an entry, at least 1; there are b + 1.
        tau: Weight of the highest level in the initial distribution of use entries, in [0, 1).
        learning_rate: Adam's, positive.
        entropy: Weight of the entropy bonus, not negative.
        epsilon: Share of entries drawn uniformly in the first generation, in [0, 1].
        epsilon_decay: What epsilon is multiplied with after every generation, in (0, 1].
        hidden: Hidden units H of the network, at least 1.
        use: What the reward takes for the mean use u: "cost", the outcome's cost (mean channel use
            unless the study measures another one, which should then lie in [0, 1] as well), or
            "vector", the mean of the proposal's use entries.

    Raises:
        ValueError: If a value is outside its range.
    """

    budgets: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
    samples: int = 4
    levels: int = 10
    tau: float = 0.75
    learning_rate: float = 0.05
    entropy: float = 0.01
    epsilon: float = 0.2
    epsilon_decay: float = 0.9
    hidden: int = 16
    use: str = "cost"

    def __post_init__(self) -> None:
        if not self.budgets or len(set(self.budgets)) != len(self.budgets):
            raise ValueError(f"budgets must be one or more different weights, got {self.budgets}")
        if not all(rho >= 0.0 and math.isfinite(rho) for rho in self.budgets):
            raise ValueError(f"budgets must be finite and not negative, got {self.budgets}")
        if self.samples < 2:
            raise ValueError(
                "samples must be at least 2, as a sample's baseline is the mean of its budget's "
                f"others, got {self.samples}"
            )
        if self.levels < 1 or self.hidden < 1:
            raise ValueError(
                f"levels and hidden must be at least 1, got {self.levels} and {self.hidden}"
            )
        if not 0.0 <= self.tau < 1.0:
            raise ValueError(f"tau must be in [0, 1), got {self.tau}")
        if not (self.learning_rate > 0.0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")
        if not (self.entropy >= 0.0 and math.isfinite(self.entropy)):
            raise ValueError(f"entropy must be finite and not negative, got {self.entropy}")
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon must be in [0, 1], got {self.epsilon}")
        if not 0.0 < self.epsilon_decay <= 1.0:
            raise ValueError(f"epsilon_decay must be in (0, 1], got {self.epsilon_decay}")
        if self.use not in USES:
            raise ValueError(f"use must be one of {', '.join(USES)}, got {self.use!r}")


def leave_one_out(rewards_BS: FloatArray) -> FloatArray:
    """Rewards less the mean reward of the same budget's other samples, over their RMS.

    Args:
        rewards_BS: Shape (B, S); NaN where the candidate failed.

    Returns:
        Shape (B, S), root mean square 1 over those that count; 0 where a candidate failed, has no
        surviving sibling, or where no reward differs from its siblings'.

    Example:
        >>> leave_one_out(np.array([[3.0, 1.0], [5.0, np.nan]]))
        array([[ 1., -1.],
               [ 0.,  0.]])
    """
    alive_BS = ~np.isnan(rewards_BS)
    others_B1 = alive_BS.sum(axis=1, keepdims=True) - 1
    counts_BS = alive_BS & (others_B1 >= 1)
    total_B1 = np.nansum(rewards_BS, axis=1, keepdims=True)
    baseline_BS = (total_B1 - rewards_BS) / np.maximum(1, others_B1)
    advantage_BS = np.where(counts_BS, rewards_BS - baseline_BS, 0.0)
    # Equal rewards leave rounding errors, which must not be blown up to 1.
    advantage_BS[np.abs(advantage_BS) <= 1e-12 * (1.0 + np.abs(np.nan_to_num(rewards_BS)))] = 0.0
    if not counts_BS.any():
        return advantage_BS
    rms = math.sqrt(float(np.square(advantage_BS[counts_BS]).mean()))
    return advantage_BS / rms if rms > 0.0 else advantage_BS


def log_behaviour(log_p_BDh: Tensor, epsilon: float) -> Tensor:
    """Logarithms of what acts, (1 - epsilon) p + epsilon / h per entry, shape (B, d, h)."""
    if epsilon == 0.0:
        return log_p_BDh
    return torch.log((1.0 - epsilon) * log_p_BDh.exp() + epsilon / log_p_BDh.shape[-1])


def reinforce(log_behaviour_BDh: Tensor, levels_BDS: Tensor, advantage_BS: Tensor) -> Tensor:
    """A scalar whose gradient estimates that of the expected reward (DEN, eq. 7).

    Args:
        log_behaviour_BDh: Logarithms of the probabilities that the levels were drawn with.
        levels_BDS: Levels drawn, int64 in [0, h).
        advantage_BS: Rewards less their baselines; 0 where there is nothing to learn from.

    Returns:
        Mean over the B x S samples of advantage x logarithm of the candidate's probability.
    """
    log_candidate_BS = log_behaviour_BDh.gather(-1, levels_BDS).sum(1)
    return (advantage_BS * log_candidate_BS).mean()


class Agent:
    """The network: budget weight in, a categorical distribution per entry out (eq. 5).

    A layer of H tanh units reads sqrt(rho / largest rho), which spreads small weights; a linear
    layer gives the d x h logits. The last layer's weights start at 0 and its biases at the
    logarithm of DEN's eq. 8, so that every budget starts exactly there.

    Weights are double precision and belong to the agent's own generator: what is proposed does
    then not depend on how many threads add up a sum, nor on torch's global seed.
    """

    def __init__(
        self, problem: Problem, settings: PolicyGradientSettings, generator: torch.Generator
    ) -> None:
        self._shape = (problem.dim, settings.levels + 1)
        self._largest = max(settings.budgets)
        num_levels = settings.levels + 1
        initial_Dh = torch.full(self._shape, 1.0 / num_levels, dtype=torch.float64)
        use = list(problem.use_dims)
        initial_Dh[use] = (1.0 - settings.tau) / num_levels  # DEN, eq. 8
        initial_Dh[use, -1] += settings.tau

        def uniform(*shape: int) -> Tensor:
            # Within (-3, 3), units bend at different budgets; Xavier's bound for one input would
            # leave all of them linear and alike.
            drawn = torch.rand(shape, dtype=torch.float64, generator=generator)
            return (6.0 * drawn - 3.0).requires_grad_()

        self._in_1H = uniform(1, settings.hidden)
        self._in_bias_H = uniform(settings.hidden)
        self._out_HL = torch.zeros(
            (settings.hidden, initial_Dh.numel()), dtype=torch.float64, requires_grad=True
        )
        self._out_bias_L = initial_Dh.log().flatten().requires_grad_()

    def parameters(self) -> list[Tensor]:
        """The trainable tensors."""
        return [self._in_1H, self._in_bias_H, self._out_HL, self._out_bias_L]

    def log_probabilities(self, budgets: Sequence[float]) -> Tensor:
        """Logarithms of the distributions (eq. 5), shape (B, d, h), for B budget weights."""
        rho_B1 = torch.tensor(budgets, dtype=torch.float64).unsqueeze(1)
        position_B1 = 2.0 * torch.sqrt(rho_B1 / (self._largest or 1.0)) - 1.0
        hidden_BH = torch.tanh(position_B1 @ self._in_1H + self._in_bias_H)
        logits_BL = hidden_BH @ self._out_HL + self._out_bias_L
        return torch.log_softmax(logits_BL.reshape(-1, *self._shape), dim=-1)


class PolicyGradient:
    """Samples every budget in each generation and follows REINFORCE.

    Asks for a whole generation, then waits: `ask` returns nothing while outcomes of a generation
    are outstanding. Failed candidates drop out of the estimate, as does a candidate left without
    siblings; where nothing is left, the network stays as it is and new samples are drawn.

    Raises:
        ValueError: If the reward is to take the use from a vector that has no use entries.
    """

    def __init__(self, problem: Problem, settings: PolicyGradientSettings) -> None:
        if settings.use == "vector" and not problem.use_dims:
            raise ValueError('use must be "cost" in a space without use entries, got "vector"')
        self._problem = problem
        self._settings = settings
        self._ledger = Ledger()
        self._generation = 0
        sequence = np.random.SeedSequence(problem.seed, spawn_key=(STREAM,))
        self._generator = torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))
        self._agent = Agent(problem, settings, self._generator)
        self._optimizer = torch.optim.Adam(self._agent.parameters(), lr=settings.learning_rate)
        #: Levels of the generation that is out, (S, B, d); None for the initial batch.
        self._levels_SBD: Tensor | None = None
        self._ledger.queue(
            uniform_vector(problem.seed, index, problem.dim) for index in range(problem.initial)
        )

    def probabilities(self, rho: float) -> FloatArray:
        """The distribution over levels for a budget weight, without exploration, shape (d, h)."""
        with torch.no_grad():
            return self._agent.log_probabilities([rho])[0].exp().numpy()

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes the next at most n samples of the generation; none while it is outstanding."""
        return self._ledger.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in outcomes, and makes a step once the generation is complete.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal.
        """
        self._ledger.tell(outcomes)
        if not self._ledger.settled:
            return
        generation = self._ledger.drain()
        if self._levels_SBD is not None:
            self._learn(self._rewards(generation), self._levels_SBD)
            self._generation += 1
        self._levels_SBD = self._sample()

    @property
    def _epsilon(self) -> float:
        return self._settings.epsilon * self._settings.epsilon_decay**self._generation

    def _sample(self) -> Tensor:
        """Queues a generation (eq. 6, 7) and returns its levels, shape (S, B, d)."""
        settings = self._settings
        shape = (settings.samples, len(settings.budgets), self._problem.dim)
        with torch.no_grad():
            log_p_BDh = self._agent.log_probabilities(settings.budgets)
            behaviour_BDh = log_behaviour(log_p_BDh, self._epsilon).exp()
        drawn_SBD = torch.rand(shape, dtype=torch.float64, generator=self._generator)
        # Inverse of the cumulative distribution; the last bound is left out, as rounding may
        # leave it below a draw.
        above_SBDh = drawn_SBD.unsqueeze(-1) >= behaviour_BDh.cumsum(-1)[..., :-1]
        levels_SBD = above_SBDh.sum(-1)
        # Sample by sample, so that a generation cut off by the end of the search covers all
        # budgets alike.
        vectors = (levels_SBD.double() / settings.levels).flatten(0, 1).numpy()
        self._ledger.queue(vectors)
        return levels_SBD

    def _rewards(self, generation: list[Outcome]) -> FloatArray:
        """Rewards (eq. 8), shape (B, S); NaN where a candidate failed."""
        settings = self._settings
        rewards = np.full(len(generation), np.nan)
        for i, outcome in enumerate(generation):
            if outcome.failed:
                continue
            quality, cost = outcome.scores()
            if settings.use == "vector":
                cost = float(np.mean(outcome.vector[list(self._problem.use_dims)]))
            rewards[i] = quality - settings.budgets[i % len(settings.budgets)] * cost**2
        return rewards.reshape(settings.samples, len(settings.budgets)).T

    def _learn(self, rewards_BS: FloatArray, levels_SBD: Tensor) -> None:
        """One step of Adam on the entropy-regularised REINFORCE estimate (DEN, eq. 7)."""
        advantage_BS = leave_one_out(rewards_BS)
        if not advantage_BS.any():
            return
        log_p_BDh = self._agent.log_probabilities(self._settings.budgets)
        expected = reinforce(
            log_behaviour(log_p_BDh, self._epsilon),
            levels_SBD.permute(1, 2, 0),
            torch.from_numpy(advantage_BS),
        )
        entropy = -(log_p_BDh.exp() * log_p_BDh).sum(dim=(1, 2)).mean()
        self._optimizer.zero_grad()
        loss = -(expected + self._settings.entropy * entropy)
        torch.autograd.backward(loss)
        self._optimizer.step()
