"""Networks without shortcuts: VGG-16 and the small one of the tasks of Mini-ImageNet.

Simonyan and Zisserman 2015, "Very deep convolutional networks", table 1, column D, with batch
norms; SimpleConvNet as Ahn et al. 2019, "Deep elastic networks", section 4.1 describe it.
"""

import torch
from torch import Tensor, nn

from trainers.networks.built_in.layers import at_least_one, convolution, initialise

#: Channels of VGG-16's convolutions, relative to the first; maps are halved behind each group.
VGG16 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


class VGG(nn.Module):
    """Thirteen convolutions in five blocks, two hidden linear layers, and a head.

    Args:
        width: Channels of the first convolutions.
        hidden: Features of the linear layers.
        classes: Of the head.

    Raises:
        ValueError: One of them is below 1.
    """

    def __init__(self, *, width: int = 64, hidden: int = 4096, classes: int = 10) -> None:
        super().__init__()
        at_least_one(width=width, hidden=hidden, classes=classes)
        inputs, blocks = 3, []
        for block in VGG16:
            layers: list[nn.Module] = []
            for factor in block:
                layers += _layer(inputs, factor * width)
                inputs = factor * width
            blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = _hidden(inputs, hidden)
        self.head = nn.Linear(hidden, classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S), of 32 pixels or more, to logits (B, classes)."""
        features = torch.flatten(self.pool(self.blocks(images)), 1)
        logits: Tensor = self.head(self.hidden(features))
        return logits


class SimpleConvNet(nn.Module):
    """Four convolutions, each with a pooling layer behind it, two hidden linear layers, and a head.

    Args:
        size: Height and width of the images.
        width: Channels of the convolutions.
        hidden: Features of the linear layers.
        classes: Of the head.

    Raises:
        ValueError: One of them is below 1, or the size below 16.
    """

    def __init__(
        self, *, size: int = 84, width: int = 32, hidden: int = 128, classes: int = 10
    ) -> None:
        super().__init__()
        at_least_one(width=width, hidden=hidden, classes=classes)
        if not (isinstance(size, int) and size >= 16):
            raise ValueError(f"size must be at least 16, which four poolings halve, got {size!r}")
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(*_layer(inputs, width), nn.MaxPool2d(2))
                for inputs in (3, width, width, width)
            )
        )
        self.hidden = _hidden(width * (size // 16) ** 2, hidden)
        self.head = nn.Linear(hidden, classes)
        self._size = size
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, size, size) to logits (B, classes).

        Raises:
            ValueError: They are of another size.
        """
        if images.shape[-1] // 16 != self._size // 16:
            raise ValueError(f"set size in backbone.args, which is {self._size}")
        logits: Tensor = self.head(self.hidden(torch.flatten(self.blocks(images), 1)))
        return logits


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return convolution(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _hidden(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden), nn.ReLU(inplace=True),
    )  # fmt: skip
