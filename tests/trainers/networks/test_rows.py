"""A row against the whole network under masks, for networks of every kind."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.foreign import NETWORKS, network
from tests.helpers.masked import masked, with_own_norms
from trainers.networks.division import Division, find_division
from trainers.networks.row import Row

TOLERANCE = 1e-5


@cache
def divided(name: str) -> tuple[nn.Module, Tensor, Division]:
    model, images = network(name)
    return model, images, find_division(model, images)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def draw(
    division: Division, seed: int, *, streams: bool = False, empty: float = 0.0
) -> NDArray[np.bool_]:
    """Random masks with a unit of every group at least; of streams only where it is asked for.

    Args:
        division: Of the network.
        seed: Of the masks.
        streams: Whether streams are masked.
        empty: Share of the groups that are, of which nothing is used.
    """
    rng = np.random.default_rng(seed)
    forward = {}
    for each in division.groups:
        width = each.group.width
        used = rng.random(width) < rng.uniform(0.2, 0.9)
        used[rng.integers(width)] = True
        if empty and rng.random() < empty:
            used[:] = False
        forward[each.group.name] = used | (each.group.kind == "stream" and not streams)
    return division.kept(forward)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


def reference(
    model: nn.Module, division: Division, kept: NDArray[np.bool_], images: Tensor
) -> Tensor:
    """The whole network, its masked channels multiplied by zero where they are read."""
    whole = with_own_norms(model, division, kept)
    own = masked(tensors(model), division, kept)
    logits: Tensor = functional_call(whole, own, (images,))
    return logits


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("streams", [False, True])
@torch.no_grad()
def test_a_row_computes_what_the_masked_network_does(name: str, streams: bool) -> None:
    model, images, division = divided(name)
    changes = []
    for seed in range(3):
        kept = draw(division, seed, streams=streams)
        row = Row(model, division, kept)
        found = row(row.gather(tensors(model)), images)
        assert difference(found, reference(model, division, kept, images)) < TOLERANCE
        changes.append(difference(found, model(images)))
    assert max(changes) > 100 * TOLERANCE, "what was masked must matter"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("streams", [False, True])
@torch.no_grad()
def test_a_group_of_which_nothing_is_used_has_a_unit_that_counts_as_0(
    name: str, streams: bool
) -> None:
    model, images, division = divided(name)
    kept = draw(division, 1, streams=streams, empty=0.5)
    maskable = [each for each in division.groups if streams or each.group.kind != "stream"]
    first = next((m for m in maskable if streams == (m.group.kind == "stream")), maskable[0])
    kept[first.units] = False
    kept[maskable[-1].units] |= np.arange(maskable[-1].group.width) == 1  # not all are empty
    row = Row(model, division, kept)
    own = row.gather(tensors(model))
    assert own[f"{first.group.name}.weight"].shape[0] == first.group.channels
    assert not own[f"{first.group.name}.weight"].any()
    assert difference(row(own, images), reference(model, division, kept, images)) < TOLERANCE
    assert difference(row.alone(tensors(model))(images), row(own, images)) < TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("empty", [0.0, 0.4])
def test_gradients_are_those_through_the_multiplication(name: str, empty: float) -> None:
    model, images, division = divided(name)
    kept = draw(division, 0, empty=empty)
    whole = {name: value.detach().clone() for name, value in tensors(model).items()}
    learned = [n for n, _ in model.named_parameters()]
    for each in learned:
        whole[each].requires_grad_()
    row = Row(model, division, kept)
    logits = row(row.gather(whole), images)
    found = torch.autograd.grad(
        logits.square().sum(), [whole[n] for n in learned], allow_unused=True
    )
    logits = functional_call(model, masked(whole, division, kept), (images,))
    wanted = torch.autograd.grad(
        logits.square().sum(), [whole[n] for n in learned], allow_unused=True
    )
    for each, one, other in zip(learned, found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            axes = division.axes.get(each, {})
            for dim, owner in axes.items():  # the masked network computes what nobody reads
                used = torch.from_numpy((owner < 0) | kept[owner])
                other = other * used.view([-1 if d == dim else 1 for d in range(other.ndim)])
            assert difference(one, other) < 10 * TOLERANCE, each


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_row_alone_is_as_small_as_its_masks(name: str) -> None:
    model, images, division = divided(name)
    kept = draw(division, 1, streams=True)
    row = Row(model, division, kept)
    alone = row.alone(tensors(model))
    assert difference(alone(images), row(row.gather(tensors(model)), images)) < TOLERANCE
    for each in alone.modules():
        if isinstance(each, nn.Conv2d):
            shape = (each.out_channels, each.in_channels // each.groups, *each.kernel_size)
            assert each.weight.shape == shape
        if isinstance(each, nn.Linear):
            assert each.weight.shape == (each.out_features, each.in_features)
    with FlopCounterMode(display=False) as counter:
        alone(images)
    with FlopCounterMode(display=False) as whole:
        model(images)
    assert 0 < counter.get_total_flops() < 0.9 * whole.get_total_flops()
    exported = torch.export.export(alone, (images,)).module()
    assert difference(exported(images), alone(images)) < TOLERANCE


@settings(max_examples=25, deadline=None)
@given(st.data())
@torch.no_grad()
def test_any_masks(data: st.DataObject) -> None:
    model, images, division = divided("residual")
    forward = {
        each.group.name: np.array(
            data.draw(st.lists(st.booleans(), min_size=(n := each.group.width), max_size=n))
        )
        for each in division.groups
    }
    kept = division.kept(forward)
    row = Row(model, division, kept)
    found = row(row.gather(tensors(model)), images)
    assert difference(found, reference(model, division, kept, images)) < TOLERANCE


def groups(name: str) -> Mapping[str, tuple[str, int, int]]:
    _, _, division = divided(name)
    return {g.group.name: (g.group.kind, g.group.width, g.group.channels) for g in division.groups}


def test_what_only_goes_together_is_one_unit() -> None:
    # Six norm groups of four channels, and three convolution groups of eight.
    block = ("hidden", 3, 8)
    assert groups("residual") == {
        "stem": ("stream", 12, 1), "blocks.0.0": block, "blocks.1.0": block,
    }  # fmt: skip
    found = groups("resnext50")
    assert found["layer4.0.conv1"] == ("hidden", 32, 32)
    assert found["layer4.0.conv3"] == ("stream", 2048, 1)
    assert groups("vit")["blocks.0.attn.qkv"] == ("heads", 3, 3 * 64)
    assert groups("transformers_vit")["model.vit.layers.0.attention.q_proj"][:2] == ("heads", 3)
    assert groups("convnext")["stages.3.blocks.0.mlp.fc1"] == ("hidden", 1280, 1)
    # Shortcuts fill new channels with zeros: units of a stage's stream that those before lack.
    found = groups("resnet14")
    assert [name for name, (kind, *_) in found.items() if kind == "hidden"] == [
        f"stage{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1)
    ]
    streams = {name: width for name, (kind, width, _) in found.items() if kind == "stream"}
    assert sum(streams.values()) == 32


def test_what_cannot_be_divided_has_a_reason() -> None:
    _, _, division = divided("resnet18")
    assert division.refused == {"fc": "nothing reads it: it is an output of the network"}
