"""A study as Python and notebooks see it."""

from pathlib import Path

import pytest

from partitioning import Masks
from search.candidates import Candidate
from search.commands.search import search
from search.config import ConfigError, parse_config
from search.record import Record
from search.study import Study, StudyError
from tests.helpers.candidates import costs, decoding
from tests.helpers.studies import SMALL


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study.create(
        parse_config(SMALL | {"output": str(tmp_path), "data_root": str(tmp_path)})
    )
    with Record(study.record_path, study.name) as record:
        for index, (quality, label) in enumerate([(0.5, None), (0.8, "<half>"), (None, None)]):
            record.add(
                Candidate(
                    strategy="random", seed=0, index=index, vector=(0.5,), names=("use[a]",),
                    quality=quality, cost=quality, label=label, decoding=decoding(["a"]),
                    costs=costs({"a": 0.5}), error=None if quality else "made to fail",
                )
            )  # fmt: skip
    study.knowledge = lambda: type("None", (), {"floor": 0.1})()  # type: ignore[method-assign, assignment, return-value]
    return study


def test_a_table_a_front_and_a_picture(study: Study) -> None:
    table = study.table()
    assert table["candidate"].tolist() == ["random-0-0", "random-0-1"]
    assert table["on_front"].all()
    assert {"quality", "cost", "cost/macs", "label", "contribution"} <= set(table.columns)
    assert [one.id for one in study.front()] == ["random-0-0", "random-0-1"]
    figure = study.plot_front()
    assert len(figure.axes) == 2
    assert "multiply-accumulates" in figure.axes[0].get_xlabel()


def test_masks_of_a_candidate_or_its_name(study: Study) -> None:
    masks = study.masks("random-0-1")
    assert isinstance(masks, Masks)
    assert masks == study.masks(study.pick("best")) == study.masks("<half>")
    with pytest.raises(StudyError, match="no candidate 'nonsense'"):
        study.masks("nonsense")


def test_a_notebook_shows_it(study: Study) -> None:
    shown = study._repr_html_()
    assert "3 candidates (1 failed), 2 on the front" in shown
    assert "&lt;half&gt;" in shown
    assert "<half>" not in shown
    assert "data:image/png;base64," in shown
    assert len(shown) < 200_000
    assert shown.count("<tr>") == 3


def test_one_without_candidates_is_shown_without_a_picture(tmp_path: Path) -> None:
    empty = Study.create(
        parse_config(SMALL | {"output": str(tmp_path), "data_root": str(tmp_path)})
    )
    shown = Study.open(empty.folder)._repr_html_()
    assert "0 candidates (0 failed), 0 on the front" in shown
    assert "<img" not in shown
    assert empty.table().empty
    assert empty.front() == []


def test_how_a_search_ended_is_kept(study: Study) -> None:
    assert study.ended() is None
    study.say_ended("FINISHED")
    assert Study.open(study.folder).ended() == "FINISHED"
    (study.folder / "ended.json").write_text("{")
    assert study.ended() is None
    study.say_ended(None)
    assert not (study.folder / "ended.json").exists()


def test_a_search_takes_a_dictionary() -> None:
    with pytest.raises(ConfigError, match="did you mean 'candidates'"):
        search({**SMALL, "candidats": 3})
