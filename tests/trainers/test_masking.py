"""Masked networks against a dense reference that multiplies by masks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from partitioning import ChannelGroup, Masks
from tests.helpers.masks import random_masks
from trainers.backbones import BackboneConfig, channel_groups
from trainers.backbones.resnet import ResNetTail
from trainers.masking import Channels
from trainers.network import Network

TASKS = ("a", "b", "c")


def dense_norm(norm: torch.nn.Module, channels: Channels, x: Tensor) -> Tensor:
    """A row's batch norm in training mode, spread over all channels; unused ones are zero."""
    assert isinstance(norm, torch.nn.BatchNorm2d)
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    var = x.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
    weight, bias = torch.zeros(x.shape[1]), torch.zeros(x.shape[1])
    weight[channels.index], bias[channels.index] = norm.weight, norm.bias
    normal = (x - mean) / (var + norm.eps).sqrt()
    return normal * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def dense_tail(tail: ResNetTail, masks: Masks, x: Tensor, row: int) -> Tensor:
    """The tail with full convolutions and masks multiplied onto the features."""
    stage_mask = masks.forward.get("stage3.stream")
    width = tail.blocks[0].conv2.weight.shape[0]
    stream = torch.ones(width) if stage_mask is None else torch.tensor(stage_mask[row]).float()
    for i, block in enumerate(tail.blocks):
        hidden = torch.tensor(masks.forward[f"stage3.block{i}.hidden"][row]).float()
        shortcut = x
        if block.conv1.stride == 2:
            shortcut = F.avg_pool2d(x, 2)
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, width - x.shape[1]))
            shortcut = shortcut * stream.view(1, -1, 1, 1)
        h = F.conv2d(x, block.conv1.weight, stride=block.conv1.stride, padding=1)
        h = F.relu(dense_norm(block.bn1[row], block.conv1.outputs[row], h))
        h = h * hidden.view(1, -1, 1, 1)
        y = F.conv2d(h, block.conv2.weight, padding=1)
        y = dense_norm(block.bn2[row], block.conv2.outputs[row], y) * stream.view(1, -1, 1, 1)
        x = F.relu(y + shortcut)
    return x


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_sliced_tail_equals_multiplication_by_masks(
    backbone: BackboneConfig, stream: bool, seed: int
) -> None:
    groups = channel_groups(backbone, stream=stream)
    masks = random_masks(groups, TASKS, seed)
    tail = ResNetTail(backbone, masks, generator=torch.Generator().manual_seed(seed))
    x = torch.randn(5, backbone.trunk_width, 8, 8, generator=torch.Generator().manual_seed(seed))
    for row in range(len(TASKS)):
        got = tail(x, row)[-1]
        wanted = dense_tail(tail, masks, x, row)
        index = tail.outputs[row].index
        torch.testing.assert_close(got, wanted[:, index], rtol=1e-4, atol=1e-5)


def test_gradients_reach_only_what_a_row_may_change(backbone: BackboneConfig) -> None:
    masks = random_masks(channel_groups(backbone), TASKS, 0, backward=True)
    tail = ResNetTail(backbone, masks, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, backbone.trunk_width, 8, 8, generator=torch.Generator().manual_seed(1))
    for row in range(len(TASKS)):
        tail.zero_grad(set_to_none=True)
        tail(x, row)[-1].square().mean().backward()
        for i, block in enumerate(tail.blocks):
            name = f"stage3.block{i}.hidden"
            assert masks.backward is not None
            free = torch.tensor(masks.backward[name][row])
            rows = block.conv1.weight.grad.abs().sum(dim=(1, 2, 3))
            columns = block.conv2.weight.grad.abs().sum(dim=(0, 2, 3))
            assert (rows[~free] == 0).all()
            assert (columns[~free] == 0).all()
            assert (rows[free] > 0).all()
            assert (columns[free] > 0).all()


