r"""Distributions over [0, 1] for the policy-gradient agent: levels, and a continuous one.

Legend: B cost weights, N candidates, d entries of a vector, k parameters of an entry's
distribution, h = b + 1 levels.

The continuous distribution is a Gaussian cut to [0, 1]: what would fall outside lies on the bound,

    $x = \min(1, \max(0, m + s z))$, $z \sim \mathcal{N}(0, 1)$,

so that 0 and 1 have probabilities of their own, $\Phi(-m / s)$ and $\Phi((m - 1) / s)$, and between
them there is the Gaussian's density. "No channels" and "all channels" are then as easily found as
with levels, which a Beta or a logistic normal distribution, zero or infinite at the bounds, do not
allow.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from trainers import policy

# Of the continuous distribution before anything is learnt: wide enough to see all of [0, 1].
INITIAL_STD = 0.5
# What a head's output of 1 moves the continuous parameters by, so that a learning rate that suits
# the logits of levels does not carry the mean past [0, 1] in a step or two.
GAIN = 0.1
# The standard deviation stays within a factor of exp(this) of the initial one, so that densities
# stay finite.
RANGE = 3.0


class Distribution(Protocol):
    """A family of distributions over [0, 1], one per entry, from the k numbers that a head gives.

    Attributes:
        size: Number k of parameters.
    """

    size: int

    def initial(self, use_D: Tensor, tau: float) -> Tensor:
        """Parameters before anything is learnt, shape (d, k), for boolean use_D, shape (d,).

        A use entry is at its upper bound with a weight of tau more than elsewhere; others are
        spread out.
        """
        ...

    def sample(self, parameters_BDk: Tensor, uniform_SBD: Tensor) -> Tensor:
        """Values of entries, shape (S, B, d), by inverting the cumulative distribution."""
        ...

    def explore(self, uniform: Tensor) -> Tensor:
        """Values drawn whatever the parameters are: uniform ones, of the shape given."""
        ...

    def log_density(self, parameters_BDk: Tensor, values_ND: Tensor, epsilon: float) -> Tensor:
        """Logarithms of (1 - epsilon) p + epsilon p_uniform at each value, shape (B, N, d)."""
        ...

    def entropy(self, parameters_BDk: Tensor) -> Tensor:
        """How wide each distribution is, in nats, shape (B, d)."""
        ...

    def mean(self, parameters_BDk: Tensor) -> Tensor:
        """The expected value of every entry, shape (B, d)."""
        ...


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0.0 else -math.inf


def _normal(z: Tensor) -> Tensor:
    """The density of the standard normal distribution."""
    return torch.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)


class Levels:
    """Categorical over h = b + 1 levels that lie evenly in [0, 1] (Auto-VirtualNet, eq. 5)."""

    def __init__(self, highest: int) -> None:
        self.size = highest + 1
        self._levels_h = torch.linspace(0.0, 1.0, self.size, dtype=torch.float64)

    def initial(self, use_D: Tensor, tau: float) -> Tensor:
        """Use entries follow DEN's eq. 8, and all levels of the others are as likely."""
        used_h, other_h = (policy.initial(weight, self.size) for weight in (tau, 0.0))
        return torch.where(use_D[:, None], used_h, other_h)

    def sample(self, parameters_BDk: Tensor, uniform_SBD: Tensor) -> Tensor:
        """Takes the level whose share of the cumulative distribution a draw falls into."""
        return policy.draw(parameters_BDk, uniform_SBD).double() / (self.size - 1)

    def explore(self, uniform: Tensor) -> Tensor:
        """Draws every level with the same probability."""
        return policy.draw_any(uniform, self.size).to(uniform.dtype) / (self.size - 1)

    def log_density(self, parameters_BDk: Tensor, values_ND: Tensor, epsilon: float) -> Tensor:
        """Mixes the probabilities of levels with the uniform one, 1 / h."""
        levels_ND = torch.round(values_ND * (self.size - 1)).long()
        shape = len(parameters_BDk), *levels_ND.shape
        logits_BNDh = parameters_BDk.unsqueeze(1).expand(*shape, self.size)
        return policy.log_probability(logits_BNDh, levels_ND.expand(shape), epsilon)

    def entropy(self, parameters_BDk: Tensor) -> Tensor:
        """The entropy of the levels, from 0 (one is certain) to log h (all are as likely)."""
        return policy.entropy(parameters_BDk)

    def mean(self, parameters_BDk: Tensor) -> Tensor:
        """The mean of the levels, weighted by their probabilities."""
        return torch.softmax(parameters_BDk, -1) @ self._levels_h


