import math

import numpy as np
import pytest
import torch

from search.strategies.agent.distributions import Continuous, Distribution, Levels

BOTH = pytest.mark.parametrize("distribution", [Levels(4), Continuous()], ids=["levels", "cont."])
USE_D = torch.tensor([True, False, True])


def some_parameters(distribution: Distribution, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, distribution.size)
    start_BDk = distribution.initial(USE_D, 0.75).expand(shape)
    return start_BDk + torch.randn(shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("tau", "highest"), [(0.75, 10), (0.75, 1), (0.0, 4), (0.5, 4)])
def test_levels_start_at_equation_8(tau: float, highest: int) -> None:
    distribution = Levels(highest)
    levels_N3 = torch.linspace(0.0, 1.0, highest + 1, dtype=torch.float64)[:, None].expand(-1, 3)
    parameters_1Dh = distribution.initial(USE_D, tau)[None]
    p_ND = distribution.log_density(parameters_1Dh, levels_N3, 0.0)[0].exp().numpy()
    other = (1.0 - tau) / (highest + 1)
    expected_ND = np.full((highest + 1, 3), other)
    expected_ND[-1, [0, 2]] += tau
    expected_ND[:, 1] = 1.0 / (highest + 1)
    np.testing.assert_allclose(p_ND, expected_ND, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.75, 0.3])
def test_the_continuous_distribution_starts_at_full_use(tau: float) -> None:
    distribution = Continuous()
    parameters_1Dk = distribution.initial(USE_D, tau)[None]
    ones = torch.ones((1, 3), dtype=torch.float64)
    full_D = distribution.log_density(parameters_1Dk, ones, 0.0)[0, 0].exp().numpy()
    # The Gaussian around 1/2 of spread 1/2 is beyond 1 with probability Phi(-1).
    np.testing.assert_allclose(full_D, [tau, 0.158655, tau], atol=1e-6)


@BOTH
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_samples_follow_the_density(distribution: Distribution, epsilon: float) -> None:
    parameters_BDk = some_parameters(distribution)
    num = 20_000
    generator = torch.Generator().manual_seed(1)
    chosen, uniform = torch.rand((2, num, 2, 3), dtype=torch.float64, generator=generator)
    policy = distribution.sample(parameters_BDk, uniform)
    drawn_SBD = torch.where(chosen < epsilon, distribution.explore(uniform), policy)
    assert drawn_SBD.min() >= 0.0
    assert drawn_SBD.max() <= 1.0
    grid = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    if isinstance(distribution, Levels):
        grid = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
        bins = [(level - 1e-6, level + 1e-6) for level in grid.tolist()]
    else:
        bins = [
            (-1.0, 0.0),
            (1.0 - 1e-12, 2.0),
            *((i / 5 + 1e-12, (i + 1) / 5 - 1e-12) for i in range(5)),
        ]
    bounds = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for low, high in bins:
        share_BD = ((drawn_SBD > low) & (drawn_SBD <= high)).double().mean(0)
        inside = grid[(grid > low) & (grid <= high)]
        step = 1.0 if isinstance(distribution, Levels) else 1e-3
        if not len(inside):
            inside, step = bounds[(bounds > low) & (bounds <= high)], 1.0
        values_N3 = inside[:, None].expand(-1, 3)
        density = distribution.log_density(parameters_BDk, values_N3, epsilon).exp()
        expected_BD = density.sum(1) * step
        # 4.5 standard errors, and the rounding of the sum.
        tolerance_BD = 4.5 * torch.sqrt(expected_BD * (1 - expected_BD).clamp(min=0) / num) + 1e-3
        assert ((share_BD - expected_BD).abs() < tolerance_BD).all(), (low, high)


@BOTH
def test_the_mean_is_that_of_samples(distribution: Distribution) -> None:
    parameters_BDk = some_parameters(distribution)
    uniform = torch.linspace(0.0, 1.0, 20_001, dtype=torch.float64)[1:-1, None, None]
    drawn_SBD = distribution.sample(parameters_BDk, uniform.expand(-1, 2, 3))
    torch.testing.assert_close(
        distribution.mean(parameters_BDk), drawn_SBD.mean(0), atol=1e-3, rtol=0.0
    )


def test_entropies() -> None:
    levels = Levels(4)
    uniform = levels.initial(torch.tensor([False]), 0.0)[None]
    assert float(levels.entropy(uniform)) == pytest.approx(math.log(5))
    continuous = Continuous()
    parameters_BDk = some_parameters(continuous)
    bounds_N3 = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(-1, 3)
    inside_N3 = ((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)[:, None].expand(-1, 3)
    log_p = continuous.log_density(parameters_BDk, bounds_N3, 0.0)
    log_f = continuous.log_density(parameters_BDk, inside_N3, 0.0)
    expected_BD = -(log_p.exp() * log_p).sum(1) - (log_f.exp() * log_f).mean(1)
    torch.testing.assert_close(continuous.entropy(parameters_BDk), expected_BD, atol=1e-5, rtol=0)


@BOTH
@pytest.mark.parametrize("epsilon", [0.0, 1e-320, 0.5, 1.0])
def test_improbable_values_give_finite_gradients(
    distribution: Distribution, epsilon: float
) -> None:
    parameters_BDk = torch.full((1, 1, distribution.size), -2000.0, dtype=torch.float64)
    parameters_BDk[..., 0] = 2000.0
    parameters_BDk.requires_grad_()
    inside = torch.tensor([[0.5]], dtype=torch.float64)
    values = [inside] if epsilon == 1.0 else [inside, torch.zeros_like(inside)]
    for value in values:
        log_density = distribution.log_density(parameters_BDk, value, epsilon).sum()
        (gradient,) = torch.autograd.grad(log_density, parameters_BDk)
        assert torch.isfinite(gradient).all()
