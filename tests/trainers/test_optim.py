import pytest
import torch

from tests.helpers.masks import random_masks
from trainers.backbones import BackboneConfig, channel_groups
from trainers.backbones.resnet import ResNetTail
from trainers.masking import MaskedConv
from trainers.network import update_masks
from trainers.optim import RowSGD, SGDConfig, learning_rate_at, norm_parameters

TASKS = ("a", "b")


def test_a_row_never_moves_weights_that_are_not_its_own(backbone: BackboneConfig) -> None:
    masks = random_masks(channel_groups(backbone), TASKS, 0, backward=True)
    tail = ResNetTail(backbone, masks, generator=torch.Generator().manual_seed(0))
    config = SGDConfig(steps=10, learning_rate=0.1, momentum=0.9, weight_decay=0.1)
    optimizer = RowSGD(tail, [norm_parameters(tail, row) for row in range(2)], config)
    x = torch.randn(4, backbone.trunk_width, 8, 8, generator=torch.Generator().manual_seed(1))
    for step in range(6):  # so that both rows have momentum of their own
        row = step % 2
        before = [weight.detach().clone() for weight, _ in update_masks(tail, row)]
        tail(x, row)[-1].square().mean().backward()
        optimizer.step(row, step)
        for old, (weight, mask) in zip(before, update_masks(tail, row), strict=True):
            moved = weight != old
            assert not (moved & (mask == 0)).any()
            assert (moved | (mask == 0)).float().mean() > 0.99


def test_momentum_is_kept_apart() -> None:
    """Two rows that share one weight: each must see only its own gradients' history."""
    from trainers.masking import Channels

    conv = MaskedConv([Channels.all(1)] * 2, [Channels.all(1)] * 2)
    torch.nn.init.zeros_(conv.weight)
    config = SGDConfig(
        steps=100, learning_rate=1.0, momentum=0.5, weight_decay=0.0, schedule="step", drops=()
    )
    optimizer = RowSGD(conv, [[], []], config)

    def step(row: int, gradient: float) -> float:
        before = conv.weight.detach().clone()
        conv.weight.grad = torch.full_like(conv.weight, gradient)
        optimizer.step(row, 0)
        return float((conv.weight.detach() - before).mean())

    # Nesterov: the first move is -(g + m g), with the buffer g.
    assert step(0, 1.0) == pytest.approx(-1.5)
    assert step(1, 0.0) == pytest.approx(0.0)  # with shared momentum it would go on moving
    assert step(0, 0.0) == pytest.approx(-0.25)


def test_weight_decay_reaches_what_the_row_may_change_and_no_more(
    backbone: BackboneConfig,
) -> None:
    masks = random_masks(channel_groups(backbone), TASKS, 0, backward=True)
    tail = ResNetTail(backbone, masks, generator=torch.Generator().manual_seed(0))
    config = SGDConfig(
        steps=10, learning_rate=0.5, momentum=0.0, weight_decay=0.1, schedule="step", drops=()
    )
    optimizer = RowSGD(tail, [[], []], config)
    pairs = list(update_masks(tail, 1))
    before = [weight.detach().clone() for weight, _ in pairs]
    for weight, _ in pairs:
        weight.grad = torch.zeros_like(weight)
    optimizer.step(1, 0)
    for old, (weight, mask) in zip(before, pairs, strict=True):
        torch.testing.assert_close(weight.detach(), old * (1 - 0.05 * mask))


def test_schedules() -> None:
    cosine = SGDConfig(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate_at(cosine, step) for step in range(100)]
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[0] < 0.15
    assert rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)
    step = SGDConfig(steps=100, learning_rate=1.0, schedule="step", drops=(0.5, 0.75))
    assert [learning_rate_at(step, s) for s in (0, 49, 50, 75)] == pytest.approx([1, 1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay must be finite and not negative, got -1.0"),
        ({"schedule": "linear"}, "schedule must be one of cosine, step, got 'linear'"),
        (
            {"drops": (2000.0,)},
            r"drops must each be in \(0, 1\), fractions of steps, got \[2000\.0\]",
        ),
        ({"warmup": 1.0}, "warmup must be in"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGDConfig(**setting)  # type: ignore[arg-type]
