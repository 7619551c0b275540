"""Convolutions of rows, which may have so few channels that a library's own go wrong."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.networks import bound


class Strides(TorchDispatchMode):
    """Remembers the strides of all convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.found.append(args[3])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("padding", [0, "valid"])
@pytest.mark.parametrize("channels", [1, 2, 4, 7, 8, 9, 15, 17])
def test_pointwise_convolutions_have_no_stride_and_the_same_gradients(
    channels: int, padding: int | str
) -> None:
    """With one, oneDNN damages the memory of a process, which need not be seen at once."""
    plain = nn.Conv2d(channels, 8, 1, stride=2, padding=padding)
    ours = bound(plain, dict(plain.named_parameters())).to(memory_format=torch.channels_last)
    assert ours.stride == plain.stride
    for size in (7, 8, 16):
        images = torch.randn(32, channels, size, size)
        images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
        with Strides() as seen:
            out = ours(images)
        assert seen.found == [[1, 1]]
        weights = torch.randn_like(out)
        got = torch.autograd.grad((out * weights).sum(), (images, *ours.parameters()))
        exact = copy.deepcopy(plain).double()  # which oneDNN has no part in
        out = exact(doubled := images.detach().double().requires_grad_())
        wanted = torch.autograd.grad((out * weights).sum(), (doubled, *exact.parameters()))
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a.double(), b, atol=1e-3, rtol=1e-3)


def test_other_convolutions_keep_theirs() -> None:
    plain = nn.Conv2d(4, 8, 3, stride=2, padding=1)
    with Strides() as seen:
        bound(plain, dict(plain.named_parameters()))(torch.zeros(1, 4, 8, 8))
    assert seen.found == [[2, 2]]
