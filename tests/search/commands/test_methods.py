"""Methods of a study: trained, recorded, mirrored, exported, killed and gone on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from search.commands.calibrate import calibrate
from search.commands.publish import export
from search.commands.scores import NoScoresError
from search.commands.search import search
from search.commands.train import train_methods
from search.config import ConfigError, StudyConfig, dump_config, load_config, parse_config
from search.record import RecordError, require_no_writer
from search.study import (
    Study,
    StudyError,
    method_points,
    read_exports,
    read_trainings,
    refresh_masks,
)
from search.study.method_plans import build_plan, keep_masks
from tests.helpers.studies import mirrored, wait_for
from trainers.export import ExportConfig
from trainers.methods import ChosenPerImage
from trainers.teachers import load

# Ray starts and ends processes of its own in this one.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

SETTINGS: dict[str, Any] = {
    "name": "methods",
    "input_size": 8,
    "tasks": [
        {"name": "digits", "source": "toy", "limit": 100},
        {"name": "colours", "source": "toy", "limit": 100},
    ],
    "backbone": {
        "model": "resnet14", "args": {"width": 4}, "partition": ["stage*"], "stream": True,
        "trunk": "train",
    },
    "train": {"sgd": {"steps": 6, "batch_size": 8}},
    "methods": {"shared": {}, "dvn": {}},
    "seeds": [0, 1],
    "compute": {"device": "cpu"},
    "schedule": {"cpus": 1, "gpus": 0},
}  # fmt: skip


def config_in(folder: Path, **changed: Any) -> StudyConfig:
    return parse_config(SETTINGS | {"output": str(folder)} | changed)


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, cluster: None, told: list[str]) -> Study:
    return train_methods(config_in(tmp_path_factory.mktemp("methods")), say=told.append)


def test_every_level_of_every_method_and_seed_is_a_candidate(study: Study) -> None:
    found = {candidate.id: candidate for candidate in study.candidates()}
    assert found.keys() == {
        f"{method}-{seed}-{level}"
        for method, levels in (("shared", 1), ("dvn", 2))
        for seed in (0, 1)
        for level in range(levels)
    }
    for candidate in found.values():
        assert set(candidate.accuracy) == {"digits", "colours"}
        assert candidate.quality == pytest.approx(np.mean(list(candidate.accuracy.values())))
        assert candidate.measured is not None
        assert candidate.measured.fidelity == "full"
    low, high = found["dvn-0-0"], found["dvn-0-1"]
    assert low.cost is not None
    assert low.cost < 0.4
    assert high.cost == pytest.approx(1.0)
    assert low.shares["union"] == pytest.approx(high.shares["union"]), "stored together"
    for name, mask in low.masks.forward.items():
        assert not (mask & ~high.masks.forward[name]).any()


def test_all_of_it_is_in_mlflow_with_curves(study: Study) -> None:
    from mlflow import MlflowClient

    assert mirrored(study) == sorted(c.id for c in study.candidates())
    client = MlflowClient(study.store_uri)
    experiment = client.get_experiment_by_name("apportion")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.candidate = 'dvn-1-1'")
    curve = client.get_metric_history(run.info.run_id, "loss/digits")
    assert [point.step for point in curve] == list(range(1, 7))
    assert {"accuracy/digits", "test/colours", "test_mean", "costs/macs/digits"} <= set(
        run.data.metrics
    )


def test_tables_and_pictures(study: Study) -> None:
    points = method_points(study)
    written = pd.read_csv(study.folder / "methods.csv")
    assert len(points) == len(written) == (1 + 2) * 2 * 2, "method x seed x level x task"
    assert (written["test"] >= 0).all()
    for name in ("methods.png", "front.png", "front.html", "front.csv"):
        assert (study.folder / name).stat().st_size > 1000 or name == "front.csv"
    assert {entry["strategy"] for entry in study.summary()["front"]} <= {"shared", "dvn"}


@pytest.mark.slow
def test_levels_are_exported_as_they_were_measured(study: Study, tmp_path: Path) -> None:
    points = method_points(study).set_index(["candidate", "task"])
    for pick in ("dvn-1-0", "dvn-1-1", "shared-0-0"):
        files = ExportConfig(formats=("onnx", "pt2", "safetensors"))
        exported = export(study, pick, tmp_path / pick, files=files, say=lambda line: None)
        for task, checks in exported.checks.items():
            assert set(checks) == {"network.onnx", "network.pt2"}
            for check in checks.values():
                assert check.max_difference < 1e-4
                assert check.accuracy == pytest.approx(points.loc[(pick, task), "test"])
        weights = sum(
            tensor.numel()
            for name, tensor in load_file(
                tmp_path / pick / "digits" / "weights.safetensors"
            ).items()
            if not name.endswith(("mean", "std", "running_var", "num_batches_tracked"))
        )
        assert weights == points.loc[(pick, "digits"), "parameters"]
    noted = read_exports(study.folder, say=lambda line: None)
    assert [one["candidate"] for one in noted] == ["dvn-1-0", "dvn-1-1", "shared-0-0"]


def test_networks_that_are_chosen_per_image(tmp_path: Path, cluster: None) -> None:
    """Recorded with their mean costs, with tables and a picture, and exported with a selector."""
    study = train_methods(
        config_in(tmp_path, methods={"den": {"groups": 2}}, seeds=[0]), say=lambda line: None
    )
    found = {candidate.id: candidate for candidate in study.candidates()}
    assert found.keys() == {f"den-0-{level}" for level in range(4)}  # three of them fixed
    chosen = pd.read_csv(study.folder / "selection.csv")
    assert len(chosen) == 2 * 2, "task x split"
    assert set(chosen["level"]) == {3}
    measured = chosen[chosen["split"] == "validation"].set_index("task")
    for task in ("digits", "colours"):
        assert found["den-0-3"].accuracy[task] == pytest.approx(measured.loc[task, "chosen"])
        assert found["den-0-3"].costs is not None
        both = measured.loc[task, "macs"] + measured.loc[task, "selector_macs"]
        assert found["den-0-3"].costs.macs[task] == round(both)
    for name in ("selection.png", "chosen_images.png"):
        assert (study.folder / name).stat().st_size > 1000
    for examples, structures in zip(chosen["examples"], chosen["structures"], strict=True):
        for positions, (_, count) in zip(json.loads(examples), json.loads(structures), strict=True):
            assert len(positions) == min(count, 8)
    exported = export(study, "den-0-3", tmp_path / "chosen", say=lambda line: None)
    tested = chosen[chosen["split"] == "test"].set_index("task")
    for task, checks in exported.checks.items():
        assert checks["network.pt2"].max_difference < 1e-4
        assert checks["network.pt2"].accuracy == pytest.approx(tested.loc[task, "chosen"])
    network = ChosenPerImage(tmp_path / "chosen" / "digits")
    assert network(torch.zeros(3, 3, 8, 8, dtype=torch.uint8)).shape == (3, 10)
    export(study, "den-0-0", tmp_path / "lowest", say=lambda line: None)


def test_what_is_done_is_not_repeated_and_others_can_be_added(
    study: Study, told: list[str]
) -> None:
    assert "training 4 of 4 (a method with a seed each)" in told
    lines: list[str] = []
    before = {c.id: c.finished for c in study.candidates()}
    config = config_in(study.folder.parent, methods={"nested_net": {}, "dvn": {}})
    train_methods(config, say=lines.append)
    assert "training 2 of 4 (a method with a seed each)" in lines
    after = {c.id: c.finished for c in study.candidates()}
    assert after.keys() - before.keys() == {"nested_net-0-0", "nested_net-1-0"}
    assert all(after[name] == time for name, time in before.items())
    assert Study(study.folder).config.methods.keys() == {"shared", "dvn", "nested_net"}


def test_other_settings_are_another_study(study: Study) -> None:
    raw = dump_config(study.config)
    raw["methods"]["dvn"]["order"] = "random"
    with pytest.raises(StudyError, match=r"methods\.dvn\.order: 'rule' in the study, 'random'"):
        train_methods(parse_config(raw), say=lambda line: None)
    raw = dump_config(study.config)
    raw["tasks"].reverse()
    with pytest.raises(StudyError, match=r"tasks\.order: \['digits', 'colours'\] in the study"):
        train_methods(parse_config(raw), say=lambda line: None)
    raw = dump_config(study.config)
    raw["tasks"].append({**raw["tasks"][0], "name": "glyphs"})
    with pytest.raises(StudyError, match="task glyphs: only now") as refused:
        train_methods(parse_config(raw), say=lambda line: None)
    assert len(str(refused.value).splitlines()) == 3
    raw = dump_config(study.config)
    raw["train"]["sgd"]["steps"] = 7
    with pytest.raises(StudyError, match=r"train\.sgd\.steps: 6 in the study, 7 now"):
        train_methods(parse_config(raw), say=lambda line: None)


def test_candidates_of_methods_are_not_trained_again(study: Study) -> None:
    with pytest.raises(StudyError, match="levels of methods, which are trained in full"):
        study.train("best")
    with pytest.raises(ConfigError, match="train them with `apportion train`"):
        search(study.config)
    with pytest.raises(ConfigError, match="there is no proxy to hold against that"):
        calibrate(study)


def test_a_recorded_training_is_not_replaced(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.methods.training.METHODS_VERSION", 99)
    weights = study.folder / "methods" / "dvn" / "seed0.safetensors"
    before = weights.read_bytes()
    with pytest.raises(StudyError, match=r"dvn, seed 0, of .* was trained otherwise"):
        train_methods(study.config, ["dvn"], say=lambda line: None)
    assert weights.read_bytes() == before


def test_masks_are_those_that_are_named_now_until_something_is_recorded(
    study: Study, tmp_path: Path
) -> None:
    file = tmp_path / "masks.json"
    setting = {"partitioned": {"kind": "feature_partitioning", "masks": str(file)}}
    config = config_in(tmp_path, methods=setting)
    (config.folder / "methods" / "partitioned").mkdir(parents=True)
    for name in ("dvn-0-0", "shared-0-0"):  # as after a training that was cut off at once
        wanted = study.masks(study.pick(name))
        wanted.save(file)
        keep_masks(config, "partitioned")
        refresh_masks(config, "partitioned")
        plan = build_plan(config, "partitioned", 0)
        assert plan.parts["all"].masks == wanted
    other = {"partitioned": {"kind": "feature_partitioning", "masks": f"{study.folder}@dvn-0-0"}}
    plan = build_plan(config_in(tmp_path, methods=other), "partitioned", 0)
    assert plan.parts["all"].masks == study.masks(study.pick("dvn-0-0"))
    file.unlink()
    refresh_masks(config, "partitioned")
    assert build_plan(config, "partitioned", 0).parts["all"].masks == wanted, "it was kept"


def test_no_such_method(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="methods: there is no packed; there are shared, dvn"):
        train_methods(config_in(tmp_path), ["packed"])
    config = dump_config(config_in(tmp_path))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert load_config(path, methods=["lwf", "dvn"]).methods.keys() == {"shared", "dvn", "lwf"}
    with pytest.raises(ConfigError, match="unknown method 'packed'"):
        load_config(path, methods=["packed"])


def test_one_method_may_fail(tmp_path: Path, cluster: None) -> None:
    """The others are trained; where all fail it is an error."""
    wild = {"sgd": {"steps": 30, "batch_size": 8, "learning_rate": 1e20}}
    lines: list[str] = []
    with pytest.raises(NoScoresError):
        train_methods(config_in(tmp_path, train=wild, seeds=[0]), say=lines.append)
    assert any("shared, seed 0, failed: the loss of digits is not finite" in x for x in lines)
    found = {c.id: c for c in Study(tmp_path / "methods").candidates()}
    assert found.keys() == {"shared-0-0", "dvn-0-0"}
    assert all(candidate.failed for candidate in found.values())
    lines.clear()
    with pytest.raises(NoScoresError):
        train_methods(config_in(tmp_path, train=wild, seeds=[0]), say=lines.append)
    assert any("shared, seed 0, has failed before" in x for x in lines)
    assert "training 0 of 2 (a method with a seed each)" in lines


@pytest.mark.parametrize("method", ["dvn", pytest.param("packnet", marks=pytest.mark.slow)])
def test_killed_and_gone_on_with_equals_uninterrupted(
    method: str, tmp_path: Path, cluster: None
) -> None:
    settings: dict[str, Any] = {
        "methods": {method: {}},
        "seeds": [0],
        "train": {"sgd": {"steps": 200, "batch_size": 8}},
    }
    whole = train_methods(config_in(tmp_path / "whole", **settings), say=lambda line: None)
    killed = config_in(tmp_path / "killed", **settings)
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(dump_config(killed)))
    process = subprocess.Popen(
        [sys.executable, "-m", "apportion", "train", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    progress = killed.folder / "methods" / method / "seed0.progress.json"
    wait_for(progress.exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: unwritten(killed))  # its writer ends once it finds that it is alone
    assert not (killed.folder / "methods" / method / "seed0.json").exists()
    again = train_methods(killed, say=lambda line: None)
    weights = [each.folder / "methods" / method / "seed0.safetensors" for each in (whole, again)]
    states = [load(path).state for path in weights]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    curves = [read_trainings(each)[0].curve for each in (whole, again)]
    assert curves[0] == curves[1]
    assert not progress.exists()


def unwritten(config: StudyConfig) -> bool:
    try:
        require_no_writer(config.folder / "record.journal")
    except RecordError:
        return False
    return True


def test_one_task_more_trains_the_last_phase_alone(tmp_path: Path, cluster: None) -> None:
    """Under another name: what earlier tasks have trained is in the cache."""
    settings: dict[str, Any] = {
        "methods": {"dvn_sequential": {"units": 3}},
        "seeds": [0],
        "cache": str(tmp_path / "cache"),
    }
    train_methods(config_in(tmp_path, **settings), say=lambda line: None)
    phases = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("method-*")}
    assert len(phases) == 2
    tasks = [*SETTINGS["tasks"], {"name": "gratings", "source": "toy", "limit": 100}]
    more = train_methods(
        config_in(tmp_path, **settings | {"name": "more", "tasks": tasks}), say=lambda line: None
    )
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("method-*")}
    assert len(after) == 3
    assert after.items() >= phases.items()
    (training,) = read_trainings(more)
    assert [len(phase["validation"]) for phase in training.after] == [3, 6, 9]
