"""Networks that cannot be searched are refused with all else that is wrong, before any compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from search.cli import main
from tests.helpers.studies import SMALL
from trainers.networks import build_model

NETWORK: dict[str, Any] = SMALL["backbone"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the data of a task, and nothing that can be trained."""

    def computed(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it was computed")

    for name in ("pretrain_trunk", "train_teacher"):
        monkeypatch.setattr(f"search.study.foundation.{name}", computed)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "validation", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 255, (30, 8, 8, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(30) % 3
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path


def write(folder: Path, changed: dict[str, Any]) -> str:
    path = folder / "small.yaml"
    places = {"output": str(folder / "studies"), "data_root": str(folder)}
    path.write_text(yaml.safe_dump(SMALL | places | changed))
    return str(path)


def with_network(**changed: Any) -> dict[str, Any]:
    return {"backbone": NETWORK | changed}


def with_weights(name: str) -> dict[str, Any]:
    return {"backbone": NETWORK | {"weights": name}, "trunk": None}


def save_weights(folder: Path) -> None:
    """Of the network; of a wider one; with a number that is none; and what is no such file."""
    own = build_model("resnet14", {"width": 4}).state_dict()
    save_file(own, folder / "own.safetensors")
    save_file(build_model("resnet14", {"width": 8}).state_dict(), folder / "wide.safetensors")
    save_file(own | {"bn.bias": torch.full((4,), torch.nan)}, folder / "nan.safetensors")
    save_file({n: t for n, t in own.items() if n != "conv.weight"}, folder / "part.safetensors")
    (folder / "text.safetensors").write_text("weights")


#: What is wrong with a network alone, by what is said of it.
WRONG: list[tuple[dict[str, Any], str]] = [
    (with_network(model="resnet15"), "did you mean resnet14 or resnet"),
    (with_network(model="nowhere.nets:build"), "needs nowhere.nets, which cannot be imported"),
    (with_network(model="math:sqrt", args={}), "math:sqrt cannot be built"),
    (with_network(args={"width": 0}), "width must be at least 1, got 0"),
    (with_network(args={"widht": 4}), "unexpected keyword argument 'widht'"),
    (
        with_network(family="resnet14"),
        "backbone.family: unknown key 'family'; known: args, head, mo",
    ),
    (with_network(modle="resnet14"), "backbone.modle: unknown key 'modle'; did you mean 'model'?"),
    (with_network(partition=["stage4.*"]), "stage4.*"),
    (with_network(head="stage3"), "head"),
    (with_weights("none.safetensors"), "none.safetensors do not exist"),
    (with_weights("text.safetensors"), "text.safetensors are no safetensors file"),
    (with_weights("wide.safetensors"), "wide.safetensors do not fit: bn.bias is (8,) for (4,)"),
    (with_weights("part.safetensors"), "do not fit: 1 tensors are missing, such as conv.weight"),
    (with_weights("nan.safetensors"), "have values that are not finite: bn.bias"),
    (
        with_network(args={"width": 4, "stem_stride": 2}) | {"proxy": {"sgd": {"batch_size": 1}}},
        "proxy.sgd.batch_size must be at least 2 with maps of a single pixel",
    ),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=lambda each: str(each)[:50])
def test_check_tells_all_at_once(
    folder: Path, changed: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(folder)
    before = sorted(folder.rglob("*"))
    others = {"candidate": 3, "tasks": [*SMALL["tasks"], {"name": "gone", "source": "npz"}]}
    config = write(folder, changed | others)
    assert main(["check", config, "--set", "seeds=[1, 1]"]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0] == "apportion: 4 things are wrong:"
    assert len(lines) == 5
    assert message in err
    assert "candidate: unknown key" in err
    assert "seeds must be" in err
    assert "gone.npz" in err
    assert out.startswith("task a: 3 classes")
    assert sorted({*folder.rglob("*")} - {folder / "small.yaml"}) == before


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=lambda each: str(each)[:50])
def test_a_search_does_not_begin(
    folder: Path, changed: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(folder)
    config = write(folder, changed)
    assert main(["search", config]) != 0
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not (folder / "studies").exists()


def test_what_is_sound_is_not_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same networks, with what was wrong put right."""
    save_weights(folder)
    sound: list[dict[str, Any]] = [
        with_network(partition=["stage2.*", "stage3.*"]),
        with_network(model="trainers.networks.built_in:ResNet", args={"blocks": 1, "width": 4}),
        with_weights("own.safetensors"),
        with_network(args={"width": 4, "stem_stride": 2}) | {"proxy": {"sgd": {"batch_size": 2}}},
    ]
    for changed in sound:
        assert main(["check", write(folder, changed)]) == 0, capsys.readouterr().err
        assert "can be searched" in capsys.readouterr().out


def test_weights_of_another_head_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks have heads of their own: none, or one of other classes, is needed."""
    state = build_model("resnet14", {"width": 4, "classes": 1000}).state_dict()
    save_file(state, folder / "own.safetensors")
    for name in ("head.weight", "head.bias"):
        del state[name]
    save_file(state, folder / "none.safetensors")
    for name in ("own", "none"):
        assert main(["check", write(folder, with_weights(f"{name}.safetensors"))]) == 0
        assert "can be searched" in capsys.readouterr().out
