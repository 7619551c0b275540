"""Residual networks as for ImageNet: basic blocks, or bottlenecks of grouped convolutions.

He et al. 2016, "Deep residual learning", table 1 (basic blocks), and Xie et al. 2017, "Aggregated
residual transformations", section 5.3 (ResNeXt-29 for CIFAR). ResNet-42 has five blocks in each of
four stages, which makes the 29.8 million weights that Kim et al. 2019 say.
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.networks.built_in.layers import at_least_one, convolution, initialise, stage


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        inputs: Channels that it reads.
        outputs: Channels between the convolutions and of its output.
        stride: Of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """A grouped 3x3 convolution between two of 1x1, beside a shortcut.

    Args:
        groups: Of the grouped convolution.
        inner: Its channels.
        inputs: Channels that the block reads.
        outputs: Channels of its output.
        stride: Of the grouped convolution.
    """

    def __init__(self, groups: int, inner: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = convolution(inner, inner, 3, stride, groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = convolution(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class Residual(nn.Module):
    """A stem of one 3x3 convolution, stages of blocks, and a head on the mean over pixels.

    Args:
        stem: Channels of the stem.
        stem_stride: Its stride, so that images of 32, 64 and 96 pixels give maps of one size.
        stages: Of blocks.
        features: Channels of the last one.
        classes: Of the head.
    """

    def __init__(
        self,
        stem: int,
        stem_stride: int,
        stages: Sequence[nn.Sequential],
        features: int,
        classes: int,
    ) -> None:
        super().__init__()
        at_least_one(stem_stride=stem_stride, classes=classes)
        self.conv = convolution(3, stem, 3, stem_stride)
        self.bn = nn.BatchNorm2d(stem)
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(features, classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes)."""
        x = F.relu(self.bn(self.conv(images)), inplace=True)
        for blocks in self.stages:
            x = blocks(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def resnet42(*, width: int = 64, stem_stride: int = 1, classes: int = 10) -> Residual:
    """ResNet-42: five basic blocks in each of four stages, of one to eight times `width` channels.

    Raises:
        ValueError: One of them is below 1.
    """
    at_least_one(width=width)
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    stages = [
        stage(BasicBlock, 5, inputs, outputs, stride)
        for inputs, outputs, stride in zip(widths, widths[1:], (1, 2, 2, 2), strict=False)
    ]
    return Residual(width, stem_stride, stages, widths[-1], classes)


def resnext29(
    *, groups: int = 8, width: int = 64, stem_stride: int = 1, classes: int = 10
) -> Residual:
    """ResNeXt-29 of `groups` x `width`d: three bottlenecks in each of three stages.

    Args:
        groups: Of the grouped convolutions (the cardinality).
        width: Channels of a group in the first stage; each further stage has twice as many.
        stem_stride: Stride of the stem.
        classes: Of the head.

    Raises:
        ValueError: One of them is below 1.
    """
    at_least_one(groups=groups, width=width)
    widths = (64, 256, 512, 1024)
    stages = [
        stage(partial(Bottleneck, groups, groups * width * factor), 3, inputs, outputs, stride)
        for inputs, outputs, factor, stride in zip(
            widths, widths[1:], (1, 2, 4), (1, 2, 2), strict=False
        )
    ]
    return Residual(64, stem_stride, stages, widths[-1], classes)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
