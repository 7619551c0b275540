"""What masks cost, by hand and by what compact networks have."""

import numpy as np
import pytest
import torch

from partitioning import Masks
from tests.helpers.small_networks import BACKBONE, NAMES, candidate
from trainers.backbones import channel_groups
from trainers.cost import costs
from trainers.data import Task
from trainers.export.compact import CompactNetwork
from trainers.network import Network, full_masks


def test_costs_count_what_compact_networks_have(tasks: dict[str, Task]) -> None:
    masks = candidate(3)
    network = Network(BACKBONE, masks, [2, 2], generator=torch.Generator().manual_seed(0))
    counted = costs(BACKBONE, masks, [2, 2], input_size=8)
    for row, name in enumerate(NAMES):
        compact = CompactNetwork(network, row, tasks[name])
        assert counted.parameters[name] == sum(p.numel() for p in compact.parameters())
        assert counted.use[name] == pytest.approx(masks.use()[row])
    full = costs(BACKBONE, full_masks(BACKBONE, NAMES), [2, 2], input_size=8)
    assert full.mean_use == full.relative_parameters == full.relative_macs == 1.0
    whole = Network(BACKBONE, full_masks(BACKBONE, NAMES), [2, 2], generator=None)
    assert full.union_parameters == sum(p.numel() for p in whole.parameters())
    assert counted.relative_union < 1.0


def test_the_union_of_disjoint_masks_counts_both() -> None:
    """Half of the hidden channels each: together all of them, shared weights once."""
    groups = channel_groups(BACKBONE)
    half = np.arange(16) < 8
    masks = Masks(
        networks=full_masks(BACKBONE, NAMES).networks,
        groups=groups,
        forward={g.name: np.stack([half, ~half]) for g in groups},
    )
    full = costs(BACKBONE, full_masks(BACKBONE, NAMES), [2, 2], input_size=8)
    split = costs(BACKBONE, masks, [2, 2], input_size=8)
    # Two blocks: half of the hidden norm (2 x 8 numbers) of either task is gone, weights stay.
    assert full.union_parameters - split.union_parameters == 2 * 2 * 2 * 8
    alone = Masks(
        networks=masks.networks,
        groups=groups,
        forward={g.name: np.stack([half] * 2) for g in groups},
    )
    weights = 9 * 8 * (8 + 16) + 9 * 8 * (16 + 16)  # of the other half, both blocks
    shared = costs(BACKBONE, alone, [2, 2], input_size=8)
    assert split.union_parameters - shared.union_parameters == weights


def test_macs_by_hand() -> None:
    """ResNet-14 of width 4 on 8 x 8 pixels: every convolution's k^2 I O H W, and the head."""
    full = costs(BACKBONE, full_masks(BACKBONE, ["a"]), [2], input_size=8)
    stem = 9 * 3 * 4 * 64
    first = 4 * 9 * 4 * 4 * 64
    second = 9 * (4 * 8 + 3 * 8 * 8) * 16
    third = 9 * (8 * 16 + 3 * 16 * 16) * 4
    assert full.macs["a"] == stem + first + second + third + 16 * 2