class Continuous:
    """A Gaussian cut to [0, 1], of parameters 10 m and, near 0, 10 log(s / 0.5)."""

    size = 2

    def initial(self, use_D: Tensor, tau: float) -> Tensor:
        """Use entries are 1 with probability tau, as in DEN's eq. 8, and others lie around 1/2."""
        normal = torch.distributions.Normal(0.0, 1.0)
        quantile = float(normal.icdf(torch.tensor(max(tau, 1e-6), dtype=torch.float64)))
        mean_D = torch.where(use_D, 1.0 + INITIAL_STD * quantile, 0.5).double()
        return torch.stack([mean_D / GAIN, torch.zeros_like(mean_D)], -1)

    def sample(self, parameters_BDk: Tensor, uniform_SBD: Tensor) -> Tensor:
        """Draws from the Gaussian, and moves to a bound what falls outside of [0, 1]."""
        mean_BD, std_BD = self._split(parameters_BDk)
        values_SBD: Tensor = mean_BD + std_BD * torch.special.ndtri(uniform_SBD)
        return values_SBD.clamp(0.0, 1.0)

    def explore(self, uniform: Tensor) -> Tensor:
        """Returns the draws as they are, since they are uniform already."""
        return uniform

    def log_density(self, parameters_BDk: Tensor, values_ND: Tensor, epsilon: float) -> Tensor:
        """Has probabilities on the bounds, where exploration does not go, and densities between."""
        mean_BD, std_BD = (p.unsqueeze(1) for p in self._split(parameters_BDk))
        z_BND = (values_ND - mean_BD) / std_BD
        inside = -0.5 * z_BND**2 - std_BD.log() - 0.5 * math.log(2.0 * math.pi)
        keep = _log(1.0 - epsilon)
        inside = torch.logaddexp(inside + keep, torch.full_like(inside, _log(epsilon)))
        low = torch.special.log_ndtr(-mean_BD / std_BD) + keep
        high = torch.special.log_ndtr((mean_BD - 1.0) / std_BD) + keep
        return torch.where(values_ND <= 0.0, low, torch.where(values_ND >= 1.0, high, inside))

    def entropy(self, parameters_BDk: Tensor) -> Tensor:
        r"""The entropy of the bounds' probabilities P and of the density f between, at most log 3.

        $- \sum P \log P - \int_0^1 f \log f$, where with $z$ from a to b between the bounds
        $- \int f \log f = (\frac{1}{2} \log 2 \pi e s^2)(\Phi(b) - \Phi(a)) + \frac{1}{2} (a
        \phi(a) - b \phi(b))$.
        """
        mean_BD, std_BD = self._split(parameters_BDk)
        a_BD, b_BD = -mean_BD / std_BD, (1.0 - mean_BD) / std_BD
        log_low, log_high = torch.special.log_ndtr(a_BD), torch.special.log_ndtr(-b_BD)
        inside = torch.special.ndtr(b_BD) - torch.special.ndtr(a_BD)
        entropy_BD: Tensor = inside * (std_BD.log() + 0.5 * math.log(2.0 * math.pi * math.e))
        entropy_BD = entropy_BD + 0.5 * (a_BD * _normal(a_BD) - b_BD * _normal(b_BD))
        entropy_BD = entropy_BD - log_low * log_low.exp() - log_high * log_high.exp()
        return entropy_BD

    def mean(self, parameters_BDk: Tensor) -> Tensor:
        """The mean of a Gaussian rectified at 0, less the mean of what of it exceeds 1."""
        mean_BD, std_BD = self._split(parameters_BDk)

        def rectified(m_BD: Tensor) -> Tensor:
            z_BD = m_BD / std_BD
            above_BD: Tensor = m_BD * torch.special.ndtr(z_BD) + std_BD * _normal(z_BD)
            return above_BD

        return rectified(mean_BD) - rectified(mean_BD - 1.0)

    def _split(self, parameters_BDk: Tensor) -> tuple[Tensor, Tensor]:
        scaled_BDk = GAIN * parameters_BDk
        return scaled_BDk[..., 0], INITIAL_STD * torch.exp(
            RANGE * torch.tanh(scaled_BDk[..., 1] / RANGE)
        )


#: Their names in the settings.
DISTRIBUTIONS = ("levels", "continuous")
