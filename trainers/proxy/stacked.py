"""Many students side by side: the tails of K candidates as one network with stacked weights.

Candidates differ by their masks alone: they start from the same weights and see the same images. So
one pass serves all of them. Their channels lie next to each other, (B, K C, H, W): batch norms,
activations and pooling need no change, and a convolution has a group per candidate. A row (virtual
network) computes, stores and updates the part of the weights that it uses: its channels are
gathered before a step and put back after it. Candidates that use fewer channels than others are
padded with channels whose weights are 0 and stay 0, so that a candidate's result does not depend on
who is beside it.

Legend of shapes: K candidates, B images, C channels of a group and N of them that a row uses (the
most over the candidates), I input, U hidden (between the convolutions), O output channels of a
block, H and W of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from partitioning import Masks
from trainers.backbones import BACKBONES, BackboneConfig, BlockPlan
from trainers.device import compute_type

#: (x, weight (K, O, I, 3, 3), stride) to the convolved maps.
Convolve = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Used:
    """The channels of a group that one row uses, candidate by candidate.

    Attributes:
        index_KN: Their positions; C, one past the last, where a candidate uses fewer.
        real_KN: 1.0 where there is a channel, 0.0 where there is padding.
        each_K: What one of a candidate's channels counts in a mean over them.
        free_KN: 1.0 where the row may change weights, else 0.0; None where it may wherever it is
            real.
        full: Whether every candidate uses all of them, so that nothing needs to be gathered.
    """

    index_KN: Tensor
    real_KN: Tensor
    each_K: Tensor
    free_KN: Tensor | None
    full: bool

    @property
    def count(self) -> int:
        """N, padding included."""
        return self.index_KN.shape[1]


def used_channels(
    masks: Sequence[Masks], group: str | None, width: int, row: int, device: torch.device
) -> Used:
    """The channels of a group that a row of each candidate uses; all where it has no masks."""
    forward_KC = np.ones((len(masks), width), dtype=np.bool_)
    free_KC = None
    if group is not None and group in masks[0].forward:
        forward_KC = np.stack([m.forward[group][row] for m in masks])
        if any(m.backward is not None for m in masks):
            free_KC = np.stack([(m.backward or m.forward)[group][row] for m in masks])
    counts_K = forward_KC.sum(axis=1)
    index_KN = np.full((len(masks), max(1, int(counts_K.max()))), width)
    free_KN = np.zeros(index_KN.shape)
    for k, forward_C in enumerate(forward_KC):
        index_KN[k, : counts_K[k]] = np.flatnonzero(forward_C)
        if free_KC is not None:
            free_KN[k, : counts_K[k]] = free_KC[k][forward_C]
    real_KN = index_KN < width
    changeable = free_KC is None or bool((free_KN == real_KN).all())
    return Used(
        index_KN=torch.from_numpy(index_KN).to(device),
        real_KN=torch.from_numpy(real_KN).float().to(device),
        each_K=torch.from_numpy(1.0 / np.maximum(counts_K, 1)).float().to(device),
        free_KN=None if changeable else torch.from_numpy(free_KN).float().to(device),
        full=bool(forward_KC.all()),
    )


class Part:
    """The part of some weights that one row uses, for all candidates.

    Args:
        value: What a forward pass reads and a backward pass gives a gradient; in single precision
            where there is no store.
        free: 1.0 where the row may change it, to be multiplied with; None where it may all.
        decays: Whether weight decay pulls on it.
        store: All weights in single precision, (positions, ...), which the part is gathered from
            and put back to; None where the part belongs to the row alone.
        index: Positions in the store, in the order of the part.
    """

    def __init__(
        self,
        value: Tensor,
        *,
        free: Tensor | None = None,
        decays: bool = False,
        store: Tensor | None = None,
        index: Tensor | None = None,
    ) -> None:
        self.value = value.requires_grad_()
        self._free, self._decays, self._store, self._index = free, decays, store, index
        self._exact = self.value.detach()
        self._momentum: Tensor | None = None

    @torch.no_grad()
    def gather(self) -> Tensor:
        """Read the part as other rows have left it."""
        if self._store is not None and self._index is not None:
            self._exact = self._store.index_select(0, self._index).view(self.value.shape)
            self.value.copy_(self._exact)
        return self.value

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """One update of SGD (Nesterov's form), with momentum of the row's own."""
        if self.value.grad is None:
            return
        gradient = self.value.grad
        if self._store is not None:  # laid out and rounded as the convolution wants it
            gradient = torch.empty_like(self._exact).copy_(gradient)
        if self._decays and weight_decay:
            gradient.add_(self._exact, alpha=weight_decay)
        if self._free is not None:
            gradient.mul_(self._free)
        if momentum:
            if self._momentum is None:
                self._momentum = torch.zeros_like(gradient)
            self._momentum.mul_(momentum).add_(gradient)
            gradient.add_(self._momentum, alpha=momentum)
        self._exact.sub_(gradient, alpha=learning_rate)
        self.value.grad = None
        if self._store is not None and self._index is not None:
            self._store.index_copy_(0, self._index, self._exact.flatten(0, 2).flatten(1))


class StackedWeight:
    """One convolution's weights of all candidates, with the masked channels first.

    A position of the store is one weight of 3 x 3 from a hidden channel to one of the others.

    Args:
        hidden: For each row, the channels between the convolutions.
        others: For each row, the channels at the other end.
        sizes: How many there are of both without masks, U and X.
        outputs: Which of the two are the convolution's outputs: "hidden" or "others".
        kind: Type that it computes in.
    """

    def __init__(
        self,
        hidden: Sequence[Used],
        others: Sequence[Used],
        sizes: tuple[int, int],
        *,
        outputs: Literal["hidden", "others"],
        kind: torch.dtype,
    ) -> None:
        self._sizes = sizes
        candidates, device = len(hidden[0].index_KN), hidden[0].index_KN.device
        rows, columns = sizes[0] + 1, sizes[1] + 1
        self._store = torch.zeros(candidates * rows * columns, 9, device=device)
        first_K = torch.arange(candidates, device=device) * rows
        self.parts: list[Part] = []
        for own, other in zip(hidden, others, strict=True):
            row_KN = first_K[:, None] + own.index_KN
            index_KUX = row_KN[:, :, None] * columns + other.index_KN[:, None, :]
            free = None
            if own.free_KN is not None or other.free_KN is not None:
                free_KU = own.real_KN if own.free_KN is None else own.free_KN
                free_KX = other.real_KN if other.free_KN is None else other.free_KN
                free = (free_KU[:, :, None] * free_KX[:, None, :])[..., None, None]
            # As it lies in memory: on a CPU channels last, which its convolutions would make of it.
            axes = [0, 1, 2, 3, 4]
            if device.type == "cpu":
                axes = [0, 1, 3, 4, 2] if outputs == "hidden" else [0, 2, 3, 4, 1]
            sizes_KUX33 = (*index_KUX.shape, 3, 3)
            value = torch.zeros([sizes_KUX33[axis] for axis in axes], device=device, dtype=kind)
            value = value.permute([axes.index(axis) for axis in range(5)])
            self.parts.append(
                Part(
                    value,
                    free=free,
                    decays=True,
                    store=self._store,
                    index=index_KUX.flatten(),
                )
            )

    def load(self, weight_UX: Tensor) -> None:
        """Give every candidate the same weights, (U, X, 3, 3)."""
        rows, columns = self._sizes
        padded = F.pad(weight_UX.to(self._store.device).flatten(2), (0, 0, 0, 1, 0, 1))
        assert padded.shape == (rows + 1, columns + 1, 9)
        self._store.view(-1, *padded.shape).copy_(padded)


class StackedNorm:
    """Batch norm of all candidates, with weights and statistics for every row.

    Args:
        channels: For each row, the channels that are normalised.
    """

    def __init__(self, channels: Sequence[Used]) -> None:
        self._channels = channels
        device = channels[0].index_KN.device
        sizes = [used.index_KN.numel() for used in channels]
        self.parts = [[Part(torch.zeros(n, device=device)) for _ in range(2)] for n in sizes]
        self._statistics = [[torch.zeros(n, device=device) for _ in range(2)] for n in sizes]

    def load(self, row: int, weight_C: Tensor, bias_C: Tensor) -> None:
        """Give every candidate the same weights; padding gets 0, and so stays 0."""
        used = self._channels[row]
        for part, values_C in zip(self.parts[row], (weight_C, bias_C), strict=True):
            padded = F.pad(values_C.to(used.index_KN.device), (0, 1))
            with torch.no_grad():
                part.value.copy_(padded[used.index_KN].flatten())

    def forward(self, x: Tensor, row: int, mode: str) -> Tensor:
        """Normalise (B, K N, H, W); see `StackedTail.forward` for the modes."""
        weight, bias = (part.value for part in self.parts[row])
        mean, variance = self._statistics[row] if mode != "train" else (None, None)
        return F.batch_norm(
            x, mean, variance, weight, bias, training=mode != "evaluate", momentum=1.0
        )


class StackedBlock:
    """A basic block of all candidates.

    Args:
        plan: Its channels.
        masks: The candidates' masks.
        device: Where weights live.
        kind: Type that convolutions compute in.
    """

    def __init__(
        self, plan: BlockPlan, masks: Sequence[Masks], device: torch.device, kind: torch.dtype
    ) -> None:
        groups = (plan.inputs, plan.hidden, plan.outputs)
        self._inputs, self._hidden, self.outputs = (
            [
                used_channels(masks, group, width, row, device)
                for row in range(len(masks[0].networks))
            ]
            for group, width in zip(groups, plan.widths, strict=True)
        )
        self._stride = plan.stride
        inputs, hidden, outputs = plan.widths
        self._conv1 = StackedWeight(
            self._hidden, self._inputs, (hidden, inputs), outputs="hidden", kind=kind
        )
        self._conv2 = StackedWeight(
            self._hidden, self.outputs, (hidden, outputs), outputs="others", kind=kind
        )
        self._norm1, self._norm2 = StackedNorm(self._hidden), StackedNorm(self.outputs)
        self._source = [
            _sources(before, after, inputs)
            for before, after in zip(self._inputs, self.outputs, strict=True)
        ]

    def load(
        self, tail: Mapping[str, Tensor], norms: Sequence[Mapping[str, Tensor]], prefix: str
    ) -> None:
        """Fill with the weights of an unmasked tail; see `StackedTail.load`."""
        self._conv1.load(tail[f"{prefix}conv1.weight"])
        self._conv2.load(tail[f"{prefix}conv2.weight"].transpose(0, 1))
        for row, state in enumerate(norms):
            for name, norm in (("bn1", self._norm1), ("bn2", self._norm2)):
                of = f"{prefix}{name}.0."
                norm.load(row, state[of + "weight"], state[of + "bias"])

    def parts(self, row: int) -> list[Part]:
        """What a step of a row changes."""
        convs = [self._conv1.parts[row], self._conv2.parts[row]]
        return [*convs, *self._norm1.parts[row], *self._norm2.parts[row]]

    def forward(self, x: Tensor, row: int, mode: str, convolve: Convolve) -> Tensor:
        """Map (B, K I, H, W), or (B, I, H, W) of all candidates alike, to (B, K O, ...)."""
        weight1 = self._conv1.parts[row].value
        weight2 = self._conv2.parts[row].value.transpose(1, 2)
        h = F.relu_(self._norm1.forward(convolve(x, weight1, self._stride), row, mode))
        y = self._norm2.forward(convolve(h, weight2, 1), row, mode)
        return F.relu_(y.add_(self._shortcut(x, row)))

    def _shortcut(self, x: Tensor, row: int) -> Tensor:
        if self._stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True)  # odd sizes as the convolution has them
        source_KN = self._source[row]
        candidates = len(self._hidden[row].index_KN)
        shared = x.shape[1] != candidates * self._inputs[row].count
        added = self.outputs[row].count - self._inputs[row].count
        if source_KN is None and not added and not (shared and candidates > 1):
            return x
        # Channels last as they lie in memory: other layouts would slow down all that follows.
        x = x.permute(0, 2, 3, 1).unflatten(3, (1 if shared else candidates, -1))  # (B, H, W, K, C)
        if source_KN is None:
            return (
                F.pad(x, (0, added))
                .expand(-1, -1, -1, candidates, -1)
                .flatten(3)
                .permute(0, 3, 1, 2)
            )
        # One past the inputs is a channel of zeros, for outputs that have no source.
        padded = F.pad(x, (0, 1)).flatten(0, 2)
        first_K = torch.arange(candidates, device=x.device) * (0 if shared else padded.shape[2])
        source = (first_K[:, None] + source_KN).flatten()
        gathered: Tensor = padded.flatten(1).index_select(1, source).unflatten(0, x.shape[:3])
        return gathered.permute(0, 3, 1, 2)


class StackedTail:
    """The tails of K candidates.

    Args:
        config: The backbone.
        masks: The candidates' masks, with the same networks and groups.
        device: Where weights live and steps are computed.
        convolve: How convolutions with a group per candidate are computed.
        precision: "fp32" or "bf16", what they compute in.
    """

    def __init__(
        self,
        config: BackboneConfig,
        masks: Sequence[Masks],
        device: torch.device,
        convolve: Convolve,
        precision: str,
    ) -> None:
        self.num_candidates = len(masks)
        self._convolve = convolve
        plan = BACKBONES[config.family].plan(config)
        kind = compute_type(precision)
        self._blocks = [StackedBlock(block, masks, device, kind) for block in plan]

    def load(self, tail: Mapping[str, Tensor], norms: Sequence[Mapping[str, Tensor]]) -> None:
        """Fill every candidate with the same weights.

        Args:
            tail: State dict whose "tail." entries are the convolutions, unmasked.
            norms: For every row, a state dict whose "tail." entries are its batch norms.
        """
        for number, block in enumerate(self._blocks):
            block.load(tail, norms, f"tail.blocks.{number}.")

    def parts(self, row: int) -> list[Part]:
        """What a step of a row changes."""
        return [part for block in self._blocks for part in block.parts(row)]

    def outputs(self, row: int) -> list[Used]:
        """The channels of every block's output."""
        return [block.outputs[row] for block in self._blocks]

    def forward(self, x: Tensor, row: int, mode: str = "train") -> list[Tensor]:
        """Map trunk features to the output of every block, with weights as last gathered.

        Args:
            x: (B, C, H, W), the same for all candidates.
            row: The virtual network.
            mode: "train" normalises by the batch, "measure" too and keeps its statistics, and
                "evaluate" normalises by those that were kept.

        Returns:
            (B, K O, H, W) per block; channels of padding are 0.
        """
        features: list[Tensor] = []
        for block in self._blocks:
            x = block.forward(x, row, mode, self._convolve)
            features.append(x)
        return features


def convolve_groups(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A 3x3 convolution with padding 1 and a group for every candidate.

    Args:
        x: (B, K I, H, W), or (B, I, H, W) of all candidates alike.
        weight: (K, O, I, 3, 3).
        stride: In pixels.

    Returns:
        (B, K O, H / stride, W / stride).
    """
    groups = x.shape[1] // weight.shape[2]
    return F.conv2d(x, weight.flatten(0, 1), stride=stride, padding=1, groups=groups)


def convolve_matrices(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The same as matrix products, one per candidate, of unfolded maps (B, K I, H, W)."""
    candidates, outputs, inputs = weight.shape[:3]
    groups = x.shape[1] // inputs
    height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
    patches = F.unfold(x, 3, padding=1, stride=stride)  # (B, groups I 9, H W)
    patches = patches.unflatten(1, (groups, -1)).permute(1, 2, 0, 3).flatten(2)
    y = torch.matmul(weight.flatten(2), patches)  # (K, O, B H W), patches shared where groups = 1
    y = y.unflatten(2, (x.shape[0], height * width)).permute(2, 0, 1, 3)
    maps: Tensor = y.reshape(x.shape[0], candidates * outputs, height, width)
    return maps


def _sources(before: Used, after: Used, width: int) -> Tensor | None:
    """(K, N): for each output channel its place among the inputs, one past them where it has none.

    None where the outputs are the inputs, followed by those that have no source.
    """
    if before.full and after.full:
        return None
    candidates = len(before.index_KN)
    place_KC = torch.full((candidates, max(width, int(after.index_KN.max())) + 2), before.count)
    place_KC.scatter_(1, before.index_KN.cpu(), torch.arange(before.count).expand(candidates, -1))
    place_KC[:, width:] = before.count  # padding, and channels that only the output has
    source_KN: Tensor = place_KC.gather(1, after.index_KN.cpu()).to(after.index_KN.device)
    return source_KN
