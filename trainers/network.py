"""One network for all virtual networks: shared trunk and tail, a head per row."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partitioning import Masks, VirtualNetwork
from trainers.backbones import BACKBONES, BackboneConfig
from trainers.data import Task, normalise
from trainers.masking import MaskedConv, RowNorm, update_mask

#: Images in one forward pass when nothing is trained.
EVALUATION_BATCH = 512


class Network(nn.Module):
    """A backbone under masks. Row r of the masks is virtual network r.

    Args:
        config: The backbone.
        masks: One row per virtual network, over the groups of the tail.
        classes: Number of classes of each row's head.
        generator: Source of the initial weights; None leaves them unset.
    """

    trunk: Any
    tail: Any

    def __init__(
        self,
        config: BackboneConfig,
        masks: Masks,
        classes: Sequence[int],
        *,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        family = BACKBONES[config.family]
        self.config = config
        self.masks = masks
        rows = len(masks.networks)
        if len(classes) != rows:
            raise ValueError(f"classes must have one entry per row: {rows}, got {len(classes)}")
        self.trunk = family.trunk(config, rows=rows, generator=generator)
        self.tail = family.tail(config, masks, generator=generator)
        self.heads = nn.ModuleList(
            nn.Linear(self.tail.out_channels(row), count) for row, count in enumerate(classes)
        )
        for head in self.heads:
            assert isinstance(head, nn.Linear)
            if generator is not None:
                nn.init.normal_(head.weight, std=0.01, generator=generator)
                nn.init.zeros_(head.bias)

    def head(self, features: Tensor, row: int) -> Tensor:
        """Map the last block's output (B, C, H, W) to logits (B, classes of the row)."""
        pooled = features.mean(dim=(2, 3))
        logits: Tensor = self.heads[row](pooled)
        return logits

    def forward(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes of the row)."""
        return self.head(self.tail(self.trunk(images, row), row)[-1], row)


def update_masks(tail: nn.Module, row: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each shared weight of a tail (O, I, 3, 3), with 1 (O, I, 1, 1) where `row` may change it."""
    for module in tail.modules():
        if isinstance(module, MaskedConv):
            yield module.weight, update_mask(*module.channels(row))


@torch.no_grad()
def load_weights(module: nn.Module, state: Mapping[str, Tensor], prefix: str) -> None:
    """Copy the shared convolutions of a trunk or tail from a network's state dict."""
    for name, child in module.named_modules():
        if isinstance(child, MaskedConv):
            child.weight.copy_(state[f"{prefix}{name}.weight"])


def load_norms(module: nn.Module, row: int, state: Mapping[str, Tensor], prefix: str) -> None:
    """Copy a row's batch norms from row 0 of an unmasked network's state dict."""
    for name, child in module.named_modules():
        if isinstance(child, RowNorm):
            child.load(row, state, f"{prefix}{name}.0.")


def full_masks(config: BackboneConfig, names: Sequence[str]) -> Masks:
    """Masks under which every named network uses every channel of the tail."""
    groups = BACKBONES[config.family].groups(config)
    return Masks(
        networks=tuple(VirtualNetwork(task=name) for name in names),
        groups=groups,
        forward={g.name: np.ones((len(names), g.width), dtype=np.bool_) for g in groups},
    )


@torch.no_grad()
def accuracy(network: Network, task: Task, row: int, split: str = "validation") -> float:
    """The share of a split's images that a row classifies correctly, in [0, 1].

    Raises:
        FloatingPointError: Its outputs are infinite or NaN; names the task.
    """
    network.eval()
    data = task.splits[split]
    correct = 0
    for start in range(0, len(data), EVALUATION_BATCH):
        images, labels = data.batch(start, start + EVALUATION_BATCH)
        logits = network(to_channels_last(normalise(images, task)), row)
        if not bool(logits.isfinite().all()):  # the last step is followed by no loss
            raise FloatingPointError(
                f"the trained network of {task.name} gives outputs that are not finite; lower the "
                "sgd.learning_rate that it was trained with"
            )
        correct += int((logits.argmax(dim=1) == labels).sum())
    return correct / len(data)


def place(module: nn.Module, device: torch.device) -> None:
    """Move a module to a device, its convolutions in the memory format that is fastest there."""
    module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_channels_last(images: Tensor) -> Tensor:
    """The same (B, C, H, W) tensor in the memory format that convolutions are fastest in."""
    return images.contiguous(memory_format=torch.channels_last)


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of logits (B, K) against labels (B,)."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
