"""What a config makes of a network: trunk, groups, outputs, weights, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from partitioning import ChannelGroup
from tests.helpers.foreign import BACKBONES, backbone, with_operators
from tests.helpers.masks import random_masks
from trainers.data import Inputs
from trainers.networks import BackboneConfig, BackboneError, build_backbone, network_inputs
from trainers.networks.division import used_by
from trainers.networks.row import Row

RESNET = BackboneConfig(model="resnet14", args={"width": 4})


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 10))


def hidden(*blocks: str, width: int = 16) -> list[tuple[str, str, int]]:
    return [(f"{block}.conv1", "hidden", width) for block in blocks]


def groups(config: BackboneConfig) -> list[tuple[str, str, int]]:
    found = build_backbone(config, 8).groups
    assert all(isinstance(group.channels, int) for group in found)
    return [(group.name, group.kind, group.width) for group in found]


def test_the_last_third_of_the_blocks_is_divided() -> None:
    found = build_backbone(RESNET, 8)
    assert found.repeated == tuple(f"stage{s}.{b}" for s in (1, 2, 3) for b in (0, 1))
    assert [output.name for output in found.outputs] == ["stage3.0", "stage3.1"]
    assert groups(RESNET) == hidden("stage3.0", "stage3.1")
    assert found.boundary == (8, 4, 4)
    assert (found.head, found.features) == ("head", 16)
    assert found.of_head == ("head.weight", "head.bias")
    assert groups(replace(RESNET, model="resnet26")) == hidden(
        *(f"stage3.{block}" for block in range(4))
    )


@pytest.mark.parametrize(
    ("partition", "boundary"),
    [(("stage3.1",), (16, 2, 2)), (("stage2.1", "stage3.*"), (8, 4, 4)), (("*",), (4, 8, 8))],
)
def test_blocks_are_named(partition: tuple[str, ...], boundary: tuple[int, ...]) -> None:
    found = build_backbone(replace(RESNET, partition=partition), 8)
    assert found.boundary == boundary
    names = {group.name.removesuffix(".conv1") for group in found.groups}
    assert names == {output.name for output in found.outputs} == {
        b for b in found.repeated if partition == ("*",) or b in partition or
        ("stage3.*" in partition and b.startswith("stage3"))
    }  # fmt: skip


def test_streams_are_divided_where_they_are_asked_for() -> None:
    config = replace(RESNET, stream=True)
    assert groups(config) == [
        ("stage3.0.conv1", "hidden", 16),
        ("stage3.0.conv2", "stream", 8),  # new channels of the stage; others are of the trunk
        ("stage3.1.conv1", "hidden", 16),
    ]
    assert groups(replace(config, partition=("stage3.1",))) == hidden("stage3.1")


def test_without_a_trunk_everything_is_divided_from_the_stem_on() -> None:
    config = replace(RESNET, trunk="train", stream=True, partition=("*",))
    found = build_backbone(config, 8)
    assert found.boundary == (3, 8, 8)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(found.trunk(images), images)
    assert not list(found.trunk.parameters())
    streams = {group.name: group.width for group in found.groups if group.kind == "stream"}
    assert next(iter(streams.items())) == ("conv", 4)
    assert sum(streams.values()) == 16
    assert {name for name, _ in found.tail.named_parameters()} >= {"conv.weight", "bn.weight"}
    assert groups(replace(config, stream=False)) == [
        (f"stage{s}.{b}.conv1", "hidden", 4 * 2 ** (s - 1)) for s in (1, 2, 3) for b in (0, 1)
    ]
    # What none of the divided blocks has is not divided, though the tail has it.
    some = replace(config, partition=("stage3.*",), stream=False)
    assert groups(some) == hidden("stage3.0", "stage3.1")
    assert build_backbone(some, 8).boundary == (3, 8, 8)


@pytest.mark.parametrize("name", BACKBONES)
def test_outputs_have_the_channels_of_rows(name: str) -> None:
    """What a row of the tail gives is, of each output, as wide as its owners say."""
    found = backbone(name)
    x = torch.randn(2, *found.boundary)
    state = {**dict(found.tail.named_parameters()), **dict(found.tail.named_buffers())}
    with torch.no_grad():
        whole, features = found.tail(x)
    assert [tuple(out.shape[1:]) for out in whole] == [output.shape for output in found.outputs]
    assert features.shape == (2, found.features)
    divided_streams = any(group.kind == "stream" for group in found.groups)
    assert divided_streams == name.endswith("streams")
    for seed in range(3):
        kept_RU = found.kept(random_masks(found.groups, ("a",), seed))
        row = Row(found.tail, found.division, kept_RU[0])
        with torch.no_grad():
            smaller, features = row(row.gather(state), x)
        for out, output in zip(smaller, found.outputs, strict=True):
            assert (output.dim is None) == (output.owner is None) == (not divided_streams)
            shape = list(output.shape)
            if output.dim is not None and output.owner is not None:
                shape[output.dim - 1] = int(used_by(output.owner, kept_RU[0]).sum())
            assert list(out.shape[1:]) == shape
        assert features.shape[1] == found.read_by_head(kept_RU)[0]


def test_owners_of_outputs_are_their_channels() -> None:
    """In a row without some channels an output has the others', as far as nothing was masked."""
    found = backbone("resnet14 with streams")
    owners = [output.owner for output in found.outputs]
    names = {each.group.name: each for each in found.division.groups}
    stage2, stage3 = names["stage2.0.conv2"], names["stage3.0.conv2"]
    for owner in owners[:2]:
        assert owner is not None
        assert (owner >= 0).all()
        assert set(range(stage2.first, stage2.first + 4)) == set(owner[4:].tolist())
    for owner in owners[2:]:
        assert owner is not None
        assert owner[:8].tolist() == owners[0].tolist()  # type: ignore[union-attr]
        assert set(range(stage3.first, stage3.first + 8)) == set(owner[8:].tolist())


