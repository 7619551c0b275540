"""Choices among levels: distributions against their laws, gradients against enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from trainers import policy

#: Two choices of three levels, and what each of the nine models comes to.
LOGITS = torch.tensor([[0.3, -0.5, 1.0], [-1.0, 0.2, 0.4]], dtype=torch.float64)
LOSSES = torch.tensor([1.0, 4.0, 0.5, 2.5, 3.0, 0.1, 5.0, 0.7, 1.9], dtype=torch.float64)
MODELS = torch.tensor(list(itertools.product(range(3), repeat=2)))


def log_p_of(logits: Tensor, epsilon: float) -> Tensor:
    """Log-probabilities of all nine models."""
    return policy.log_probability(logits.expand(9, 2, 3), MODELS, epsilon).sum(-1)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize(("samples", "baseline"), [(1, False), (2, False), (2, True)])
def test_the_sampled_gradient_is_unbiased(samples: int, baseline: bool, epsilon: float) -> None:
    logits = LOGITS.clone().requires_grad_()
    (log_p_of(logits, epsilon).exp() * LOSSES).sum().backward()
    exact = logits.grad
    expected = torch.zeros_like(LOGITS)
    with torch.no_grad():
        p = log_p_of(LOGITS, epsilon).exp()
    for drawn in itertools.product(range(9), repeat=samples):
        logits = LOGITS.clone().requires_grad_()
        at = torch.tensor(drawn)
        log_p = log_p_of(logits, epsilon)[at][:, None]
        policy.surrogate(log_p, LOSSES[at][:, None], baseline=baseline).backward()
        assert logits.grad is not None
        expected += p[at].prod() * logits.grad
    assert exact is not None
    assert torch.allclose(expected, exact, atol=1e-12)


def test_one_sample_has_other_images_as_its_baseline() -> None:
    log_p = torch.zeros(1, 3, requires_grad=True)
    policy.surrogate(log_p, torch.tensor([[1.0, 2.0, 6.0]]), baseline=True).backward()
    assert log_p.grad is not None
    assert torch.allclose(log_p.grad * 3, torch.tensor([[1 - 4.0, 2 - 3.5, 6 - 1.5]]))


@pytest.mark.parametrize("tau", [0.0, 0.75])
def test_whole_models_are_drawn_as_eq_8_says(tau: float) -> None:
    generator = torch.Generator().manual_seed(1)
    whole, uniform = (
        torch.rand(20_000, generator=generator),
        torch.rand(20_000, 2, generator=generator),
    )
    drawn = policy.draw_whole_or_any(whole, uniform, 3, tau)
    counts = np.bincount((3 * drawn[:, 0] + drawn[:, 1]).numpy(), minlength=9)
    wanted = np.full(9, (1 - tau) / 9)
    wanted[-1] += tau
    assert stats.chisquare(counts, 20_000 * wanted).pvalue > 0.01


def test_levels_are_drawn_as_probable_as_they_are() -> None:
    uniform = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(2))
    drawn = policy.draw(LOGITS, uniform)
    for choice in range(2):
        counts = np.bincount(drawn[:, choice].numpy(), minlength=3)
        wanted = 20_000 * LOGITS[choice].softmax(0).numpy()
        assert stats.chisquare(counts, wanted).pvalue > 0.01


def test_one_choice_begins_as_eq_8_says() -> None:
    assert policy.initial(0.75, 4).exp().tolist() == pytest.approx([0.0625] * 3 + [0.8125])
    assert policy.entropy(policy.initial(0.0, 4)).item() == pytest.approx(math.log(4))


def test_exploration_is_of_as_many_as_epsilon_says() -> None:
    levels, others = torch.zeros(10_000, dtype=torch.int64), torch.ones(10_000, dtype=torch.int64)
    uniform = torch.rand(10_000, generator=torch.Generator().manual_seed(3))
    found = policy.explore(levels, uniform, others, 0.2)
    assert stats.binomtest(int(found.sum()), 10_000, 0.2).pvalue > 0.01
