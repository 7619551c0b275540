"""Cross-stitch networks against single ones, and against their maps mixed by hand."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tests.trainers.methods.helpers import BUILT, CPU, images_of, networks_of, plan_of
from trainers.methods import SharedNetworks
from trainers.methods.cross_stitch import CrossStitchNetworks


def stitched(own: float) -> CrossStitchNetworks:
    """Two tasks' networks as training begins, with norms that differ."""
    found: Mapping[str, SharedNetworks] = networks_of(
        plan_of("cross_stitch", tasks=("digits", "colours"), own=own)
    )
    part = found["all"]
    assert isinstance(part, CrossStitchNetworks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for row, others in zip(part.rows, part._norms, strict=True):
            for norms in ({**row.own, **row.buffers}, *others):
                for tensor in norms.values():
                    if tensor.is_floating_point():
                        tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return part


@torch.no_grad()
def test_networks_that_are_not_mixed_are_single_ones() -> None:
    part = stitched(own=1.0)
    for row, task in enumerate(("digits", "colours")):
        images = images_of(task)
        module = part.rows[row].row.module
        _, features = functional_call(module, part.tensors(row, row), (images,))
        wanted = F.linear(features, *part.rows[row].head)
        torch.testing.assert_close(part(images, row), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_maps_are_mixed_behind_every_block() -> None:
    part = stitched(own=0.9)
    images = images_of("colours")
    networks = [part.tensors(1, number) for number in range(2)]
    maps = [
        F.relu(
            F.batch_norm(
                F.conv2d(images, own["conv.weight"], padding=1), own["bn.running_mean"],
                own["bn.running_var"], own["bn.weight"], own["bn.bias"],
            )
        )
        for own in networks
    ]  # fmt: skip
    for output in BUILT.outputs:
        block = BUILT.tail.get_submodule(output.name).eval()
        at = len(output.name) + 1
        maps = [
            functional_call(
                block, {n[at:]: t for n, t in own.items() if n.startswith(f"{output.name}.")}, (x,)
            )
            for own, x in zip(networks, maps, strict=True)
        ]
        maps = [0.9 * maps[0] + 0.1 * maps[1], 0.1 * maps[0] + 0.9 * maps[1]]
    wanted = F.linear(maps[1].mean(dim=(2, 3)), *part.rows[1].head)
    torch.testing.assert_close(part(images, 1), wanted, rtol=1e-4, atol=1e-4)


def test_it_is_no_network_alone_and_costs_all_of_them() -> None:
    part = stitched(own=0.9)
    with pytest.raises(ValueError, match="cross-stitch networks are not exported"):
        part.alone(0)
    alone = SharedNetworks(
        BUILT, part.part, [8, 8], state=BUILT.initial(2, 0), sizes=[8, 8], seed=0, device=CPU
    )
    weights = sum(t.numel() for t in alone.shared.values())
    norms = sum(t.numel() for t in alone.rows[0].own.values())
    mixed = 4 * len(BUILT.outputs)
    heads = sum(t.numel() for t in part.rows[0].head)
    assert part.stored([0]) == 2 * weights + 2 * norms + mixed + heads
    decayed, others = part.parameters([0, 1], "all")
    assert sum(p.numel() for p in others if p.ndim == 2) == mixed
    assert all(p.ndim == 4 or p.shape[1] == BUILT.features for p in decayed)
