r"""Choices among levels: their distributions, exploration, and the sampled gradient.

A policy chooses one of h levels for each of n things: of how many channels a block has for an image
(deep elastic networks, Ahn et al. 2019; Auto-VirtualNet), or how much of a group a task uses (the
policy-gradient strategy). Choices are independent given what the policy reads:
$P(z) = \prod_i C_i(z_i)$.

Legend of shapes: ... any, n choices, h levels, S samples, B images.
"""

import math

import torch
from torch import Tensor


def initial(tau: float, levels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Log-probabilities (h,) of one choice: tau more for the highest level (DEN, eq. 8).

    Args:
        tau: In [0, 1).
        levels: h.
        dtype: Of the result.
    """
    p_h = torch.full((levels,), (1.0 - tau) / levels, dtype=dtype)
    p_h[-1] += tau
    return p_h.log()


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Levels (...), each that whose share of the cumulative distribution a draw falls into.

    Args:
        logits: (..., h).
        uniform: (...) or more dimensions before, in [0, 1).
    """
    # Without the last bound, which rounding may leave below a draw.
    below = torch.softmax(logits, -1).cumsum(-1)[..., :-1]
    return (uniform.unsqueeze(-1) >= below).sum(-1)


def draw_any(uniform: Tensor, levels: int) -> Tensor:
    """Levels (...), all as likely, of draws in [0, 1)."""
    return torch.floor(uniform * levels).long().clamp_(max=levels - 1)


def draw_whole_or_any(uniform_B: Tensor, uniform_Bn: Tensor, levels: int, tau: float) -> Tensor:
    """Models (B, n): the whole one with probability tau, else any (DEN, eq. 8).

    So the whole one has the probability tau + (1 - tau) / h^n, and every other (1 - tau) / h^n.

    Args:
        uniform_B: In [0, 1): which are whole.
        uniform_Bn: In [0, 1): the levels of the others.
        levels: h.
        tau: In [0, 1].
    """
    any_Bn = draw_any(uniform_Bn, levels)
    return torch.where((uniform_B < tau).unsqueeze(-1), levels - 1, any_Bn)


def explore(chosen: Tensor, uniform: Tensor, any_: Tensor, epsilon: float) -> Tensor:
    """What is chosen, but `any_` where a draw in [0, 1) is below epsilon."""
    return torch.where(uniform < epsilon, any_, chosen)


def act(logits: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """Levels (...) that a policy chooses, each with probability epsilon any.

    Args:
        logits: (..., h).
        epsilon: In [0, 1].
        generator: Of the draws, on the device of the logits.
    """
    which, uniform, any_ = torch.rand(
        (3, *logits.shape[:-1]), generator=generator, device=logits.device
    )
    return explore(draw(logits, uniform), which, draw_any(any_, logits.shape[-1]), epsilon)


def log_probability(logits: Tensor, levels: Tensor, epsilon: float = 0.0) -> Tensor:
    """Logarithms (...) of (1 - epsilon) C(z) + epsilon / h, the policy that really acts.

    Args:
        logits: (..., h).
        levels: (...), int64.
        epsilon: Share of choices that are drawn uniformly, in [0, 1].
    """
    log_p = torch.log_softmax(logits, -1).gather(-1, levels.unsqueeze(-1)).squeeze(-1)
    if not epsilon:
        return log_p
    explored = torch.full_like(log_p, math.log(epsilon / logits.shape[-1]))
    keep = math.log(1.0 - epsilon) if epsilon < 1 else -math.inf
    return torch.logaddexp(log_p + keep, explored)


def entropy(logits: Tensor) -> Tensor:
    """The entropy (...) of each choice in nats, from 0 (one is certain) to log h."""
    log_p = torch.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1)


def surrogate(log_p_SB: Tensor, loss_SB: Tensor, *, baseline: bool) -> Tensor:
    r"""What has the sampled gradient of an expected loss as its gradient (DEN, eq. 7).

    $\nabla E[R] = E[\frac{1}{S} \sum_s (R_s - b_s) \nabla \log P(z_s)]$. A baseline b_s that does
    not depend on z_s leaves it unbiased and makes it less noisy.

    Args:
        log_p_SB: Of S models for each of B images.
        loss_SB: What each came to; no gradient reaches it.
        baseline: Whether the mean of the image's other samples is taken off, or, where there is
            one sample, that of other images. The paper has none.

    Returns:
        The mean over samples and images.
    """
    loss_SB = loss_SB.detach()
    if baseline and loss_SB.numel() > 1:
        alone = len(loss_SB) == 1
        of = loss_SB if not alone else loss_SB.T
        loss_others = (of.sum(0, keepdim=True) - of) / (len(of) - 1)
        loss_SB = loss_SB - (loss_others if not alone else loss_others.T)
    return (loss_SB * log_p_SB).mean()
