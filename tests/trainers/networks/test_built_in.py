"""The built-in networks are those of the papers: their sizes, and what of them can be divided."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.foreign import network
from trainers.networks import find_division
from trainers.networks.built_in import BUILT_IN


def millions(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        # Kim et al. 2019, tables 1 and 3, and Ahn et al. 2019, table 2.
        ("wrn32", {"widen": 2}, 1.86),  # 1.8 and 1.9 in two tables
        ("wrn32", {"widen": 4}, 7.4),
        ("resnet42", {}, 29.8),
        # Ahn et al. 2019, table 3: of 84 and of 224 pixels, with ten heads of five classes.
        ("simple_convnet", {"size": 84, "classes": 50}, 0.15),
        ("simple_convnet", {"size": 224, "classes": 50}, 0.85),
        # Xie et al. 2017, table 7.
        ("resnext29", {}, 34.4),
        # As published by others: four times WRN-32-4.
        ("wrn32", {"widen": 8}, 29.6),
    ],
)
def test_sizes(name: str, args: dict[str, Any], said: float) -> None:
    assert millions(BUILT_IN[name](**args)) == pytest.approx(said, rel=0.01, abs=0.005)


@pytest.mark.parametrize("pixels", [32, 64, 96])
@pytest.mark.parametrize("name", ["wrn32", "resnet42", "resnext29"])
def test_stems_give_maps_of_one_size(name: str, pixels: int) -> None:
    """Kim et al. 2019, scenario J3."""
    small = {
        "wrn32": {"widen": 1},
        "resnet42": {"width": 4},
        "resnext29": {"groups": 1, "width": 4},
    }
    model = BUILT_IN[name](**small[name], stem_stride=pixels // 32)
    stem: Any = model.conv
    assert stem(torch.zeros(1, 3, pixels, pixels)).shape[2:] == (32, 32)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        # A stream in each stage, of which the stem is a part where it is as wide.
        ("wrn32", {"stream": 3, "hidden": 6}),
        ("resnet42", {"stream": 4, "hidden": 20}),
        ("resnext29", {"stream": 3, "hidden": 9 + 1}),  # and the stem
        ("vgg16", {"hidden": 15}),
        ("simple_convnet", {"hidden": 6}),
    ],
)
def test_all_feature_maps_can_be_divided(name: str, kinds: dict[str, int]) -> None:
    division = find_division(*network(name))
    found = [each.group.kind for each in division.groups]
    assert {kind: found.count(kind) for kind in sorted(set(found), reverse=True)} == kinds
    assert set(division.refused) == {"head"}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("wrn32", {"widen": 0}),
        ("resnet42", {"width": 1.5}),
        ("resnext29", {"groups": -1}),
        ("vgg16", {"hidden": 0}),
        ("simple_convnet", {"size": 8}),
    ],
)
def test_wrong_arguments(name: str, args: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(args))} must be"):
        BUILT_IN[name](**args)
