"""Files of a study or the cache that were cut, flipped, emptied: named, moved aside, made again."""

import logging
import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from search.config import load_config
from search.study import Study, StudyError
from tests.helpers.kept_studies import FOUNDATION, config, no_jobs, searched, silent
from trainers.tensor_files import load_arrays


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:150])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """A bit in the middle of the data."""
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 16
    path.write_bytes(content)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def by_another(path: Path) -> None:
    """Replace it by a file of its kind that is whole, but another."""
    other = next(file for file in sorted(path.parent.glob("*.safetensors")) if file != path)
    shutil.copyfile(other, path)


@pytest.fixture
def project(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything; the working folder, too."""
    folder = tmp_path / "project"
    shutil.copytree(original, folder)
    monkeypatch.chdir(folder)
    return folder


def content(path: Path) -> object:
    """What a file holds; the order of a safetensors file's header is by chance."""
    return load_arrays(path)[1]


def study_of(project: Path) -> Path:
    return project / "studies" / "t"


def test_a_damaged_cache_is_made_again_for_the_next_study(project: Path) -> None:
    cache = project / "studies" / "cache"
    before = {path.name: content(path) for path in cache.iterdir()}
    for name, damage in zip(before, cycle([cut, empty, flip]), strict=False):
        damage(cache / name)
    said: list[str] = []
    searched(config(project, name="u"), say=said.append)
    damaged = [line for line in said if "damaged" in line]
    assert len(damaged) == len(before)
    for name in before:
        (line,) = (line for line in damaged if f"{cache / name} is damaged" in line)
        assert f"kept as {name}.damaged and made again" in line
    assert {name: content(cache / name) for name in before} == before, "the same bits"


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *((kind, damage) for kind in FOUNDATION for damage in (flip, by_another)),
        ("trunk-*", folder),
    ],
)
def test_a_damaged_file_of_the_studys_own(
    project: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    shutil.rmtree(project / "studies" / "cache")
    (path, *_) = (study_of(project) / "foundation").glob(kind)
    before = content(path)
    damage(path)
    said: list[str] = []
    searched(load_config(study_of(project) / "config.yaml", ["candidates=3"]), say=said.append)
    assert any(f"{path} is damaged" in line for line in said)
    assert content(path) == before


def test_the_cache_mends_nothing_that_is_whole(project: Path) -> None:
    """A study whose own files are whole goes on, whatever became of the cache."""
    for path in (project / "studies" / "cache").iterdir():
        cut(path)
    searched(config(project, candidates=3), run=no_jobs)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("seed0.safetensors", flip),
        ("seed0.safetensors", Path.unlink),
        ("seed0.json", cut),
        ("seed0.json", flip),
        ("seed0.json", folder),
        ("masks.json", cut),
    ],
)
def test_a_damaged_training_is_repeated(
    project: Path, name: str, damage: Callable[[Path], None]
) -> None:
    study = Study(study_of(project))
    trained = study.train("best", say=silent)
    damage((trained.folder.parent if name == "masks.json" else trained.folder) / name)
    said: list[str] = []
    study.export("best", project / "out", say=said.append)
    quiet = damage is Path.unlink or name == "masks.json"  # which the record has, too
    assert quiet or any(f"{name} is damaged" in line for line in said)
    assert study.train("best", run=no_jobs).accuracy == trained.accuracy


def test_the_table_of_trainings_leaves_out_a_damaged_one(project: Path) -> None:
    study = Study(study_of(project))
    trained = study.train("best", say=silent)
    assert len(study.tried()) == 1
    cut(trained.folder / "seed0.json")
    said: list[str] = []
    assert study.tried(say=said.append) == []
    assert "seed0.json is damaged" in said[0]


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_facts_of_the_tasks(project: Path, damage: Callable[[Path], None]) -> None:
    study = Study(study_of(project))
    whole = study.knowledge().tasks
    damage(study.folder / "tasks.json")
    with pytest.raises(StudyError, match=r"(damaged|missing).*--resume writes it anew"):
        study.summary()
    again = searched(load_config(study.folder / "config.yaml"), run=no_jobs)
    assert again.knowledge().tasks == whole


def test_an_emptied_config(project: Path) -> None:
    path = study_of(project) / "config.yaml"
    for content in (b"", b"{a: [", b"\xff\xfe", b"[1]"):
        path.write_bytes(content)
        with pytest.raises(StudyError, match=r"config.yaml is damaged.* Put it back from a copy"):
            Study(path.parent)


def test_a_damaged_calibration_is_measured_again(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from search.calibration import measure_calibration, read_trust, write_calibration

    study = Study(study_of(project))
    calibration = {"candidates": 3, "trained_twice": 0}
    study = Study.create(config(project, calibration=calibration), resume=True)
    results = measure_calibration(study, say=silent)
    write_calibration(study, results)
    folder = study.folder / "calibration"
    cut(folder / "candidate001-seed0.json")
    flip(folder / "candidates.json")
    cut(folder / "calibration.json")
    with caplog.at_level(logging.WARNING):
        assert read_trust(study) is None
    assert "calibration.json is damaged" in caplog.text
    said: list[str] = []
    again = measure_calibration(study, say=said.append)
    assert sum("is damaged" in line for line in said) == 2
    assert sum(line.startswith("calibration 1/1") for line in said) == 1
    assert [r["full"]["accuracy"] for r in again] == [r["full"]["accuracy"] for r in results]
