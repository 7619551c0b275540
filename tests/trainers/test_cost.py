"""What masks cost, by hand, by what exported networks have and by what torch counts of them."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from partitioning import Masks
from tests.helpers.foreign import BACKBONES, backbone, drawn_state
from tests.helpers.masks import full_masks, random_masks
from tests.helpers.small_networks import BUILT, GROUPS, NAMES
from tests.helpers.tasks import bright_task
from trainers.cost import costs
from trainers.export.compact import CompactNetwork
from trainers.network import Network
from trainers.networks import Backbone, BackboneError

CPU = torch.device("cpu")


def network(found: Backbone, masks: Masks, classes: list[int]) -> Network:
    state = drawn_state(found)
    return Network(
        found, masks, classes, shared=state, norms=[state] * len(classes), seed=0, device=CPU
    )


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("use", [0.0, 0.6])
def test_costs_count_what_compact_networks_have(name: str, use: float) -> None:
    found, (_, size) = backbone(name), BACKBONES[name]
    masks = random_masks(found.groups, NAMES, 3, use=use)
    classes = [2, 5]
    counted = costs(found, masks, classes)
    rows = network(found, masks, classes)
    for row, task in enumerate(NAMES):
        compact = CompactNetwork(rows, row, bright_task(task, row, size=size)).eval()
        assert counted.parameters[task] == sum(p.numel() for p in compact.parameters())
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as flops,
        ):
            assert compact(torch.zeros(2, 3, size, size, dtype=torch.uint8)).shape[1] == 2 + 3 * row
        assert counted.macs[task] == flops.get_total_flops() // 2 // 2
        assert counted.use[task] == pytest.approx(masks.use()[row])
    full = costs(found, full_masks(found.groups, NAMES), classes)
    assert full.mean_use == full.relative_parameters == full.relative_macs == 1.0
    assert full.relative_union == 1.0
    whole = network(found, full_masks(found.groups, NAMES), classes)
    learned = dict(found.model.named_parameters()).keys() | set(found.of_head)
    state = {n.split(".", 1)[1]: 0 for n in whole.state()}
    assert learned <= state.keys()
    held = [v.numel() for n, v in whole.state().items() if n.split(".", 1)[1] in learned]
    assert full.union_parameters == sum(held)
    assert counted.relative_union < 1.0
    assert counted.relative_macs < 1.0


def test_the_union_of_disjoint_masks_counts_both() -> None:
    """Half of the hidden channels each: together all of them, shared weights once."""
    half = np.arange(16) < 8
    masks = Masks(
        networks=full_masks(GROUPS, NAMES).networks,
        groups=GROUPS,
        forward={g.name: np.stack([half, ~half]) for g in GROUPS},
    )
    full = costs(BUILT, full_masks(GROUPS, NAMES), [2, 2])
    split = costs(BUILT, masks, [2, 2])
    # Two blocks: half of the hidden norm (2 x 8 numbers) of either task is gone, weights stay.
    assert full.union_parameters - split.union_parameters == 2 * 2 * 2 * 8
    alone = Masks(
        networks=masks.networks,
        groups=GROUPS,
        forward={g.name: np.stack([half] * 2) for g in GROUPS},
    )
    weights = 9 * 8 * (8 + 16) + 9 * 8 * (16 + 16)  # of the other half, both blocks
    shared = costs(BUILT, alone, [2, 2])
    assert split.union_parameters - shared.union_parameters == weights


def test_macs_by_hand() -> None:
    """ResNet-14 of width 4 on 8 x 8 pixels: every convolution's k^2 I O H W, and the head."""
    full = costs(BUILT, full_masks(GROUPS, ("a",)), [2])
    stem = 9 * 3 * 4 * 64
    first = 4 * 9 * 4 * 4 * 64
    second = 9 * (4 * 8 + 3 * 8 * 8) * 16
    third = 9 * (8 * 16 + 3 * 16 * 16) * 4
    assert full.macs["a"] == stem + first + second + third + 16 * 2


def test_masks_of_another_network_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"the groups stage2\.0\.conv1 \(8\), .* are stage3\.0"):
        costs(BUILT, random_masks(backbone("resnet14").groups, NAMES, 0), [2, 2])
