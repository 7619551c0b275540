"""Where exports lie: kept once they are whole, and never in the way of one."""

import shutil
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from search.commands.page import gathered
from search.study import Study, read_exports
from search.study import folder as folder_module
from search.study.exports import FILE, note_export
from tests.helpers.kept_studies import config, searched, silent, write_data
from trainers.export import ExportError


def note(study: Path, out: Path, say: Any = silent, candidate: str = "es-0-0") -> None:
    note_export(study, candidate=candidate, seed=1, out=out, formats=("pt2",), say=say)


class TestNotes:
    def test_one_after_the_other(self, tmp_path: Path) -> None:
        note(tmp_path, tmp_path / "a")
        note(tmp_path, tmp_path / "b", candidate="es-0-1")
        first, second = read_exports(tmp_path, silent)
        assert first == {
            "candidate": "es-0-0",
            "seed": 1,
            "path": str(tmp_path / "a"),
            "time": pytest.approx(first["time"]),
            "formats": ["pt2"],
        }
        assert second["candidate"] == "es-0-1"

    def test_relative_folders_are_kept_as_absolute_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        note(tmp_path, Path("a"))
        (found,) = read_exports(tmp_path, silent)
        assert found["path"] == str(tmp_path / "a")

    def test_of_a_folder_that_was_replaced_the_last_is_kept(self, tmp_path: Path) -> None:
        for candidate in ("es-0-0", "es-0-1"):
            note(tmp_path, tmp_path / "a", candidate=candidate)
        (found,) = read_exports(tmp_path, silent)
        assert found["candidate"] == "es-0-1"

    def test_several_at_once(self, tmp_path: Path) -> None:
        threads = [Thread(target=note, args=(tmp_path, tmp_path / str(i))) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(read_exports(tmp_path, silent)) == 12

    def test_a_damaged_file_is_moved_aside(self, tmp_path: Path) -> None:
        note(tmp_path, tmp_path / "a")
        path = tmp_path / FILE
        path.write_text(path.read_text().replace("es-0-0", "es-0-9"))
        said: list[str] = []
        assert read_exports(tmp_path, said.append) == []
        note(tmp_path, tmp_path / "b", said.append)
        assert (tmp_path / f"{FILE}.damaged").is_file()
        assert [one["path"] for one in read_exports(tmp_path, silent)] == [str(tmp_path / "b")]
        assert len(said) == 2

    def test_a_folder_that_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: Any, **named: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("search.study.exports.write_json", refuse)
        said: list[str] = []
        note(tmp_path, tmp_path / "a", said.append)
        assert len(said) == 1
        assert "Permission denied" in said[0]
        assert read_exports(tmp_path, silent) == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_data(folder / "data")
    searched(config(folder, data_root=str(folder))).train("best", say=silent)
    return folder


@pytest.fixture
def study(project: Path, tmp_path: Path) -> Study:
    """A copy with a trained candidate."""
    shutil.copytree(project / "studies" / "t", tmp_path / "t")
    return Study(tmp_path / "t")


def test_an_export_is_kept_and_shown_until_it_is_gone(study: Study, tmp_path: Path) -> None:
    study.export("best", tmp_path / "nets", say=silent)
    candidates = study.candidates()
    (one,) = gathered(study, candidates).exports
    assert (one.candidate, one.seed) == (study.pick("best").id, 0)
    assert (one.path, one.formats, one.is_there) == (str(tmp_path / "nets"), ["pt2"], True)
    assert {row["network"] for row in one.latencies} == {"parts", "digits"}
    shutil.rmtree(tmp_path / "nets")
    (one,) = gathered(study, candidates).exports
    assert not one.is_there
    assert not one.latencies


def test_an_export_that_fails_is_not_kept(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise ExportError("it computes something else")

    monkeypatch.setattr(folder_module, "export_trained", fail)
    with pytest.raises(ExportError):
        study.export("best", tmp_path / "nets", say=silent)
    assert not (study.folder / FILE).exists()


def test_trainings_are_shown(study: Study) -> None:
    shown = gathered(study, study.candidates())
    (training,), (trial,) = shown.trainings, shown.trials
    assert training.candidate == trial.candidate == study.pick("best").id
    assert training.points
    (tried,) = study.tried(say=silent)
    assert (trial.mean, trial.seeds) == (tried.mean, 1)
    assert set(shown.settings) == {trial.settings}
    assert "steps: 20" in shown.settings[trial.settings]
