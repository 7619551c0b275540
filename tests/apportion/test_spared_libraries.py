"""What needs no network loads no library of networks: configs, fronts, the version."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from apportion.precedence import ROOT
from search.candidates import Candidate
from search.record import Record
from search.study import Study
from tests.helpers.studies import SMALL, simulated

LIBRARIES = {"torch_pruning", "timm", "torchvision", "transformers"}
#: Networks of every library, which is or is not installed; nothing of them is there to be loaded.
NETWORKS: dict[str, dict[str, Any]] = {
    "built_in": SMALL["backbone"],
    "timm": {"model": "timm:resnet18", "args": {"pretrained": True}},
    "torchvision": {"model": "torchvision:resnet18"},
    "transformers": {"model": "transformers:nobody/nothing"},
    "function": {"model": "nowhere.nets:build"},
    "weights": {"model": "resnet14", "weights": "nowhere.safetensors"},
}


def loaded(code: str) -> set[str]:
    """The libraries of networks that a process has loaded once it ran this."""
    code = f"import sys\n{code}\nprint('loaded:', *{LIBRARIES} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("loaded:"))
    return set(line.split()[1:])


def command(*words: object) -> str:
    """Code that runs `apportion` and fails unless it ends well."""
    return (
        "from apportion.__main__ import main\n"
        "try:\n"
        f"    code = main({[str(word) for word in words]})\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "assert not code, code"
    )


def write(folder: Path, backbone: dict[str, Any]) -> Path:
    path = folder / "small.yaml"
    own = {"backbone": backbone, "output": str(folder / "studies"), "input_size": None}
    path.write_text(yaml.safe_dump(SMALL | own))
    return path


@pytest.mark.parametrize("network", NETWORKS)
def test_reading_a_config(network: str, tmp_path: Path) -> None:
    path = write(tmp_path, NETWORKS[network])
    read = f"import apportion; config = apportion.load_config({str(path)!r}); config.of_seed(1)"
    assert loaded(read) == set()


def test_the_version() -> None:
    assert loaded(command("--version")) == set()


def test_a_front(tmp_path: Path) -> None:
    study = Study.create(simulated(output=str(tmp_path)))
    with Record(study.record_path, study.name) as record:
        for index, (quality, cost) in enumerate([(0.5, 0.5), (0.9, 0.8)]):
            record.add(
                Candidate(
                    strategy="random", seed=0, index=index, vector=(0.5,), names=("use[a]",),
                    quality=quality, cost=cost,
                )
            )  # fmt: skip
    assert loaded(command("front", study.folder)) == set()


def test_a_search_would_be_seen() -> None:
    """Building a network loads what divides it."""
    build = (
        "from trainers.networks import BackboneConfig, build_backbone\n"
        "build_backbone(BackboneConfig(model='resnet14', args={'width': 4}), 8)"
    )
    assert "torch_pruning" in loaded(build)