def test_backward_masks_leave_the_forward_pass_alone(backbone: BackboneConfig) -> None:
    groups = channel_groups(backbone)
    masks = random_masks(groups, TASKS, 0, backward=True)
    plain = Masks(networks=masks.networks, groups=groups, forward=masks.forward)
    x = torch.randn(2, backbone.trunk_width, 8, 8, generator=torch.Generator().manual_seed(0))
    tails = [
        ResNetTail(backbone, m, generator=torch.Generator().manual_seed(0)) for m in (masks, plain)
    ]
    for row in range(len(TASKS)):
        assert torch.equal(tails[0](x, row)[-1], tails[1](x, row)[-1])


def test_a_task_without_channels_is_the_shortcut_alone(backbone: BackboneConfig) -> None:
    masks = random_masks(channel_groups(backbone), ("a",), 0, use=0.0)
    network = Network(backbone, masks, [3], generator=torch.Generator().manual_seed(0))
    logits = network(torch.randn(4, 3, 8, 8), 0)
    assert logits.shape == (4, 3)
    logits.sum().backward()


def test_contiguous_channels_are_a_view() -> None:
    weight = torch.randn(6, 2, 3, 3)
    run = Channels(np.array([0, 1, 1, 1, 0, 0], dtype=bool))
    assert run.take(weight, 0).data_ptr() == weight[1:].data_ptr()
    scattered = Channels(np.array([1, 0, 1, 0, 0, 1], dtype=bool))
    assert torch.equal(scattered.take(weight, 0), weight[[0, 2, 5]])


def test_masks_of_another_network_are_refused(backbone: BackboneConfig) -> None:
    wide = channel_groups(BackboneConfig(family="resnet14", width=8))
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"16 channels in the backbone.*made for 32"):
        ResNetTail(backbone, random_masks(wide, TASKS, 0), generator=generator)
    other = (ChannelGroup(name="stage9.block0.hidden", width=16, kind="hidden"),)
    with pytest.raises(ValueError, match="must have the backbone's channel groups"):
        ResNetTail(backbone, random_masks(other, TASKS, 0), generator=generator)


@pytest.mark.parametrize("use", [0.0, 0.4, 1.0])
def test_bf16_is_close_to_fp32(backbone: BackboneConfig, use: float) -> None:
    masks = random_masks(channel_groups(backbone), TASKS, 0, use=use)
    network = Network(backbone, masks, [3] * 3, generator=torch.Generator().manual_seed(0))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    full = network(images, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(images, 0)
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(("size", "strides"), [(9, (1, 2, 2)), (14, (2, 2, 2))])
def test_odd_sizes(size: int, strides: tuple[int, int, int]) -> None:
    config = BackboneConfig(family="resnet14", width=4, strides=strides)
    masks = random_masks(channel_groups(config), ("a",), 0)
    network = Network(config, masks, [3], generator=torch.Generator().manual_seed(0))
    assert network(torch.zeros(2, 3, size, size), 0).shape == (2, 3)


def test_a_network_without_a_stream_is_refused(backbone: BackboneConfig) -> None:
    masks = random_masks(channel_groups(backbone, stream=True), ("a",), 0, use=0.0)
    with pytest.raises(ValueError, match=r"network a must have a channel of stage3\.stream"):
        ResNetTail(backbone, masks, generator=None)


@pytest.mark.parametrize("partition_from", [1, 2, 3])
def test_a_narrow_stem_and_any_first_partitioned_stage(partition_from: int) -> None:
    config = BackboneConfig(family="resnet14", width=4, stem_width=3, partition_from=partition_from)
    masks = random_masks(channel_groups(config), ("a", "b"), 0)
    network = Network(config, masks, [3, 3], generator=torch.Generator().manual_seed(0))
    images = torch.zeros(2, 3, 8, 8)
    assert network.trunk(images, 1).shape[1] == config.trunk_width
    assert network(images, 1).shape == (2, 3)
    with pytest.raises(ValueError, match=r"stem_width must be at most width, 4"):
        BackboneConfig(width=4, stem_width=8)
