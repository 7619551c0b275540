"""The network that chooses a level for every block, by the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import policy
from trainers.networks import BasicBlock, mend


class Selector(nn.Module):
    """Three residual blocks and a linear layer for every task (Auto-VirtualNet, section 4.1).

    Deep elastic networks say only that it is a small network of convolutions; theirs is the same
    here, with one budget. Group norms keep what it says of an image from depending on others, of
    its own task or of others, that it is trained or asked with.

    Args:
        tasks: T.
        budgets: Solutions for every image.
        blocks: n.
        levels: h.
        width: Channels of the first block; the others have two and four times as many.
        tau: All choices begin with the highest level tau more likely than the others.
        seed: Of its weights.
    """

    def __init__(
        self,
        *,
        tasks: int,
        budgets: int,
        blocks: int,
        levels: int,
        width: int,
        tau: float,
        seed: Sequence[int],
    ) -> None:
        super().__init__()
        self._shape = budgets, blocks, levels
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(np.random.default_rng(seed).integers(2**31)))
            widths = (width, width, 2 * width, 4 * width)
            self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
            self.norm = _group_norm(width)
            self.blocks = nn.Sequential(*(BasicBlock(i, o, 2) for i, o in pairwise(widths))).apply(
                mend
            )
            _by_image(self.blocks)
        count = budgets * blocks * levels
        self.heads = nn.ModuleList(nn.Linear(widths[-1], count) for _ in range(tasks))
        with torch.no_grad():
            for weight, bias in (tuple(head.parameters()) for head in self.heads):
                weight.zero_()
                bias.copy_(policy.initial(tau, levels).float().repeat(count // levels))

    def forward(self, images: Tensor, task: int) -> Tensor:
        """Map normalised images (B, 3, S, S) of a task to logits (B, budgets, n, h)."""
        x = self.blocks(F.relu(self.norm(self.stem(images)), inplace=True))
        logits: Tensor = self.heads[task](x.mean(dim=(2, 3)))
        return logits.float().view(-1, *self._shape)

    def costs(self, size: int) -> tuple[int, int]:
        """Parameters, and multiply-accumulates for an image of so many pixels, for one task."""
        from torch.utils.flop_counter import FlopCounterMode

        here = next(self.parameters()).device
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self(torch.zeros(1, 3, size, size, device=here), 0)
        others = sum(p.numel() for head in list(self.heads)[1:] for p in head.parameters())
        return sum(p.numel() for p in self.parameters()) - others, counter.get_total_flops() // 2


def _by_image(module: nn.Module) -> None:
    """Put group norms in the place of batch norms."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _group_norm(child.num_features))
        else:
            _by_image(child)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, channels), channels)
