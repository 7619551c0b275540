"""The policy-gradient agent's network: from tasks and a cost weight to distributions.

Auto-VirtualNet, eq. 5. Legend: B cost weights, d entries, F features, H hidden units, k parameters
of an entry's distribution, T tasks.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from partitioning import FloatArray
from search.strategies.agent.distributions import Distribution
from search.strategies.protocol import Problem


def features(problem: Problem) -> FloatArray:
    """What the network reads of every entry, shape (d, F).

    Of the tasks that an entry concerns, the mean of log classes, log images and teacher accuracy
    (standardised over the tasks), how far these lie apart, and how alike the tasks' teachers are;
    of a single task, how alike its teacher is to the others on average. Before them, whether it is
    an entry of channel use, and how many tasks it concerns. What the problem does not know is 0.
    """
    kind_D2 = np.zeros((problem.dim, 2))
    kind_D2[list(problem.use_dims), 0] = 1.0
    facts_T3 = np.array(
        [
            [math.log(t.classes), math.log(t.images), t.teacher_accuracy or 0.0]
            for t in problem.tasks
        ]
    ).reshape(-1, 3)
    if len(facts_T3):
        facts_T3 = (facts_T3 - facts_T3.mean(0)) / np.maximum(facts_T3.std(0), 1e-9)
    told_D7 = np.zeros((problem.dim, 7))
    for entry, concerned in enumerate(problem.concerns):
        tasks = list(concerned)
        kind_D2[entry, 1] = len(tasks) - 1.0
        if tasks and len(facts_T3):
            told_D7[entry, :3] = facts_T3[tasks].mean(0)
            told_D7[entry, 3:6] = np.ptp(facts_T3[tasks], axis=0)
        if tasks and problem.similarity is not None:
            # Of a single task with the others, of several among themselves.
            rows = problem.similarity[tasks]
            alike = rows if len(tasks) == 1 else rows[:, tasks]
            pairs = alike.size - len(tasks)
            told_D7[entry, 6] = (alike.sum() - len(tasks)) / pairs if pairs else 0.0
    return np.concatenate([kind_D2, told_D7], axis=1)


class Agent:
    """What is known of the tasks and a cost weight in, parameters of distributions out.

    A layer of H tanh units reads sqrt(rho / largest rho), which spreads small weights, and the
    entry's features. A linear layer that all entries share, one of each entry's own, and its own
    bias give the distribution's parameters. The two layers start at 0 and the bias at DEN's eq. 8,
    so that every cost weight starts exactly there.

    Weights are double precision and belong to the agent's own generator: what is proposed does
    then not depend on how many threads add up a sum, nor on torch's global seed.
    """

    def __init__(
        self,
        problem: Problem,
        distribution: Distribution,
        *,
        largest: float,
        hidden: int,
        tau: float,
        generator: torch.Generator,
    ) -> None:
        self._largest = largest or 1.0
        self._features_DF = torch.from_numpy(features(problem))
        num_features = self._features_DF.shape[1]

        def uniform(bound: float, *shape: int) -> Tensor:
            drawn = torch.rand(shape, dtype=torch.float64, generator=generator)
            return (bound * (2.0 * drawn - 1.0)).requires_grad_()

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, requires_grad=True)

        # Within (-3, 3), units bend at different cost weights; Xavier's bound for one input would
        # leave all of them linear and alike.
        self._rho_H = uniform(3.0, hidden)
        self._in_FH = uniform(1.0 / math.sqrt(num_features), num_features, hidden)
        self._in_bias_H = uniform(3.0, hidden)
        self._shared_Hk = zeros(hidden, distribution.size)
        self._own_DHk = zeros(problem.dim, hidden, distribution.size)
        use_D = torch.zeros(problem.dim, dtype=torch.bool)
        use_D[list(problem.use_dims)] = True
        self._bias_Dk = distribution.initial(use_D, tau).requires_grad_()

    def parameters(self) -> list[Tensor]:
        """The tensors that are trained, all of them leaves."""
        return [
            self._rho_H, self._in_FH, self._in_bias_H,
            self._shared_Hk, self._own_DHk, self._bias_Dk,
        ]  # fmt: skip

    def __call__(self, cost_weights: Sequence[float]) -> Tensor:
        """Parameters of the distributions, shape (B, d, k), for B cost weights."""
        rho_B11 = torch.tensor(cost_weights, dtype=torch.float64).reshape(-1, 1, 1)
        position_B11 = 2.0 * torch.sqrt(rho_B11 / self._largest) - 1.0
        entry_DH = self._features_DF @ self._in_FH + self._in_bias_H
        hidden_BDH = torch.tanh(position_B11 * self._rho_H + entry_DH)
        own_BDk = torch.einsum("bdh,dhk->bdk", hidden_BDH, self._own_DHk)
        parameters_BDk: Tensor = hidden_BDH @ self._shared_Hk + own_BDk + self._bias_Dk
        return parameters_BDk
