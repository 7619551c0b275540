"""The ResNet of the Decathlon literature: a stem and three stages of basic blocks.

Shortcuts have no weights: average pooling where the stride is two, and new channels filled with
zeros (Rebuffi et al. 2017). Everything before the first partitioned stage is the trunk, everything
from there on is the tail. Legend: B batch, H and W of a map, C channels.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partitioning import ChannelGroup, Masks
from partitioning.settings import Rule, Unit, at_least, between, checked, each, one_of
from trainers.masking import Channels, MaskedConv, RowNorm

#: Basic blocks of each stage, by the name of the network (which counts its weighted layers).
BLOCKS: dict[str, tuple[int, ...]] = {
    "resnet14": (2, 2, 2),
    "resnet26": (4, 4, 4),
    "resnet38": (6, 6, 6),
}


#: Strides of a convolution.
STRIDE = Rule(words="1 or 2", holds=lambda stride, own: stride in (1, 2))


@dataclass(frozen=True, kw_only=True)
@checked("backbone.{field}")
class BackboneConfig:
    """A backbone's shape.

    Attributes:
        family: The network, by how many layers with weights it has. All have three stages;
            resnet14 has two basic blocks in each, resnet26 four and resnet38 six.
        width: Channels of the first stage; each further stage has twice as many.
        stem_width: Channels of the stem, at most `width`, since shortcuts append channels and drop
            none. None takes `width`.
        stem_stride: Stride of the stem's convolution.
        strides: Stride of the first block of each of the three stages.
        partition_from: First stage (from 1) whose channels are partitioned; the stages before it
            are the frozen trunk. The paper partitions the last third: 3.
    """

    family: Annotated[str, one_of(BLOCKS)] = "resnet26"
    width: Annotated[int, at_least(1), Unit("channels")] = 64
    stem_width: Annotated[int | None, at_least(1), Unit("channels")] = None
    stem_stride: Annotated[int, STRIDE, Unit("pixels")] = 1
    strides: Annotated[tuple[int, ...], each(STRIDE), Unit("pixels")] = (1, 2, 2)
    partition_from: Annotated[int, between(1, 3)] = 3

    def _check(self) -> None:
        if self.stem_channels > self.width:
            raise ValueError(
                f"backbone.stem_width must be at most width, {self.width}: shortcuts append "
                f"channels and drop none; got {self.stem_width}"
            )
        if len(self.strides) != 3:
            raise ValueError(
                "backbone.strides must be three numbers, one for each stage, "
                f"got {list(self.strides)}"
            )

    @property
    def stem_channels(self) -> int:
        """Channels of the stem."""
        return self.width if self.stem_width is None else self.stem_width

    def stage_width(self, stage: int) -> int:
        """Channels of the residual stream of a stage (from 1)."""
        return int(self.width * 2 ** (stage - 1))

    def smallest_map(self, input_size: int) -> int:
        """Height and width of the last stage's maps for images of `input_size` pixels."""
        size = input_size
        for stride in (self.stem_stride, *self.strides):
            size = -(-size // stride)
        return size

    @property
    def trunk_width(self) -> int:
        """Channels that the trunk hands to the tail."""
        before = self.partition_from - 1
        return self.stage_width(before) if before else self.stem_channels

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return BLOCKS[self.family]


def channel_groups(config: BackboneConfig, *, stream: bool = False) -> tuple[ChannelGroup, ...]:
    """The groups that masks may switch off in the tail, in the order of the network.

    Args:
        config: The backbone.
        stream: Also list each partitioned stage's residual stream.

    Returns:
        `stageS.blockB.hidden` for every block, between its two convolutions (masks act on every
        other layer, so that half of the channels cost half), and with `stream` `stageS.stream`.
    """
    groups: list[ChannelGroup] = []
    for stage in range(config.partition_from, len(config.strides) + 1):
        width = config.stage_width(stage)
        for block in range(config.blocks[stage - 1]):
            name = f"stage{stage}.block{block}.hidden"
            groups.append(ChannelGroup(name=name, width=width, kind="hidden"))
        if stream:
            groups.append(ChannelGroup(name=f"stage{stage}.stream", width=width, kind="stream"))
    return tuple(groups)


@dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """A basic block of the tail: the names and widths of the channels that meet in it.

    Attributes:
        inputs: Group of its input; None where the trunk gives it, which no mask touches.
        hidden: Group between its two convolutions.
        outputs: Group of its output.
        widths: Channels of the three, without masks.
        stride: Of its first convolution and its shortcut.
    """

    inputs: str | None
    hidden: str
    outputs: str
    widths: tuple[int, int, int]
    stride: int


def tail_plan(config: BackboneConfig) -> tuple[BlockPlan, ...]:
    """The blocks of the tail, in order."""
    plan: list[BlockPlan] = []
    inputs, width = None, config.trunk_width
    for stage in range(config.partition_from, len(config.strides) + 1):
        outputs = f"stage{stage}.stream"
        stage_width = config.stage_width(stage)
        for block in range(config.blocks[stage - 1]):
            plan.append(
                BlockPlan(
                    inputs=inputs,
                    hidden=f"stage{stage}.block{block}.hidden",
                    outputs=outputs,
                    widths=(width, stage_width, stage_width),
                    stride=config.strides[stage - 1] if block == 0 else 1,
                )
            )
            inputs, width = outputs, stage_width
    return tuple(plan)


def check_masks(config: BackboneConfig, masks: Masks) -> None:
    """Refuses masks that do not fit the backbone's tail.

    Raises:
        ValueError: A group is missing or has another width than the backbone's, or a network has no
            channel of a residual stream.
    """
    expected = {group.name: group.width for group in channel_groups(config, stream=True)}
    required = {group.name for group in channel_groups(config)}
    got = {group.name: group.width for group in masks.groups}
    if not required <= got.keys() <= expected.keys():
        raise ValueError(
            f"the masks must have the backbone's channel groups {sorted(required)} "
            f"(and at most {sorted(expected)}), got {sorted(got)}"
        )
    for name, width in got.items():
        if width != expected[name]:
            raise ValueError(
                f"group {name} has {expected[name]} channels in the backbone, "
                f"but the masks were made for {width}"
            )
    for row, network in enumerate(masks.networks):
        for name in (g.name for g in masks.groups if g.kind == "stream"):
            if not masks.forward[name][row].any():
                raise ValueError(f"network {network} must have a channel of {name}, got none")


class Shortcut(nn.Module):
    """The weightless shortcut of one row: pool, then move the channels to their new places."""

    source: Tensor

    def __init__(self, inputs: Channels, outputs: Channels, stride: int) -> None:
        super().__init__()
        self.stride = stride
        position = {int(channel): i for i, channel in enumerate(inputs.index.tolist())}
        # An output channel without a source reads one past the end, where zeros are appended.
        source = [position.get(int(channel), inputs.count) for channel in outputs.index.tolist()]
        self.identity = source == list(range(inputs.count))
        self.pad = outputs.count - inputs.count
        self.appends = source == [min(i, inputs.count) for i in range(outputs.count)]
        self.register_buffer("source", torch.tensor(source, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, |inputs|, H, W) to (B, |outputs|, H / stride, W / stride)."""
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True)  # odd sizes as the convolution has them
        if self.identity:
            return x
        if self.appends and self.pad > 0:
            return F.pad(x, (0, 0, 0, 0, 0, self.pad))
        return F.pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, self.source)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm per row; the mask acts between them."""

    def __init__(
        self,
        inputs: Sequence[Channels],
        hidden: Sequence[Channels],
        outputs: Sequence[Channels],
        *,
        stride: int,
    ) -> None:
        super().__init__()
        self.conv1 = MaskedConv(hidden, inputs, stride=stride)
        self.bn1 = RowNorm(hidden)
        self.conv2 = MaskedConv(outputs, hidden)
        self.bn2 = RowNorm(outputs)
        self.shortcuts = nn.ModuleList(
            Shortcut(i, o, stride) for i, o in zip(inputs, outputs, strict=True)
        )

    def forward(self, x: Tensor, row: int) -> Tensor:
        """Map (B, |inputs|, H, W) to (B, |outputs|, H / stride, W / stride)."""
        h = F.relu(self.bn1(self.conv1(x, row), row))
        y = self.bn2(self.conv2(h, row), row)
        out: Tensor = F.relu(y + self.shortcuts[row](x))
        return out

    def compact(self, row: int) -> "PlainBlock":
        """The row's part without masks."""
        return PlainBlock(
            self.conv1.compact(row),
            self.bn1.compact(row),
            self.conv2.compact(row),
            self.bn2.compact(row),
            copy.deepcopy(self.shortcuts[row]),
        )


class PlainBlock(nn.Module):
    """A basic block of one virtual network, its unused channels removed."""

    def __init__(
        self,
        conv1: nn.Module,
        bn1: nn.Module,
        conv2: nn.Module,
        bn2: nn.Module,
        shortcut: nn.Module,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv1, bn1
        self.conv2, self.bn2 = conv2, bn2
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H / stride, W / stride)."""
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


def _initialise(module: nn.Module, generator: torch.Generator | None) -> None:
    if generator is None:
        return
    for child in module.modules():
        if isinstance(child, MaskedConv):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", generator=generator)


class ResNetTrunk(nn.Module):
    """The stem and the stages before the partitioned ones; weights shared, batch norm per row.

    Args:
        config: The backbone.
        rows: Number of rows R, each with batch norm of its own.
        generator: Source of the initial weights; None leaves them unset.
    """

    def __init__(
        self, config: BackboneConfig, *, rows: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        image = [Channels.all(3)] * rows
        stem = [Channels.all(config.stem_channels)] * rows
        self.conv = MaskedConv(stem, image, stride=config.stem_stride)
        self.bn = RowNorm(stem)
        blocks: list[BasicBlock] = []
        inputs = stem
        for stage in range(1, config.partition_from):
            outputs = [Channels.all(config.stage_width(stage))] * rows
            for block in range(config.blocks[stage - 1]):
                stride = config.strides[stage - 1] if block == 0 else 1
                blocks.append(BasicBlock(inputs, outputs, outputs, stride=stride))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        _initialise(self, generator)

    def forward(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to trunk features (B, C, H, W)."""
        x = F.relu(self.bn(self.conv(images, row), row))
        for block in self.blocks:
            x = block(x, row)
        return x

    def compact(self, row: int) -> nn.Module:
        """The trunk of one row as plain layers."""
        return nn.Sequential(
            self.conv.compact(row), self.bn.compact(row), nn.ReLU(), *_compact(self.blocks, row)
        )


class ResNetTail(nn.Module):
    """The partitioned stages: one set of weights, of which each row computes its own part.

    Args:
        config: The backbone.
        masks: Forward and backward masks of every group of `channel_groups(config)`; groups of
            residual streams may be left out and are then used in full.
        generator: Source of the initial weights; None leaves them unset.

    Raises:
        ValueError: A group is missing or has another width than the backbone's.
    """

    def __init__(self, config: BackboneConfig, masks: Masks, *, generator: torch.Generator) -> None:
        super().__init__()
        check_masks(config, masks)
        rows = len(masks.networks)
        blocks: list[BasicBlock] = []
        inputs = [Channels.all(config.trunk_width)] * rows
        for plan in tail_plan(config):
            hidden = _rows(masks, plan.hidden, plan.widths[1])
            outputs = _rows(masks, plan.outputs, plan.widths[2])
            blocks.append(BasicBlock(inputs, hidden, outputs, stride=plan.stride))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.outputs = nn.ModuleList(inputs)
        _initialise(self, generator)

    def forward(self, x: Tensor, row: int) -> list[Tensor]:
        """Map trunk features (B, C, H, W) to the output of every block, in order."""
        features: list[Tensor] = []
        for block in self.blocks:
            x = block(x, row)
            features.append(x)
        return features

    def compact(self, row: int) -> nn.Module:
        """The tail of one row as plain layers, its unused channels removed."""
        return nn.Sequential(*_compact(self.blocks, row))

    def out_channels(self, row: int) -> int:
        """Number of channels of the last block's output for a row."""
        channels = self.outputs[row]
        assert isinstance(channels, Channels)
        return channels.count


def _compact(blocks: nn.ModuleList, row: int) -> list[PlainBlock]:
    return [block.compact(row) for block in blocks if isinstance(block, BasicBlock)]


def _rows(masks: Masks, group: str, width: int) -> list[Channels]:
    if group not in masks.forward:
        return [Channels.all(width)] * len(masks.networks)
    backward: Mapping[str, np.ndarray] = masks.backward or {}
    return [
        Channels(used, backward[group][row] if group in backward else None)
        for row, used in enumerate(masks.forward[group])
    ]
