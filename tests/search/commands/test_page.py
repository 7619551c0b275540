"""The study page of a search that runs."""

import time
from pathlib import Path

import pytest

from search.candidates import Candidate
from search.commands import page
from search.commands.page import page_kept_fresh, refresh_page, write_study_page
from search.record import Record, is_written
from search.study import Study
from tests.helpers.studies import simulated, wait_for


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(simulated(output=str(tmp_path)))


def add(record: Record, index: int) -> None:
    record.add(
        Candidate(
            strategy="random", seed=0, index=index, vector=(0.5,), names=("use[a]",),
            quality=0.5, cost=0.5,
        )
    )  # fmt: skip


def test_it_follows_the_record(study: Study) -> None:
    path = study.folder / "front.html"
    with Record(study.record_path, study.name) as record:
        assert is_written(study.record_path)
        add(record, 0)
        with page_kept_fresh(study, every=0.05):
            wait_for(lambda: path.is_file() and "random-0-0" in path.read_text())
            assert '"running":true' in path.read_text()
            add(record, 1)
            wait_for(lambda: "random-0-1" in path.read_text())
    assert not is_written(study.record_path)
    write_study_page(study, study.candidates())
    assert '"running":false' in path.read_text()


def test_a_search_does_not_end_for_its_page(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fail(*arguments: object, **named: object) -> None:
        tries.append(1)
        raise OSError("the disk is full")

    monkeypatch.setattr(page, "write_study_page", fail)
    with page_kept_fresh(study, every=0.01):
        wait_for(lambda: len(tries) > 1)
    count = len(tries)
    time.sleep(0.1)
    assert len(tries) == count, "it ends with the search"


def test_a_page_that_is_there_is_refreshed(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    path = study.folder / "front.html"
    with Record(study.record_path, study.name) as record:
        add(record, 0)
    refresh_page(study)
    assert not path.exists(), "nobody has asked for one"
    path.write_text("old")
    refresh_page(study)
    assert "random-0-0" in path.read_text()

    def full(*args: object, **more: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(page, "write_study_page", full)
    refresh_page(study)  # what was trained is there all the same
    assert "random-0-0" in path.read_text()