def test_rows_can_be_padded_where_no_norm_sees_other_channels() -> None:
    assert {name: backbone(name).padded for name in BACKBONES} == {
        "resnet14": True,
        "resnet14 with streams": True,
        "vit": True,
        "convnext": True,
        "convnext with streams": False,
    }


def test_the_head_may_be_named() -> None:
    config = BackboneConfig(
        model="tests.trainers.networks.test_cut:two_heads", partition=("blocks.1",), head="one"
    )
    found = build_backbone(config, 6)
    assert (found.head, found.features) == ("one", 6)
    assert set(found.of_head) <= found.initial(7, 0).keys()
    assert found.initial(7, 0)["one.weight"].shape == (7, 6)
    with pytest.raises(BackboneError, match=r"no linear layer gives the logits: name the module"):
        build_backbone(replace(config, head=None), 6)
    with pytest.raises(BackboneError, match=r"backbone: the head must be a module .* near it: one"):
        build_backbone(replace(config, head="ones"), 6)


@pytest.mark.parametrize(
    ("change", "size", "words"),
    [
        ({"model": "resnet27"}, 8, r"a network is named .*got 'resnet27'; did you mean .*resnet26"),
        ({"model": "timm:resnet27"}, 8, r"timm has no network resnet27; did you mean"),
        ({"args": {"widht": 4}}, 8, r"resnet14 cannot be built: .*widht"),
        ({"args": {"width": 0}}, 8, r"width must be at least 1, got 0"),
        (BACKBONES["vit"][0].__dict__, 8, r"vit_tiny_patch16_224 does not take images of 8 pixels"),
        ({"partition": ("stage4.*",)}, 8, r"matches 'stage4\.\*'; near it: stage\d"),
        (
            {"model": f"{__name__}:perceptron", "args": {}, "partition": ("2",)},
            8,
            r"nothing of 2 can be divided$",
        ),
    ],
)
def test_what_is_refused(change: dict[str, Any], size: int, words: str) -> None:
    with_operators()
    with pytest.raises(BackboneError, match=f"^backbone: .*{words}"):
        build_backbone(replace(RESNET, **change), size)


def test_a_trunk_is_frozen_or_trained() -> None:
    with pytest.raises(ValueError, match=r"backbone\.trunk must be one of frozen, train, got 'no'"):
        replace(RESNET, trunk="no")


def test_the_same_config_is_built_once() -> None:
    again = BackboneConfig(model="resnet14", args={"width": 4})
    assert build_backbone(RESNET, 8) is build_backbone(again, 8)
    assert build_backbone(RESNET, 8) is not build_backbone(RESNET, 16)
    assert build_backbone(RESNET, 8) is not build_backbone(replace(RESNET, stream=True), 8)


