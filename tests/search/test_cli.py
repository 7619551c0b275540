"""The command line as a user meets it, in processes of its own where that matters."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from search.candidates import Candidate
from search.cli import actions, main
from search.cli.parser import build_parser
from search.config import dump_config, load_config, parse_config
from search.record import Record
from search.run import rejoined
from search.strategies import TaskKnowledge
from search.study import Study, StudyError
from tests.helpers import ROOT
from tests.helpers.candidates import measurement
from tests.helpers.commands import refused
from tests.helpers.studies import SMALL

# Whatever test starts Ray first, the others share it.
pytestmark = pytest.mark.usefixtures("cluster")


def arrays(classes: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for split in ("train", "validation", "test"):
        found[f"{split}_images"] = rng.integers(0, 255, (30, 8, 8, 3), dtype=np.uint8)
        found[f"{split}_labels"] = np.arange(30) % classes
    return found


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A valid config in a folder of its own; what a test breaks in it is what is refused."""
    np.savez(tmp_path / "a.npz", **arrays())
    write(tmp_path, {})
    return tmp_path / "small.yaml"


def write(folder: Path, changed: dict[str, Any]) -> Path:
    path = folder / "small.yaml"
    places = {"output": str(folder / "studies"), "data_root": str(folder)}
    path.write_text(yaml.safe_dump(SMALL | places | changed))
    return path


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"candidats": 3}, "did you mean 'candidates'"),
        ({"candidates": 0}, "candidates must be at least 1"),
        ({"space": {"use": [0.9, 0.1]}}, "space"),
        ({"tasks": [{"name": "b", "source": "npz"}]}, "b.npz"),
        ({"tasks": [{"name": "b"}]}, "b"),
        ({"tasks": SMALL["tasks"] * 2}, "a"),
        ({"backbone": {"weights": "none.safetensors"}}, "none.safetensors do not exist"),
        ({"strategies": {"baselines": {"names": ["share_al"]}}}, "share_all"),
        ({"strategies": ["es"]}, "mapping of names"),
        ({"strategies": {"es": 5}}, "mapping of settings"),
        ({"seeds": [-1]}, "each at least 0"),
        ({"name": "cache"}, "not cache"),
        ({"objective": {"reference": [float("nan"), 1.1]}}, "a quality below 1 and a cost above 0"),
        ({"finish": {"pick": "nonsense"}}, "knee, best, best@0.5 or a name"),
    ],
)
def test_bad_configs(
    small: Path, changed: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(small.parent, changed)
    assert message in refused(capsys, "search", small)
    assert not (small.parent / "studies").exists()


@pytest.mark.parametrize(
    ("classes", "label", "message"), [(1, None, "class"), (3, -1, "-1"), (3, 2.5, "label")]
)
def test_bad_labels(
    small: Path,
    classes: int,
    label: float | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = arrays(classes)
    if label is not None:
        broken["train_labels"] = np.where(np.arange(30) == 7, label, broken["train_labels"])
    np.savez(small.parent / "a.npz", **broken)
    assert message in refused(capsys, "search", small)


def test_a_gpu_that_is_not_there(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    said = refused(capsys, "search", small, "--set", "compute.device=cuda")
    assert "GPU" in said
    assert "compute.device=cpu" in said


def test_another_studys_folder(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study.create(load_config(small))
    with Record(study.record_path, study.name) as record:
        record.add(
            Candidate(
                strategy="random", seed=0, index=0, vector=(0.5,), names=("use[a]",),
                quality=0.5, cost=0.5,
            )
        )  # fmt: skip
    said = refused(capsys, "search", small, "--set", "backbone.args.width=8")
    assert "holds another study" in said
    assert "backbone.args.width: 4 in the study, 8 now" in said
    foreign = small.parent / "studies" / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    assert "holds no study" in refused(capsys, "search", small, "--set", "name=foreign")
    assert (foreign / "thesis.txt").read_text() == "precious"


def test_resuming_nothing(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no study to resume" in refused(capsys, "search", small, "--resume")


def test_a_folder_that_cannot_be_written(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small.parent / "studies").write_text("a file where the folder should be")
    assert "cannot be written" in refused(capsys, "search", small)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small.parent / "studies").mkdir(mode=0o555)
    assert "cannot be written" in refused(capsys, "search", small)


def test_two_configs_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give one config" in refused(capsys, "search")
    assert "give one config" in refused(capsys, "search", "a", "--config", "b")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study with a record but without compute."""
    config = parse_config(SMALL | {"output": str(tmp_path), "data_root": str(tmp_path)})
    study = Study.create(config)
    study.keep_facts(TaskKnowledge())
    points = [(0.5, 0.2), (0.8, 0.5), (0.85, 1.0), (0.4, 0.6), (None, None)]
    with Record(study.record_path, study.name) as record:
        for index, (quality, cost) in enumerate(points):
            record.add(
                Candidate(
                    strategy="random", seed=0, index=index, vector=(0.5,), names=("use[a]",),
                    quality=quality, cost=cost, error=None if quality else "made to fail",
                    rungs=(measurement(quality, {"a": quality}),) if quality else (),
                )
            )  # fmt: skip
    return study


def test_front_as_json(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(study.folder), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary) == {
        "objectives", "reference", "hypervolume", "candidates", "failed", "stopped",
        "repeated", "evaluators", "strategies", "front",
    }  # fmt: skip
    assert (summary["candidates"], summary["failed"]) == (5, 1)
    assert [m["candidate"] for m in summary["front"]] == ["random-0-0", "random-0-1", "random-0-2"]
    assert set(summary["front"][0]) == {
        "candidate", "label", "strategy", "seed", "quality", "cost", "costs", "accuracy",
    }  # fmt: skip
    # Two steps down from the reference point (0, 1), and one that costs as much.
    assert summary["hypervolume"] == pytest.approx(0.5 * 0.8 + 0.3 * 0.5)
    assert summary["strategies"]["random"]["hypervolume"] == pytest.approx(summary["hypervolume"])
    assert main(["front", str(study.folder)]) == 0
    assert "3 of 5 candidates on the front" in capsys.readouterr().out


def test_picks(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.pick("best").id == "random-0-2"
    assert study.pick("knee").id == "random-0-1"
    assert study.pick("random-0-3").quality == 0.4
    folder = study.folder
    assert "made to fail" in refused(capsys, "train", folder, "--pick", "random-0-4")
    assert "no candidate 'nonsense'; pick knee, best, best@0.5 or a name such as random" in refused(
        capsys, "export", folder, "--pick", "nonsense", "--out", folder / "out"
    )
    assert "seeds must be at least 1" in refused(
        capsys, "train", folder, "--pick", "knee", "--seeds", "0"
    )
    assert "is not a study" in refused(capsys, "front", folder / "none")


def test_picks_within_a_limit(study: Study) -> None:
    scored = [c for c in study.candidates() if not c.failed and c.cost is not None]
    for most in sorted(c.cost for c in scored if c.cost is not None):
        affordable = [c for c in scored if c.cost is not None and c.cost <= most]
        best = study.pick(f"best@{most}")
        assert best.quality == max(c.quality or 0 for c in affordable)
        assert study.pick(f"knee@{most}").id in {c.id for c in affordable}
    for limit, message in (
        ("0.0001", "no candidate of cost 0.0001 or less; the least is"),
        ("nan", "a limit is a number above 0"),
        ("speed<=1", "one of use, parameters, macs, union, latency with <= and a number"),
        ("macs<=", "got 'macs<='"),
        ("macs<=0.5", "has no cost but the study's own"),
    ):
        with pytest.raises(StudyError, match=re.escape(message)):
            study.pick(f"best@{limit}")


def test_a_moved_study_is_still_that_study(study: Study) -> None:
    moved = study.folder.parent / "renamed"
    study.folder.rename(moved)
    assert len(Study(moved).candidates()) == 5
    again = Study.create(replace(study.config, name="renamed"), resume=True)
    assert len(again.candidates()) == 5
    assert len(Study(moved).candidates()) == 5
    assert again.name == "small"


def test_a_study_without_candidates_may_become_another(small: Path) -> None:
    Study.create(load_config(small))
    again = Study.create(load_config(small, ["backbone.args.width=8"]))
    assert again.config.backbone.args == {"width": 8}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder nobody may write to")
def test_folders_are_tried_before_compute(
    small: Path, capsys: pytest.CaptureFixture[str], study: Study
) -> None:
    assert "/proc/none cannot be written" in refused(
        capsys, "search", small, "--set", "cache=/proc/none"
    )
    assert "cannot be written" in refused(
        capsys, "export", study.folder, "--pick", "knee", "--out", "/proc/none"
    )


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("schedule.evaluators=99", "needs 99 CPUs"),
        ("schedule.cpus=.nan", "cpus must be positive"),
        ("schedule.gpus=1", "needs 1 GPUs"),
    ],
)
def test_more_than_the_cluster_has(
    small: Path, schedule: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "search", small, "--set", schedule)


def test_run_py_works_from_anywhere(tmp_path: Path) -> None:
    """As `ray submit` leaves it: the file alone, another folder, no project on the path."""
    copied = tmp_path / "run.py"
    shutil.copy(ROOT / "search/run.py", copied)
    (tmp_path / "elsewhere").mkdir()
    for script in (copied, ROOT / "search/run.py"):
        for arguments in (["--config", "none.yaml"], ["--", "--config", "none.yaml"]):
            done = subprocess.run(
                [sys.executable, str(script), *arguments],
                cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 2
            assert "config none.yaml does not exist" in done.stderr
            assert "quickstart.yaml" in done.stderr


def test_cluster_yaml_passes_rays_own_validation() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["search", "--help"], ["train", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
    said = capsys.readouterr().out
    for word in ("policy_gradient", "--resume", "knee", "configs/quickstart.yaml", "doctor"):
        assert word in said


@pytest.mark.parametrize("asked", ["--version", "--help"])
def test_what_is_asked_in_passing_loads_nothing_that_takes_seconds(asked: str) -> None:
    code = (
        "import sys\nfrom search.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(*{'numpy', 'torch', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == ""


def test_every_command_does_something() -> None:
    (commands,) = (action for action in build_parser()._actions if action.choices)
    done = {name for name in vars(actions) if name.startswith("run_")}
    assert {f"run_{name}" for name in commands.choices or ()} == done


def test_the_resolved_config_is_kept(study: Study) -> None:
    kept = yaml.safe_load((study.folder / "config.yaml").read_text())
    assert (kept.pop("format"), kept.pop("version")) == ("apportion-study", 3)
    assert len(kept.pop("id")) == 32
    content = json.loads(json.dumps(dump_config(study.config)))
    for place in ("output", "cache"):  # which are where the study lies
        del content[place]
    assert kept == content
    assert kept["proxy"]["sgd"]["steps"] == 3000


@pytest.mark.parametrize(
    "typed",
    [
        ["--config", "a.yaml", "--set", "strategies={random: {}, es: {turn: 2}}", "--resume"],
        ["--set", "seeds=[0, 1, 2]", "--set", "candidates=3"],
        ["--set", "candidates=3", "--set", "a={b: [1, {c: 2}]}"],
    ],
)
def test_run_py_puts_together_what_ray_submit_splits(typed: list[str]) -> None:
    assert rejoined(" ".join(typed).split(" ")) == typed


def test_names_are_taken_from_every_option() -> None:
    read = build_parser().parse_args(["train", "x", "--method", "a", "b", "--method", "c"])
    assert read.methods == ["a", "b", "c"]
