"""What a terminal shows of a front, and of a search at its end."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from search.candidates import Candidate
from search.cli import main
from search.cli.parser import build_parser
from search.commands.closing import next_steps, print_closing
from search.commands.fronts import fixed_picks, marks_of, print_front, say_fixed, shortened
from search.config import parse_config
from search.record import Record
from search.strategies import TaskKnowledge
from search.study import Study
from tests.helpers.candidates import measurement
from tests.helpers.studies import SMALL

TASKS = ("digits", "shapes", "gratings", "colours", "counting", "textures")


def made(
    folder: Path, points: list[tuple[str | None, float, float]], tasks: object = TASKS
) -> Study:
    """A study with a record of labels, qualities and costs, but without compute."""
    study = Study.create(parse_config(SMALL | {"output": str(folder), "data_root": str(folder)}))
    study.keep_facts(TaskKnowledge())
    with Record(study.record_path, study.name) as record:
        for index, (label, quality, cost) in enumerate(points):
            record.add(
                Candidate(
                    strategy="random", seed=0, index=index, vector=(0.5,), names=("use[a]",),
                    quality=quality, cost=cost, label=label,
                    rungs=(measurement(quality, dict.fromkeys(tasks, quality)),),  # type: ignore[call-overload]
                )
            )  # fmt: skip
    return study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Its knee is a baseline, and its best is trained and exported."""
    study = made(tmp_path, [(None, 0.5, 0.2), ("share_half", 0.8, 0.5), (None, 0.85, 1.0)])
    (study.folder / "trained/random-0-2/abc").mkdir(parents=True)
    (study.folder / "trained/random-0-2/abc/seed0.json").touch()
    (study.folder / "exported/random-0-2").mkdir(parents=True)
    return study


def printed(study: Study, width: int) -> list[str]:
    out = io.StringIO()
    print_front(study, Console(file=out, width=width, color_system=None))
    return out.getvalue().splitlines()


def test_marks(study: Study) -> None:
    candidates = study.candidates()
    assert marks_of(study, candidates) == {
        "random-0-1": ["knee"],
        "random-0-2": ["best", "trained", "exported"],
    }
    entry = {"candidate": "random-0-0", "seed": 0, "path": "elsewhere", "time": 0.0}
    listed = {"exports": [entry | {"formats": ["pt2"]}]}
    (study.folder / "exports.json").write_text(json.dumps(listed))
    assert marks_of(study, candidates)["random-0-0"] == ["exported"]
    for damaged in ("{", "[]", '{"exports": [1]}', '{"exports": 5}'):
        (study.folder / "exports.json").write_text(damaged)
        assert "random-0-0" not in marks_of(study, candidates)


@pytest.mark.parametrize("width", [80, 100])
def test_tasks_stay(study: Study, width: int) -> None:
    lines = printed(study, width)
    head, *rows = lines[1:5]
    assert len(head.split()) == 3 + len(TASKS)  # candidate, quality, cost
    assert all(len(row.rstrip()) <= width for row in lines[1:5])
    assert rows[1].split() == ["share_half", "K", "0.800", "0.500", *["0.800"] * 6]
    assert rows[2].split() == ["random-0-2", "BTE", "0.850", "1.000", *["0.850"] * 6]
    assert "K knee, B best, T trained, E exported" in lines
    assert "knee is the baseline share_half (random-0-1), which no strategy had to find" in lines


def test_all_is_said_where_there_is_room(study: Study) -> None:
    lines = printed(study, 200)
    assert "best trained exported" in lines[4]
    assert lines[3].split()[:3] == ["random-0-1", "share_half", "knee"]
    assert not any("K knee" in line for line in lines)


def test_where_there_is_no_room_tasks_go_last(study: Study) -> None:
    lines = printed(study, 40)
    assert len(lines[1].split()) == 3
    assert any("accuracy per task: a wider terminal" in line for line in lines)


def test_nine_tasks_at_a_hundred_columns(tmp_path: Path) -> None:
    tasks = ("aircraft", "cifar100", "daimlerpedcls", "dtd", "gtsrb", "omniglot", "svhn",
             "ucf101", "vgg-flowers")  # fmt: skip
    study = made(tmp_path, [("share_all", 0.8, 0.5), (None, 0.85, 1.0)], tasks)
    head = printed(study, 100)[1]
    assert len(head.split()) == 3 + 9
    assert "vgg-f" in head


def test_a_front_of_none(tmp_path: Path) -> None:
    assert printed(made(tmp_path, []), 80) == ["0 of 0 candidates on the front, hypervolume 0.0000"]


@pytest.mark.parametrize("longest", [5, 6, 8])
def test_names_stay_apart(longest: int) -> None:
    names = ["cifar10", "cifar100", "omniglot", "svhn"]
    short = shortened(names, longest)
    assert len(set(short)) == 4
    assert max(map(len, short)) <= longest


def test_what_a_search_ends_with(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    print_closing(study, Console(file=out, width=80, color_system=None))
    said = out.getvalue()
    order = ["3 of 3 candidates on the front", "knee is the baseline share_half", "where it lies:",
             str(study.folder), "exported/random-0-2", f"apportion ui {study.folder}",
             "what to do next:", f"apportion train {study.folder} --pick best",
             f"apportion export {study.folder} --pick best --out networks"]  # fmt: skip
    places = [said.index(words) for words in order]
    assert places == sorted(places)
    assert "front.html" not in said, "there is no page yet"
    (study.folder / "front.html").touch()
    print_closing(study, Console(file=out, width=80, color_system=None))
    assert str(study.folder / "front.html") in out.getvalue()


def test_the_commands_that_come_next_can_be_typed(tmp_path: Path) -> None:
    import shlex

    study = made(tmp_path / "a folder", [("share_all", 0.8, 0.9), (None, 0.5, 0.2)])
    for _, command in next_steps(study):
        program, *words = shlex.split(command)
        assert program == "apportion"
        options = build_parser().parse_args(words)
        assert options.study == study.folder
        picks = getattr(options, "picks", None) or [getattr(options, "pick", "knee")]
        assert all(study.pick(pick) for pick in picks)


def test_picks_that_are_baselines_are_said_where_they_are_used(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates = study.candidates()
    assert len(fixed_picks(candidates, marks_of(study, candidates))) == 1
    assert main(["front", str(study.folder)]) == 0
    line = "is the baseline share_half (random-0-1), which no strategy had to find"
    assert f"knee {line}" in capsys.readouterr().out
    said: list[str] = []
    say_fixed(study, ["best", "knee", "share_half", "best@0.6", "random-0-1"], said.append)
    assert said == [f"knee {line}", f"best@0.6 {line}"]
    for command in (["train"], ["export", "--out", str(study.folder / "out")]):
        words = [command[0], str(study.folder), *command[1:], "--pick", "knee"]
        assert main(words) == 2  # it has no masks to train
        assert f"knee {line}" in capsys.readouterr().out
