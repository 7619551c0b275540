"""What is said of an export."""

from pathlib import Path
from typing import Any

from search.study.training import say_exported
from trainers.export import ExportCheck, Exported


def check(accuracy: float) -> ExportCheck:
    values: dict[str, Any] = dict.fromkeys(ExportCheck.__dataclass_fields__, 0.0)
    return ExportCheck(**values | {"images": 347, "accuracy": accuracy})


def said(about: dict[str, Any], checks: dict[str, ExportCheck]) -> str:
    lines: list[str] = []
    exported = Exported(networks={"digits": about}, checks={"digits": checks})
    say_exported(Path("out"), exported, lines.append)
    (line,) = lines
    return line


def test_the_split_and_what_others_reach_on_it() -> None:
    about = {"split": "test", "beside": {"teacher": 0.9684, "share_all": 0.9312}}
    checks = {"network.onnx": check(0.9251), "network.int8.onnx": check(0.9)}
    assert said(about, checks) == (
        "exported out/digits: 0.925 on 347 test images (network.int8.onnx 0.900); "
        "teacher 0.968, share_all 0.931"
    )


def test_what_is_not_known_is_left_out() -> None:
    one = {"network.pt2": check(0.5)}
    assert said({"split": "validation", "beside": {}}, one) == (
        "exported out/digits: 0.500 on 347 validation images"
    )
    assert said({}, one) == "exported out/digits: 0.500 on 347 images"