def test_weights_depend_on_the_seed_unless_they_are_given(tmp_path: Path) -> None:
    found = build_backbone(RESNET, 8)
    first, again, other = (found.initial(3, seed) for seed in (0, 0, 1))
    assert first.keys() == found.model.state_dict().keys()
    assert first["head.weight"].shape == (3, 16)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    for name in ("conv.weight", "stage3.1.conv2.weight", "head.weight"):
        assert not torch.equal(first[name], other[name])
    path = tmp_path / "weights.safetensors"
    save_file(first, path)
    given = build_backbone(replace(RESNET, weights=str(path)), 8)
    for seed in (0, 1):
        state = given.initial(5, seed)
        assert state["head.weight"].shape == (5, 16)
        for name, value in first.items():
            assert name.startswith("head.") or torch.equal(state[name], value)
    heads = [given.initial(5, seed)["head.weight"] for seed in (0, 1)]
    assert not torch.equal(*heads)


def test_drawing_weights_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    build_backbone(replace(RESNET, args={"width": 5}), 8).initial(3, 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    config = replace(RESNET, weights=str(path))
    found = build_backbone(config, 8)  # which needs none

    def refused(words: str) -> None:
        with pytest.raises(BackboneError, match=words):
            found.initial(2, 0)

    refused("do not exist")
    state = build_backbone(RESNET, 8).initial(2, 0)
    save_file({n: v for n, v in state.items() if not n.startswith("stage3.1.conv")}, path)
    refused(r"2 tensors are missing, such as stage3\.1\.conv1\.weight, stage3\.1\.conv2\.weight$")
    save_file(state | {"stage4.weight": torch.ones(1)}, path)
    refused(r"1 tensors are not the network's, such as stage4\.weight")
    save_file(state | {"conv.weight": torch.ones(8, 3, 3, 3)}, path)
    refused(r"conv\.weight is \(8, 3, 3, 3\) for \(4, 3, 3, 3\)")
    save_file(state | {"head.weight": torch.ones(9, 1), "head.more": torch.ones(1)}, path)
    assert torch.equal(found.initial(2, 0)["conv.weight"], state["conv.weight"])


def test_weights_that_would_have_to_be_unpickled_are_refused(tmp_path: Path) -> None:
    torch.save(build_backbone(RESNET, 8).model, tmp_path / "weights.pt")
    found = build_backbone(replace(RESNET, weights=str(tmp_path / "weights.pt")), 8)
    with pytest.raises(BackboneError, match=r"would have to be unpickled, which can run code"):
        found.initial(2, 0)


def test_masks_of_another_network_are_refused() -> None:
    found = build_backbone(RESNET, 8)
    wide = build_backbone(replace(RESNET, args={"width": 8}), 8)
    other = (ChannelGroup(name="stage9.0.conv1", width=16),)
    for wrong, words in ((wide.groups, r"stage3\.0\.conv1 \(32\)"), (other, r"stage9\.0\.conv1")):
        with pytest.raises(BackboneError, match=rf"{words}.*; those of resnet14 .*\(16\)"):
            found.kept(random_masks(wrong, ("a",), 0))


def test_what_masks_keep() -> None:
    found = backbone("resnet14 with streams")
    masks = random_masks(found.groups, ("a", "b"), 0, backward=True)
    assert masks.backward is not None
    for side, wanted in (("forward", masks.forward), ("backward", masks.backward)):
        kept_RU = found.kept(masks, side)
        assert kept_RU[:, ~found.divided].all()
        for each in found.division.groups:
            if each.group.name in wanted:
                assert np.array_equal(kept_RU[:, each.units], wanted[each.group.name])
                assert found.divided[each.units].all()


def test_inputs() -> None:
    """Sizes and interpolation are a network's, mean and deviation only those of its weights."""
    with_operators()
    assert network_inputs(RESNET) == (32, Inputs())
    config = BackboneConfig(model="timm:vit_tiny_patch16_224", args={"depth": 1})
    assert network_inputs(config) == (224, Inputs(interpolation="bicubic"))
    trained = replace(config, args={"depth": 1, "pretrained": True})  # not downloaded here
    size, inputs = network_inputs(trained)
    assert (size, inputs.mean, inputs.std) == (224, (0.5,) * 3, (0.5,) * 3)
    given = replace(config, weights="somewhere.safetensors")
    assert given.pretrained
    assert network_inputs(given)[1].mean == (0.5,) * 3
    with pytest.raises(BackboneError, match=r"^backbone: timm has no network"):
        network_inputs(replace(config, model="timm:vit"))


@pytest.mark.parametrize("name", BACKBONES)
def test_candidates_run_side_by_side(name: str) -> None:
    assert backbone(name).stackable
