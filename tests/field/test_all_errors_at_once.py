"""A config's errors were told one a run; `apportion check` tells all, and what tasks hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from search.cli import main
from search.commands.check import check
from search.config import ConfigError, load_config, parse_config
from tests.helpers.studies import SMALL


def problems(**changed: Any) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse_config(SMALL | changed)
    return sorted(refused.value.problems)


def test_every_error_of_every_section_is_told() -> None:
    found = problems(
        candidate=3,
        seeds=[0, 0],
        initial=0,
        proxy={"sgd": {"steps": 0, "batch_size": "many"}, "imagez": 3, "repeats": 0},
        space={"use": [0.8, 0.2], "units": 0},
        tasks=[{"name": "a", "source": "npz", "limit": 1}, {"name": "b c"}, {"nam": "d"}],
        trunk={"dataset": {"name": "glyphs", "source": "tou"}, "checkpoint": "x"},
        backbone={"family": "resnet14", "args": 3, "trunk": "thawed"},
        strategies={"es": {"directions": 0, "turn": 0}, "rnadom": {}, "a/b": {"kind": "random"}},
        schedule=3,
        objective={"cost": "price", "reference": [2, 1]},
    )
    begins = [
        "a strategy's name must be free of",
        "backbone.args must be a mapping, got 3",
        "backbone.family: unknown key",
        "backbone: backbone.trunk must be one of frozen, train",
        "candidate: unknown key",
        "initial must be at least 1",
        "objective: cost must be one of",
        "objective: reference must be",
        "proxy.imagez: unknown key",
        "proxy.sgd.batch_size must be a whole number",
        "proxy.sgd: steps must be at least 1",
        "proxy: ",
        "schedule must be a mapping",
        "seeds must be",
        "space: space.units must be",
        "space: space.use must be",
        "strategies.es: directions must be",
        "strategies.es: turn must be",
        "strategies.rnadom: unknown strategy",
        "tasks[0]: task 'a': limit must be",
        "tasks[1]: task 'b c': name must be",
        "tasks[2].nam: unknown key",
        "trunk.checkpoint: unknown key",
        "trunk.dataset: task 'glyphs': source must be",
    ]
    for line, begin in zip(found, begins, strict=True):
        assert line.startswith(begin), (line, begin)


def test_errors_between_sections_are_told_together() -> None:
    found = problems(
        trunk=None,
        tasks=SMALL["tasks"] * 2,
        rungs=[{"steps": 20}, {"steps": 10}],
        strategies={"a-b": {"kind": "random"}, "c d": {"kind": "random"}},
    )
    assert [line.split(":")[0] for line in found] == [
        "a strategy's name must be free of '/', '-' and spaces, got 'a-b', 'c d'",
        "each task must be listed once, got a more than once; give the second one another name, "
        "or remove it",
        "rungs",
        "trunk is missing",
    ]


def test_an_error_brings_no_others_along() -> None:
    """What depends on a value that is not known is not judged."""
    assert len(problems(proxy={"sgd": {"steps": "many"}}, rungs=[{"steps": 9}])) == 1
    assert len(problems(trunkk=SMALL["trunk"], trunk=None)) == 2
    without = {key: value for key, value in SMALL.items() if key != "trunk"}
    with pytest.raises(ConfigError, match=r"^trunkk: unknown key 'trunkk'; did you mean 'trunk'"):
        parse_config(without | {"trunkk": SMALL["trunk"]})
    with pytest.raises(ConfigError, match=r"^nmae: unknown key 'nmae'; did you mean 'name'"):
        parse_config({**{k: v for k, v in SMALL.items() if k != "name"}, "nmae": "x"})


def config(folder: Path, **changed: Any) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "validation", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 255, (30, 8, 8, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(30) % 3
    np.savez(folder / "a.npz", **arrays)
    path = folder / "small.yaml"
    places = {"output": str(folder / "studies"), "data_root": str(folder)}
    path.write_text(yaml.safe_dump(SMALL | places | changed))
    return path


def test_check_says_what_tasks_hold_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, tasks=[*SMALL["tasks"], {"name": "digits", "source": "toy"}])
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("task a: 3 classes (0, 1, 2), 30 / 30 / 30 images")
    assert out[1].startswith("task digits: 10 classes (0, 1, 2, ...), ")
    assert out[2].startswith("trunk, task glyphs: ")
    assert "can be searched: 1 arms of 40 candidates" in out[3]
    assert sorted(tmp_path.rglob("*")) == before


def test_check_tells_errors_of_config_data_and_trunk_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [*SMALL["tasks"], *({"name": name, "source": "npz"} for name in ("gone", "lost"))]
    backbone = {**SMALL["backbone"], "weights": "no.safetensors"}
    path = config(tmp_path, tasks=tasks, candidate=3, backbone=backbone, trunk=None)
    assert main(["check", str(path), "--set", "seeds=[1, 1]"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("task a: 3 classes")
    lines = err.splitlines()
    assert lines[0] == "apportion: 5 things are wrong:"
    assert f"{path}: candidate: unknown key" in err
    assert f"{path}: seeds must be" in err
    assert str(tmp_path / "gone.npz") in err
    assert str(tmp_path / "lost.npz") in err
    assert "no.safetensors do not exist" in err
    assert len(lines) == 6


def test_check_tells_of_a_password_that_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PW", raising=False)
    path = config(tmp_path, tracking={"uri": "http://me:$PW@host"})
    assert main(["check", str(path)]) == 2
    assert "names $PW, which is not set" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["compare_synthetic", "compare_surrogate"])
def test_no_tasks_are_one_error(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(f"configs/{name}.yaml", ["tasks=[]"])
    assert len(refused.value.problems) == 1
    assert "there must be at least one task, got none" in refused.value.problems[0]


def test_check_tells_errors_of_all_strategies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"kind": "baselines", "names": ["share_al"]}
    path = config(tmp_path, strategies={"one": wrong, "two": wrong})
    assert main(["check", str(path)]) == 2
    err = capsys.readouterr().err
    assert "strategies.one: " in err
    assert "strategies.two: " in err


def test_values_that_can_be_misread_are_told_beside_other_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baselines = {"kind": "baselines", "names": ["share_al"]}
    path = config(tmp_path, strategies={"one": baselines, "two": "TWO"}, seeds="SEEDS", candidat=3)
    text = path.read_text().replace("TWO", "{directions: 1:30}").replace("SEEDS", "[010, 1]")
    path.write_text(text)
    assert main(["check", str(path), "--set", "initial=yes", "--set", "proxy.sgd.steps=0"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("task a: 3 classes"), "what is sound is looked at"
    lines = err.splitlines()
    assert lines[0] == "apportion: 5 things are wrong:"
    assert sorted(line.partition("can be misread")[0] for line in lines if "misread" in line) == [
        "  --set initial: yes ",
        f"  {path}, line {text[: text.index('010')].count(chr(10)) + 1}: 010 ",
        f"  {path}, line {text[: text.index('1:30')].count(chr(10)) + 1}: 1:30 ",
    ]
    assert f"{path}: candidat: unknown key" in err
    assert f"{path}: proxy.sgd: steps must be" in err


def test_check_tells_errors_of_strategies_beside_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"kind": "baselines", "names": ["share_al"]}
    path = config(tmp_path, strategies={"one": wrong, "two": {"kind": "three"}}, candidate=3)
    assert main(["check", str(path), "--set", "proxy.images=yes"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("apportion: 4 things are wrong:")
    assert "strategies.one: unknown baseline" in err


@pytest.mark.parametrize("text", ["name: a\nname: b\nseeds: [010]\n", "name:a\nseeds: [010]\n"])
def test_keys_that_are_not_plain_bring_no_others_along(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert len(refused.value.problems) <= 2
    assert "missing" not in str(refused.value).replace("is missing behind", "")
