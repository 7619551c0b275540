"""The ResNet of the Decathlon literature: a stem and three stages of basic blocks.

Shortcuts have no weights: average pooling where the stride is two, and new channels filled with
zeros (Rebuffi et al. 2017).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.networks.built_in.layers import stage


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        inputs: Channels that it reads.
        outputs: Channels between the convolutions and of its output, no fewer.
        stride: Of the first convolution and of the shortcut, 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True)  # odd sizes as the convolution has them
        if y.shape[1] > x.shape[1]:
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        y += x
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    """A stem, three stages of basic blocks, and a head on the mean over pixels.

    Args:
        blocks: In each stage.
        width: Channels of the first stage; each further stage has twice as many.
        stem_width: Channels of the stem, at most `width`, since shortcuts append channels and drop
            none. None takes `width`.
        stem_stride: Stride of the stem's convolution, 1 or 2.
        strides: Stride of the first block of each stage, 1 or 2.
        classes: Of the head.

    Raises:
        ValueError: One of them is out of range.
    """

    def __init__(
        self,
        blocks: int,
        *,
        width: int = 64,
        stem_width: int | None = None,
        stem_stride: int = 1,
        strides: Sequence[int] = (1, 2, 2),
        classes: int = 10,
    ) -> None:
        super().__init__()
        for name, count in (("width", width), ("stem_width", stem_width), ("classes", classes)):
            if count is not None and not (isinstance(count, int) and count >= 1):
                raise ValueError(f"{name} must be at least 1, got {count!r}")
        channels = width if stem_width is None else stem_width
        if channels > width:
            raise ValueError(
                f"stem_width must be at most width, {width}: shortcuts append channels and drop "
                f"none; got {stem_width}"
            )
        if len(strides) != 3 or not {stem_stride, *strides} <= {1, 2}:
            raise ValueError(
                "stem_stride must be 1 or 2, and strides three of them, one for each stage; got "
                f"{stem_stride} and {list(strides)}"
            )
        self.conv = nn.Conv2d(3, channels, 3, stride=stem_stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.stage1 = stage(Block, blocks, channels, width, strides[0])
        self.stage2 = stage(Block, blocks, width, 2 * width, strides[1])
        self.stage3 = stage(Block, blocks, 2 * width, 4 * width, strides[2])
        self.head = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes)."""
        x = F.relu(self.bn(self.conv(images)), inplace=True)
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits
