"""Settings of SGD, and its learning rate (what a step changes: networks/test_stack.py)."""

import pytest

from trainers.optim import SGDConfig, learning_rate_at


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
