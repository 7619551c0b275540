"""The studies of a folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from search.cli import main
from search.commands.listing import list_studies, size_of
from search.study import Study, StudyError
from tests.helpers import ROOT
from tests.search.commands.test_fronts import made

#: Holds a study's record open until its input ends.
HOLD = """
import sys
from pathlib import Path
from search.record import Record
with Record(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Studies of all kinds but a running one, and what is none."""
    points = [(None, 0.5, 0.2), ("share_half", 0.8, 0.5), (None, 0.85, 1.0)]
    whole = made(tmp_path / "made", points)  # type: ignore[arg-type]
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("finished", "stopped", "broken_down", "lost_a_line", "no_config", "no_record"):
        shutil.copytree(whole.folder, studies / name)
    Study(studies / "finished").say_ended("FINISHED")
    Study(studies / "broken_down").say_ended("FAILED")
    record = studies / "lost_a_line" / "record.journal"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join([*lines[:-2], lines[-2].replace("0", "1"), lines[-1]]))
    (studies / "no_config" / "config.yaml").unlink()
    (studies / "no_record" / "record.journal").unlink()
    made(tmp_path / "other", []).folder.rename(studies / "empty")
    (studies / "cache").mkdir()
    (studies / "notes.txt").touch()
    return studies


def test_states(folder: Path) -> None:
    found = {one.name: one for one in list_studies(folder)}
    assert {name: one.state for name, one in found.items()} == {
        "broken_down": "stopped",
        "empty": "empty",
        "finished": "finished",
        "lost_a_line": "damaged",
        "no_config": "damaged",
        "no_record": "damaged",
        "stopped": "stopped",
    }
    whole = found["finished"]
    assert (whole.candidates, whole.failed) == (3, 0)
    assert whole.best is not None
    assert whole.best.id == "random-0-2"
    assert whole.knee is not None
    assert whole.knee.label == "share_half"
    assert whole.bytes > 1000
    for name in ("lost_a_line", "no_config", "no_record", "broken_down"):
        assert found[name].reason
    assert "no config.yaml" in found["no_config"].reason
    assert found["lost_a_line"].candidates == 2


def test_one_of_before_ends_were_kept_is_finished_when_all_is_there(folder: Path) -> None:
    config = folder / "stopped" / "config.yaml"
    config.write_text(re.sub(r"\ncandidates: \d+\n", "\ncandidates: 3\n", config.read_text()))
    (found,) = (one for one in list_studies(folder) if one.name == "stopped")
    assert found.state == "finished"


def test_a_study_that_is_written_is_running(folder: Path) -> None:
    study = Study(folder / "finished")
    command = [sys.executable, "-c", HOLD, str(study.record_path), study.name]
    holder = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert _state(folder) == "running"
        assert _state(folder) == "running", "to look at it takes nothing from whoever writes it"
    finally:
        holder.communicate()
    assert holder.returncode == 0
    assert _state(folder) == "finished"


def _state(folder: Path) -> str:
    (found,) = (one for one in list_studies(folder) if one.name == "finished")
    return found.state


def test_a_file_of_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 100)
    os.link(tmp_path / "a", tmp_path / "below" / "b")
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    assert 100 <= size_of(tmp_path) < 250


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "0.800 at cost 0.500" in said
    assert "no_config: " in said
    assert main(["list", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["study"] for row in rows] == sorted(row["study"] for row in rows)
    assert set(rows[0]) == {
        "study", "folder", "state", "reason", "candidates", "failed", "bytes", "best", "knee",
    }  # fmt: skip
    assert rows[2]["knee"] == {
        "candidate": "random-0-1", "label": "share_half", "quality": 0.8, "cost": 0.5,
    }  # fmt: skip


def test_what_is_no_folder_of_studies(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StudyError, match="is a study, not a folder of studies"):
        list_studies(folder / "finished")
    assert main(["list", str(tmp_path / "nothing")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    assert main(["list", str(tmp_path / "bare")]) == 0
    assert "no studies in" in capsys.readouterr().out
