"""A row against the whole network under masks, for networks of every kind."""

import copy
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
from trainers.networks.division import Division, find_division, used_by
from trainers.networks.row import Row

TOLERANCE = 1e-5


@cache
def divided(name: str) -> tuple[nn.Module, Tensor, Division]:
    model, images = network(name)
    return model, images, find_division(model, images)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def draw(division: Division, seed: int, *, streams: bool = False) -> NDArray[np.bool_]:
    """Random masks with a unit of every group at least; of streams only where it is asked for."""
    rng = np.random.default_rng(seed)
    forward = {}
    for each in division.groups:
        width = each.group.width
        used = rng.random(width) < rng.uniform(0.2, 0.9)
        used[rng.integers(width)] = True
        forward[each.group.name] = used | (each.group.kind == "stream" and not streams)
    return division.kept(forward)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


def masked(
    tensors: Mapping[str, Tensor], division: Division, kept: NDArray[np.bool_]
) -> dict[str, Tensor]:
    """The whole network's tensors, 0 wherever a layer would read a unit that a row does not use."""
    found = dict(tensors)
    for name, dims in division.axes.items():
        if name in found and 1 in dims:
            used = torch.from_numpy(used_by(dims[1], kept))
            found[name] = found[name] * used.view(1, -1, *[1] * (found[name].ndim - 2))
    return found


class OwnChannels(nn.Module):
    """A layer norm that normalises over some channels alone."""

    def __init__(self, norm: nn.LayerNorm, used: NDArray[np.bool_]) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.used = torch.from_numpy(used)
        self.last = type(norm).__name__ != "LayerNorm2d"

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.last else x.movedim(1, -1)
        own = x[..., self.used]
        mean, var = own.mean(-1, keepdim=True), own.var(-1, keepdim=True, unbiased=False)
        y = ((x - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias) * self.used
        return y if self.last else y.movedim(-1, 1)


def reference(
    model: nn.Module, division: Division, kept: NDArray[np.bool_], images: Tensor
) -> Tensor:
    """The whole network, its masked channels multiplied by zero where they are read."""
    whole = copy.deepcopy(model)
    whole.load_state_dict(masked(whole.state_dict(), division, kept))
    for name, module in list(whole.named_modules()):
        if isinstance(module, nn.LayerNorm) and name in division.axes:
            owner = division.axes[name][0]
            parent, _, child = name.rpartition(".")
            own = OwnChannels(module, (owner < 0) | kept[owner])
            setattr(whole.get_submodule(parent), child, own)
    logits: Tensor = whole(images)
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
def test_gradients_are_those_through_the_multiplication(name: str) -> None:
    model, images, division = divided(name)
    kept = draw(division, 0)
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
            data.draw(
                st.lists(st.booleans(), min_size=(n := each.group.width), max_size=n).filter(any)
            )
        )
        for each in division.groups
    }
    kept = division.kept(forward)
    row = Row(model, division, kept)
    found = row(row.gather(tensors(model)), images)
    assert difference(found, reference(model, division, kept, images)) < TOLERANCE


def groups(name: str) -> Mapping[str, tuple[str, int, int]]:
    _, _, division = divided(name)
    return {g.group.name: (g.group.kind, g.group.width, g.channels) for g in division.groups}


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


def test_what_cannot_be_divided_has_a_reason() -> None:
    _, _, division = divided("resnet18")
    assert division.refused == {"fc": "nothing reads it: it is an output of the network"}
