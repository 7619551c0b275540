"""What `apportion groups` says of a network."""

import json

import pytest

from search.cli import main

RESIDUAL = "tests.helpers.foreign:Residual"


def test_what_can_be_divided(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", RESIDUAL, "--size", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks"] == ["blocks.0", "blocks.1"]
    assert found["partition"] == ["blocks.1"]
    assert {each["name"]: each["divided"] for each in found["groups"]} == {
        "stem": False, "blocks.0.0": False, "blocks.1.0": True,
    }  # fmt: skip
    inner = next(each for each in found["groups"] if each["name"] == "blocks.1.0")
    assert (inner["kind"], inner["units"], inner["channels"]) == ("hidden", 3, 8)
    # Its convolutions by 256 pixels: 12 to 24, 9 for each of 24, 8 to 6 by 9 in 3 groups, 18 to 12.
    assert inner["macs"] == 256 * (12 * 24 + 9 * 24 + 9 * 8 * 18 + 18 * 12)
    assert found["least"]["hidden"] == pytest.approx(1 - inner["macs"] * 2 / 3 / found["macs"])
    assert "head" in found["refused"]
    assert main(["groups", RESIDUAL, "--size", "16", "--divide", "blocks.*"]) == 0
    printed = capsys.readouterr().out
    assert "blocks.0.0" in printed
    assert "divided: 2 of 2 blocks, from blocks.0 on" in printed
    assert "up to stem" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["timm"], "a network is named as"),
        (
            [RESIDUAL, "--divide", "block.*"],
            "no module that runs matches 'block.*'; near it: block",
        ),
        ([RESIDUAL, "--args", "3"], "--args must be a mapping"),
        (["torch.nn:Linear", "--args", "{in_features: 3, out_features: 2}"], "apportion: "),
    ],
)
def test_what_cannot(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", *words, "--size", "16"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
