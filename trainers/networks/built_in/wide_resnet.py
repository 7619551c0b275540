"""The wide ResNet of CIFAR-sized images: blocks that normalise before they convolve.

Zagoruyko and Komodakis 2016, "Wide residual networks", table 1, with five blocks in each of three
stages: the WRN-32-s of Kim et al. 2019, "Deep virtual networks", section 4.1.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.networks.built_in.layers import at_least_one, convolution, initialise, stage


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions behind their norms, beside a shortcut.

    Args:
        inputs: Channels that it reads.
        outputs: Channels between the convolutions and of its output.
        stride: Of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = F.relu(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.conv2(F.relu(self.bn2(self.conv1(y)), inplace=True))
        total: Tensor = x + y
        return total


class WideResNet(nn.Module):
    """A stem, three stages of 16, 32 and 64 times `widen` channels, and a head.

    Args:
        blocks: In each stage; a network has 6 * blocks + 2 weighted layers.
        widen: The factor s of WRN-32-s.
        stem_stride: Of the stem, so that images of 32, 64 and 96 pixels give maps of one size.
        classes: Of the head.

    Raises:
        ValueError: One of them is below 1.
    """

    def __init__(
        self, blocks: int, *, widen: int = 4, stem_stride: int = 1, classes: int = 10
    ) -> None:
        super().__init__()
        at_least_one(blocks=blocks, widen=widen, stem_stride=stem_stride, classes=classes)
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        self.conv = convolution(3, widths[0], 3, stem_stride)
        self.stage1, self.stage2, self.stage3 = (
            stage(PreActivationBlock, blocks, inputs, outputs, stride)
            for inputs, outputs, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        )
        self.bn = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes)."""
        x = self.stage3(self.stage2(self.stage1(self.conv(images))))
        logits: Tensor = self.head(F.relu(self.bn(x)).mean(dim=(2, 3)))
        return logits
