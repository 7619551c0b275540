"""Masks inside a network: which channels a virtual network computes, and which weights it changes.

Masked channels are never computed: a row's convolution runs on the slice of the weight that the
row uses, so its cost is that of the compact network. Legend for shape comments: B batch, H height,
W width of a map, I input channels, O output channels of a convolution.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


class Channels(nn.Module):
    """The channels of one group that one row uses, as a slice where they are one run.

    Args:
        used: Boolean (C,), the row's forward mask.
        trainable: Boolean (C,), the row's backward mask; a subset of `used`. None means `used`.
    """

    index: Tensor
    trainable: Tensor

    def __init__(self, used: NDArray[np.bool_], trainable: NDArray[np.bool_] | None = None) -> None:
        super().__init__()
        positions = np.flatnonzero(used)
        self.width = int(used.size)
        self.count = int(positions.size)
        self.full = self.count == self.width
        self.run: slice | None = None
        if self.count == 0 or positions[-1] - positions[0] + 1 == self.count:
            start = int(positions[0]) if self.count else 0
            self.run = slice(start, start + self.count)
        free = used if trainable is None else trainable
        self.frozen_any = bool((used & ~free).any())
        self.register_buffer("index", torch.from_numpy(positions), persistent=False)
        self.register_buffer("trainable", torch.from_numpy(free[positions]), persistent=False)

    @classmethod
    def all(cls, width: int) -> "Channels":
        """Every one of `width` channels, all trainable."""
        return cls(np.ones(width, dtype=np.bool_))

    def take(self, tensor: Tensor, dim: int) -> Tensor:
        """The used channels of `tensor` along `dim`; a view where they are one run."""
        if self.full:
            return tensor
        if self.run is not None:
            return tensor.narrow(dim, self.run.start, self.count)
        return tensor.index_select(dim, self.index)


def masked_weight(weight_OI: Tensor, outputs: Channels, inputs: Channels) -> Tensor:
    """The part of a convolution's weight that a row computes with, (|outputs|, |inputs|, k, k).

    Entries outside the row's backward masks take part in the forward pass but get no gradient
    (Newell et al. 2019, section 3: m_b zeroes the gradients of weights to be left unchanged).
    """
    weight = inputs.take(outputs.take(weight_OI, 0), 1)
    if not (outputs.frozen_any or inputs.frozen_any):
        return weight
    free = outputs.trainable[:, None] & inputs.trainable[None, :]
    return torch.where(free[:, :, None, None], weight, weight.detach())


def update_mask(outputs: Channels, inputs: Channels) -> Tensor:
    """Float (O, I, 1, 1): 1 where a row may change a convolution's weight, else 0."""
    mask = torch.zeros(outputs.width, inputs.width, device=outputs.index.device)
    free = outputs.trainable[:, None] & inputs.trainable[None, :]
    mask[outputs.index[:, None], inputs.index[None, :]] = free.to(mask.dtype)
    return mask[:, :, None, None]


class MaskedConv(nn.Module):
    """A 3x3 convolution without bias whose weight is shared by rows that use parts of it.

    Args:
        outputs: The output channels of each row, R entries of one width O.
        inputs: The input channels of each row, R entries of one width I.
        stride: Stride in pixels.
    """

    def __init__(
        self, outputs: Sequence[Channels], inputs: Sequence[Channels], *, stride: int = 1
    ) -> None:
        super().__init__()
        self.outputs = nn.ModuleList(outputs)
        self.inputs = nn.ModuleList(inputs)
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs[0].width, inputs[0].width, 3, 3))

    def channels(self, row: int) -> tuple[Channels, Channels]:
        """Output and input channels of a row."""
        outputs, inputs = self.outputs[row], self.inputs[row]
        assert isinstance(outputs, Channels)
        assert isinstance(inputs, Channels)
        return outputs, inputs

    def forward(self, x_BIHW: Tensor, row: int) -> Tensor:
        """Map (B, |inputs|, H, W) to (B, |outputs|, H / stride, W / stride)."""
        outputs, inputs = self.channels(row)
        if outputs.count == 0 or inputs.count == 0:
            return zeros(x_BIHW, outputs.count, self.stride)
        weight = masked_weight(self.weight, outputs, inputs)
        return F.conv2d(x_BIHW, weight, stride=self.stride, padding=1)

    def compact(self, row: int) -> nn.Module:
        """The row's part as a plain convolution; `Zeros` where it computes nothing."""
        outputs, inputs = self.channels(row)
        if outputs.count == 0 or inputs.count == 0:
            return Zeros(outputs.count, self.stride)
        conv = nn.Conv2d(inputs.count, outputs.count, 3, stride=self.stride, padding=1, bias=False)
        conv.weight.data.copy_(inputs.take(outputs.take(self.weight.detach(), 0), 1))
        return conv


class Zeros(nn.Module):
    """What a convolution without input channels computes.

    Args:
        channels: Output channels.
        stride: Stride in pixels.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to zeros (B, channels, H / stride, W / stride)."""
        return zeros(x, self.channels, self.stride)


def zeros(x: Tensor, channels: int, stride: int) -> Tensor:
    """Zeros of the shape that a 3x3 convolution with padding 1 makes of x (B, C, H, W)."""
    batch, _, height, width = x.shape
    return x.new_zeros(batch, channels, (height - 1) // stride + 1, (width - 1) // stride + 1)


class RowNorm(nn.ModuleList):
    """Batch norm per row over the channels that the row uses (Rebuffi et al. 2017)."""

    def __init__(self, rows: Sequence[Channels]) -> None:
        super().__init__(nn.BatchNorm2d(row.count) for row in rows)
        self._rows = tuple(rows)

    @torch.no_grad()
    def load(self, row: int, state: Mapping[str, Tensor], prefix: str) -> None:
        """Fill a row from a norm over all channels, `<prefix>weight` and so on, each (C,)."""
        for name in ("weight", "bias", "running_mean", "running_var"):
            own: Tensor = getattr(self[row], name)
            channels = self._rows[row]
            own.copy_(state[prefix + name].to(own.device)[channels.index.to(own.device)])

    def forward(self, x: Tensor, row: int) -> Tensor:
        """Normalise (B, C_row, H, W) with the statistics and weights of `row`."""
        if x.shape[1] == 0:
            return x
        norm: Tensor = self[row](x)
        return norm

    def compact(self, row: int) -> nn.Module:
        """A copy of the row's norm; the identity where it has no channels."""
        return copy.deepcopy(self[row]) if self._rows[row].count else nn.Identity()
