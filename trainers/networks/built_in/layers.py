"""What the built-in networks are made of."""

from collections.abc import Callable

from torch import nn


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution without a bias that keeps the size of maps, but for its stride."""
    return nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )


def stage(
    block: Callable[[int, int, int], nn.Module],
    count: int,
    inputs: int,
    outputs: int,
    stride: int,
) -> nn.Sequential:
    """So many blocks, each of inputs, outputs and stride; the first alone strides."""
    rest = (block(outputs, outputs, 1) for _ in range(count - 1))
    return nn.Sequential(block(inputs, outputs, stride), *rest)


def initialise(model: nn.Module) -> None:
    """Draw the weights of layers by Xavier's rule (Glorot and Bengio 2010, eq. 16)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def at_least_one(**counts: int) -> None:
    """Refuse counts that are no whole number above 0, by name.

    Raises:
        ValueError: One of them is.
    """
    for name, count in counts.items():
        if not (isinstance(count, int) and count >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {count!r}")
