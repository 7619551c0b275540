"""What `apportion groups` says of a network, and of a study's."""

import json

import pytest

from search.cli import main

RESIDUAL = "tests.helpers.foreign:Residual"


def test_what_can_be_divided(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", RESIDUAL, "--size", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks"] == ["blocks.0", "blocks.1"]
    assert found["partition"] == ["blocks.1"]
    assert found["cut"] == "add"
    assert {each["name"]: each["divided"] for each in found["groups"]} == {
        "stem": False, "blocks.0.0": False, "blocks.1.0": True,
    }  # fmt: skip
    inner = next(each for each in found["groups"] if each["name"] == "blocks.1.0")
    assert (inner["kind"], inner["units"], inner["channels"]) == ("hidden", 3, 8)
    # Its convolutions by 256 pixels: 12 to 24, 9 for each of 24, 8 to 6 by 9 in 3 groups, 18 to 12.
    assert inner["macs"] == 256 * (12 * 24 + 9 * 24 + 9 * 8 * 18 + 18 * 12)
    assert found["least"]["divided"] == pytest.approx(1 - inner["macs"] * 2 / 3 / found["macs"])
    assert "head" in found["refused"]


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", RESIDUAL, "--size", "16", "--divide", "blocks.*"]) == 0
    printed = capsys.readouterr().out
    assert "blocks.*" in printed
    assert "divided: 2 blocks (2 are repeated), from blocks.0 on" in printed
    assert "up to stem" in printed
    assert main(["groups", RESIDUAL, "--size", "16", "--divide", "blocks.*", "--stream"]) == 0
    assert "stream" not in capsys.readouterr().out.split("divided:")[0]  # it begins in the trunk


def test_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["groups", "configs/quickstart.yaml"]
    assert main(config) == 0
    printed = capsys.readouterr().out
    assert "stage3.*" in printed
    assert "the study's space has costs (macs) from 0.70 to 1.00" in printed
    more = ["--set", "backbone.partition=[stage*]", "--set", "objective.cost=use", "--json"]
    assert main([*config, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cheapest"]["cost"] == "use"
    assert found["least"]["divided"] < 0.1
    assert len(found["partition"]) == 6
    whole = ["--set", "backbone.trunk=train", "--set", "backbone.stream=true", "--json"]
    assert main([*config, *whole]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cut"] == "images"
    assert {each["kind"] for each in found["groups"] if each["divided"]} == {"hidden", "stream"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["timm"], "a network is named resnet14"),
        (
            [RESIDUAL, "--divide", "block.*"],
            "no module that runs matches 'block.*'; near it: block",
        ),
        ([RESIDUAL, "--args", "3"], "--args must be a mapping"),
        ([RESIDUAL, "--set", "seeds=[1]"], "--set changes a config"),
        (["configs/quickstart.yaml"], "--args, --divide, --stream and --size are for a network"),
        (["torch.nn:Linear", "--args", "{in_features: 3, out_features: 2}"], "apportion: "),
    ],
)
def test_what_cannot(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", *words, "--size", "16"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
