"""The lines of a running search, on a terminal and without one."""

import io
import itertools
import math
import re

import pytest
from rich.console import Console

from search.arms import Display
from search.arms import display as module
from search.arms.display import ArmState


def arm(name: str, status: str = "RUNNING", candidates: int = 0, **others: object) -> ArmState:
    settings = {"known": 0, "budget": 10, "failed": 0, "stopped": 0, "best": math.nan} | others
    return ArmState(name=name, status=status, candidates=candidates, **settings)  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute between two times that states are shown."""
    times = itertools.count(0.0, 60.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))


def shown(*states: list[ArmState], terminal: bool, width: int = 80, quiet: bool = False) -> str:
    """What is written, of a terminal without what moves its cursor."""
    out = io.StringIO()
    display = Display(
        Console(file=out, force_terminal=terminal, width=width, color_system=None), quiet=quiet
    )
    for each in states[:-1]:
        display.show(each)
    display.say("a word")
    display.say("warning: a word of warning")
    display.show(states[-1], done=all(one.done for one in states[-1]))
    display.close()
    return out.getvalue() if not terminal else re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())


WAITING = [arm("es-0"), arm("random-0", "PENDING"), arm("random-1", "PENDING")]
MIDST = [
    arm("es-0", candidates=4, best=0.5, failed=1),
    arm("random-0", candidates=2, best=0.75),
    arm("random-1", "PENDING"),
]
ENDED = [
    arm("es-0", "TERMINATED", 10, best=0.5, failed=1),
    arm("random-0", "TERMINATED", 10, best=0.75),
    arm("random-1", "ERROR", 7, best=0.6),
]


def test_a_line_for_each_strategy(clock: None) -> None:
    said = shown(WAITING, MIDST, terminal=True)
    assert "nan" not in said
    assert "waiting for the first scores" in said
    assert re.search(r"random +0/20 +0 +waits for free devices", said)
    assert re.search(r"es +0/10 +0 +waits for its first scores", said)
    # Two minutes after the first look: both strategies are counted from when they ran.
    assert "6 of 30 candidates, best 0.750 (random), 1 failed, about" in said
    assert re.search(r"es +4/10 +4\.0 +0\.500 +1 +runs", said)
    assert re.search(r"random +2/20 +0\.750 +0 +runs", said)
    assert max(map(len, said.splitlines())) <= 80


def test_time_left_is_that_of_candidates_that_were_scored_here(clock: None) -> None:
    known = [arm("es-0", candidates=8, known=6, budget=12, best=0.5)]
    begun = [arm("es-0", candidates=6, known=6, budget=12, best=0.5)]
    said = shown(begun, known, terminal=False)
    assert "6 of 12 candidates, best 0.500 (es), 0 failed, waiting for the first scores" in said
    assert "8 of 12 candidates, best 0.500 (es), 0 failed, about 2 min 00 s left" in said


def test_without_a_terminal_a_line_now_and_then(clock: None) -> None:
    said = shown(WAITING, MIDST, ENDED, terminal=False)
    assert "\x1b" not in said
    assert "\r" not in said
    assert "nan" not in said
    assert said.splitlines()[-1] == (
        "27 of 30 candidates, best 0.750 (random), 1 failed, all strategies have ended"
    )
    assert len(said.splitlines()) == 5


def test_lines_are_not_said_more_often_than_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.count(0.0, 1.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    said = shown(*[MIDST] * 31, terminal=False)
    assert said.count("6 of 30 candidates") == 3  # after 0, 15 and 30 seconds


def test_an_arm_that_broke_is_said(clock: None) -> None:
    assert re.search(r"random +17/20 .*broken", shown(WAITING, MIDST, ENDED, terminal=True))


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_says_warnings_alone(terminal: bool) -> None:
    said = shown(WAITING, ENDED, terminal=terminal, quiet=True)
    assert said == "warning: a word of warning\n"


def test_strategies_keep_their_places(clock: None) -> None:
    said = shown(MIDST, [*reversed(ENDED)], terminal=True)
    last = said[said.rindex("strategy ") :]
    assert last.index("es ") < last.index("random ")
