"""What scores depend on has changed since they were made: refused, in words, before any compute."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.calibration import measure_calibration
from search.config import load_config, parse_config
from search.record import Record
from search.study import Study, StudyError, basis
from tests.helpers.kept_studies import no_jobs, searched, silent, tree, write_data
from tests.helpers.records import make
from tests.helpers.studies import SIMULATED


@pytest.fixture
def study(original: Path, tmp_path: Path) -> Path:
    """A copy of the study with data of its own."""
    folder = tmp_path / "studies" / "t"
    shutil.copytree(original / "studies" / "t", folder)
    shutil.copytree(original / "data", tmp_path / "data")
    kept = folder / "config.yaml"
    kept.write_text(kept.read_text().replace(str(original), str(tmp_path)))
    return folder


def refuses(folder: Path, words: str) -> None:
    """Neither search, training nor export goes on, and nothing is computed or lost."""
    before = tree(folder)
    config = load_config(folder / "config.yaml", ["candidates=3"])
    uses: list[Any] = [
        lambda: Study(folder).train("best", seeds=2, say=silent, run=no_jobs),
        lambda: Study(folder).export("best", folder / "out", say=silent, run=no_jobs),
        lambda: searched(config, run=no_jobs),
    ]
    for use in uses:
        with pytest.raises(StudyError, match=words):
            use()
    after = tree(folder)
    assert {name: after[name] for name in before if name != "config.yaml"} == {
        name: digest for name, digest in before.items() if name != "config.yaml"
    }


def test_labels_permuted_under_the_same_path(study: Path, tmp_path: Path) -> None:
    trained = Study(study).train("best", say=silent)
    write_data(tmp_path / "data", shift=1)
    refuses(study, "what changed: the train labels of task parts. Put that back")
    with pytest.raises(StudyError, match="the train labels of task parts"):
        Study(study).train("best", say=silent, run=no_jobs)  # which is there
    write_data(tmp_path / "data")
    assert Study(study).train("best", say=silent, run=no_jobs).accuracy == trained.accuracy
    Study(study).export("best", tmp_path / "out", say=silent, run=no_jobs)


def test_a_program_that_scores_otherwise(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basis, "SCORING_VERSION", 99)
    refuses(study, "what changed: the program's SCORING_VERSION")
    assert len(Study(study).candidates()) == 2, "the front can still be looked at"


def test_teachers_of_other_weights(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where they were lost, and made again on another device."""
    from trainers.teachers import load, store

    (path,) = (study / "foundation").glob("teacher-digits-*")
    teacher = load(path)
    changed = {name: tensor * 1.5 for name, tensor in teacher.state.items()}
    store(type(teacher)(state=changed, accuracy=0.5, digest=teacher.digest), path)
    refuses(study, "what changed: the weights of the teacher of digits of seed 0")


def test_a_calibration_is_of_one_dataset(study: Path, tmp_path: Path) -> None:
    """Stopped, the labels rotated, and begun again: nothing of the first dataset is kept."""
    for path in (*study.glob("record.journal*"), study / "tasks.json"):
        path.unlink()  # as of a calibration before the search
    config = load_config(study / "config.yaml", ["calibration={candidates: 3, trained_twice: 0}"])
    before = measure_calibration(Study.create(config, resume=True), say=silent)
    (study / "calibration" / "candidate002-seed0.json").unlink()
    write_data(tmp_path / "data", shift=1)
    after = measure_calibration(Study(study), say=silent)
    assert [a["data"] == b["data"] for a, b in zip(after, before, strict=True)] == [False] * 3
    assert len({result["data"] for result in after}) == 1


def test_the_record_of_another_study_of_that_name(study: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(study, other / "t")
    kept = other / "t" / "config.yaml"
    text = kept.read_text()
    start = text.index("id: ") + 4
    kept.write_text(text[:start] + "f" * 32 + text[start + 32 :])
    with pytest.raises(StudyError, match=r"record.journal is the record of another study"):
        Study(other / "t").candidates()


def test_trainings_of_other_data_are_not_taken_for_these(study: Path, tmp_path: Path) -> None:
    before = Study(study).train("best", say=silent)
    for name in ("record.journal", "record.journal.writer", "tasks.json"):
        (study / name).unlink(missing_ok=True)
    write_data(tmp_path / "data", shift=1)
    again = searched(load_config(study / "config.yaml"))
    said: list[str] = []
    again.train(before.candidate, say=said.append)
    assert any(line.startswith("training random-0-") for line in said)


def test_what_is_under_way_under_other_settings_is_dropped(tmp_path: Path) -> None:
    """A search that was killed before its first candidate goes on with what the config says now."""
    config = parse_config(SIMULATED | {"output": str(tmp_path)})
    underway = Study.create(config).record_path.with_suffix(".underway")
    underway.write_text("scored on a lower rung")
    Study.create(replace(config, seeds=(0, 1)), resume=True)
    assert underway.exists()
    Study.create(replace(config, input_size=64), resume=True)
    assert not underway.exists()


@pytest.mark.parametrize(
    ("old", "new", "setting"),
    [("steps: 12", "steps: 13", "proxy.sgd.steps"), ("seed: 0", "seed: 1", "seed")],
)
def test_settings_changed_in_the_kept_config(study: Path, old: str, new: str, setting: str) -> None:
    """Scores of two settings stood on one front, as the file was held against itself."""
    kept = study / "config.yaml"
    text = kept.read_text()
    head, tail = text.split("proxy:", 1)
    assert old in tail
    kept.write_text(f"{head}proxy:{tail.replace(old, new, 1)}")
    refuses(study, f"what changed: the setting (proxy.)?{setting}")
    assert len(Study(study).candidates()) == 2, "the front can still be looked at"


def test_settings_of_a_simulated_problem_changed_in_the_kept_config(tmp_path: Path) -> None:
    study = Study.create(parse_config(SIMULATED | {"output": str(tmp_path)}))
    scored_on = dict(study.basis)
    study.check(scored_on)
    with Record(study.record_path, study.name) as record:
        record.begin("random", 0, scored_on)
        record.add(make("random"))
    kept = study.folder / "config.yaml"
    kept.write_text(kept.read_text().replace("interference: 0.9", "interference: 0.90"))
    Study(study.folder).check()  # the same value, written otherwise
    kept.write_text(kept.read_text().replace("interference: 0.90", "interference: 0.1"))
    with pytest.raises(StudyError, match=r"changed: the setting simulation\.synthetic\.interf"):
        Study(study.folder).check()


def test_the_record_is_gone_with_its_note(study: Path) -> None:
    """0 of 0 candidates and exit status 0, over a front.csv of the candidates."""
    for path in study.glob("record.journal*"):
        path.unlink()
    with pytest.raises(StudyError, match=r"record.journal is gone.*or delete tasks.json as well"):
        Study(study).candidates()
    with pytest.raises(StudyError, match="is gone"):
        searched(load_config(study / "config.yaml"))
    (study / "tasks.json").unlink()
    assert Study(study).candidates() == []


def test_the_lines_are_lost_that_say_what_scores_depend_on(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = study / "record.journal"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(line for line in lines if b'"scored_on"' not in line))
    Study(study).check()
    assert "whether data, weights, settings and program are still the same" in caplog.text
