"""A study works wherever it lies, from wherever it is used, and touches nothing else."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from search.calibration import measure_calibration
from search.config import ConfigError, load_config
from search.study import Study, StudyError
from tests.helpers.kept_studies import FOUNDATION, config, no_jobs, searched, silent, tree
from tests.helpers.studies import TINY
from trainers.networks import BackboneError, build_model


@pytest.fixture
def copy(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study alone, where nothing else is, to be used from another folder."""
    folder = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(original / "studies" / "t", folder)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return folder


def test_a_copy_goes_on_by_itself(original: Path, copy: Path, tmp_path: Path) -> None:
    before = tree(original)
    more = load_config(copy / "config.yaml", ["candidates=3"])
    assert more.folder == copy
    study = searched(more, run=no_jobs)
    assert [c.index for c in study.candidates()] == [0, 1, 2]
    study = Study(copy)
    trained = study.train("best", say=silent)
    assert study.export("best", copy / "exported", say=silent).checks.keys() == {"parts", "digits"}
    assert study.train("best", run=no_jobs).accuracy == trained.accuracy
    study.config = replace(
        study.config, calibration=replace(study.config.calibration, candidates=3, trained_twice=0)
    )
    assert len(measure_calibration(study, say=silent)) == 3
    assert tree(original) == before, "the original is untouched"
    assert [path.name for path in copy.parent.iterdir()] == ["renamed"]
    assert not list((tmp_path / "cwd").iterdir())


def test_the_kept_config_names_no_folder_of_studies(original: Path) -> None:
    text = (original / "studies" / "t" / "config.yaml").read_text()
    assert str(original / "studies") not in text
    for kind in FOUNDATION:
        assert list((original / "studies" / "t" / "foundation").glob(kind)), kind


def test_a_study_without_its_cache(original: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(original, project)
    shutil.rmtree(project / "studies" / "cache")
    study = Study(project / "studies" / "t")
    study.train("best", say=silent)
    assert not (project / "studies" / "cache").exists()


def write_weights(path: Path, seed: int) -> dict[str, torch.Tensor]:
    """Those of a network that nobody trained, without a head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = build_model("resnet14", {"width": 4}).state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    save_file(state, path)
    return state


def test_weights_are_kept_with_the_study(original: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.safetensors"
    state = write_weights(given, 0)
    shutil.copytree(original / "data", tmp_path / "data")
    backbone = {**TINY["backbone"], "weights": str(given)}
    places = {"data_root": str(tmp_path), "backbone": backbone, "trunk": None}
    study = searched(config(tmp_path, **places))
    kept = load_file(study.folder / "foundation" / "weights.safetensors")
    assert all(torch.equal(kept[name], state[name]) for name in state)
    shutil.copytree(study.folder, tmp_path / "elsewhere" / "t")
    study.train("best", say=silent)
    given.rename(tmp_path / "moved.safetensors")
    again = load_config(tmp_path / "elsewhere" / "t" / "config.yaml", ["candidates=3"])
    assert len(searched(again, run=no_jobs).candidates()) == 3
    assert study.train("best", run=no_jobs).accuracy
    copied = Study(tmp_path / "elsewhere" / "t")
    trained = copied.train("best", say=silent)
    assert trained.accuracy == study.train("best", run=no_jobs).accuracy
    assert copied.export("best", tmp_path / "exported", say=silent).checks.keys() == {
        "parts",
        "digits",
    }
    write_weights(given, 1)
    with pytest.raises(StudyError, match="the trunk of seed 0"):
        searched(again, run=no_jobs)
    with pytest.raises(StudyError, match="the trunk of seed 0"):
        study.train("best", seeds=2, run=no_jobs)
    assert all(
        torch.equal(load_file(folder / "foundation" / "weights.safetensors")[name], state[name])
        for folder in (study.folder, copied.folder)
        for name in state
    ), "a file that was refused does not replace the study's copy"
    save_file({"conv.weight": torch.ones(1)}, given)
    with pytest.raises(BackboneError, match="do not fit"):  # it is there, so that it is meant
        searched(again, run=no_jobs)
    given.unlink()
    assert len(searched(again, run=no_jobs).candidates()) == 3, "the copy is what it was"
    (tmp_path / "moved.safetensors").rename(given)
    assert len(searched(again, run=no_jobs).candidates()) == 3, "so is the file"


def test_a_relative_path_means_the_same_to_a_process_elsewhere(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster, MLflow was shown hypervolumes above quality 0, and no front."""
    monkeypatch.chdir(copy.parent)
    study = Study(copy.name)
    sent = pickle.dumps(study.reference)
    monkeypatch.chdir(tmp_path / "cwd")
    assert pickle.loads(sent)() == Study(copy).reference() != (0.0, 1.0)


def test_data_that_was_moved(original: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(original, project)
    text = (project / "studies" / "t" / "config.yaml").read_text()
    assert f"data_root: {original}" in text
    (project / "studies" / "t" / "config.yaml").write_text(
        text.replace(f"data_root: {original}", "data_root: /nowhere")
    )
    kept = project / "studies" / "t" / "config.yaml"
    with pytest.raises(ConfigError, match=rf"/nowhere/data/parts.npz.*{kept} says where the data"):
        Study(kept.parent).train("best", say=silent)
    searched(load_config(kept, [f"data_root={project}"]), run=no_jobs)
    assert f"data_root: {project}" in kept.read_text()
    Study(kept.parent).train("best", say=silent)
