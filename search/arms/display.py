"""The search's progress: live lines on a terminal, a line now and then elsewhere."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

#: Seconds between two plain lines.
PLAIN_EVERY = 15.0
#: What a line begins with that is said even where all others are left out.
WARNING = "warning: "


@dataclass(frozen=True, kw_only=True)
class ArmState:
    """How far an arm is.

    Attributes:
        name: `<strategy>-<seed>`.
        status: Tune's word: PENDING, RUNNING, TERMINATED, ERROR.
        candidates: Candidates told.
        known: Those of them that were in the record before.
        budget: Candidates in all; for the baselines as many as there are.
        failed: Candidates without a score.
        stopped: Candidates that were not scored beyond a lower rung.
        best: Best quality; NaN before the first.
    """

    name: str
    status: str
    candidates: int
    known: int
    budget: int
    failed: int
    stopped: int
    best: float

    @property
    def strategy(self) -> str:
        """The strategy's name."""
        return self.name.rpartition("-")[0]

    @property
    def done(self) -> bool:
        """Whether the arm has ended."""
        return self.status in ("TERMINATED", "ERROR")

    @property
    def fresh(self) -> int:
        """Candidates that were scored since the search began or went on."""
        return self.candidates - self.known


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A strategy with all its seeds."""

    name: str
    done: str
    rate: str
    best: str
    failed: str
    stopped: str
    state: str


class Display:
    """Shows the states of all arms, a line for each strategy.

    Args:
        console: Where to.
        quiet: Say warnings alone, and show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self._quiet = console, quiet
        is_live = console.is_terminal and not console.is_dumb_terminal and not quiet
        self._live = Live(console=console, auto_refresh=False) if is_live else None
        self._last = float("-inf")
        self._order: dict[str, None] = {}  # of strategies, which Tune changes
        self._begun: dict[str, float] = {}  # when a strategy's first arm ran
        self._rates: dict[str, float] = {}  # candidates a second

    def say(self, line: str) -> None:
        """Print one line, above the live ones if there are any."""
        if not self._quiet or line.startswith(WARNING):
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def show(self, arms: Sequence[ArmState], *, done: bool = False) -> None:
        """Show the arms; on a terminal in place, elsewhere a line now and then."""
        now = time.monotonic()
        self._order |= dict.fromkeys(arm.strategy for arm in arms)
        strategies = {
            name: own
            for name in self._order
            if (own := [arm for arm in arms if arm.strategy == name])
        }
        for name, own in strategies.items():
            self._measure(name, own, now)
        if self._live is not None:
            lines = [self._line(name, own) for name, own in strategies.items()]
            if not self._live.is_started and not done:
                self._live.start()
            words = Text(self._summary(arms, now), overflow="fold")
            self._live.update(Group(words, _table(lines)), refresh=True)
        elif done or now - self._last >= PLAIN_EVERY:
            self._last = now
            self.say(self._summary(arms, now))
        if done:
            self.close()

    def close(self) -> None:
        """Leave the last lines standing and give the terminal back."""
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def _measure(self, name: str, arms: Sequence[ArmState], now: float) -> None:
        """Keep since when a strategy is scored, and how fast, until all its arms have ended."""
        if all(arm.status == "PENDING" for arm in arms):
            return
        begun = self._begun.setdefault(name, now)
        fresh = sum(arm.fresh for arm in arms)
        if fresh and now > begun and not all(arm.done for arm in arms):
            self._rates[name] = fresh / (now - begun)

    def _line(self, name: str, arms: Sequence[ArmState]) -> _Line:
        rate = self._rates.get(name)
        stopped = sum(arm.stopped for arm in arms)
        return _Line(
            name=name,
            done=f"{sum(a.candidates for a in arms)}/{sum(a.budget for a in arms)}",
            rate="" if rate is None else f"{60 * rate:.1f}",
            best=_number(_best(arms)),
            failed=str(sum(arm.failed for arm in arms)),
            stopped=str(stopped) if stopped else "",
            state=_state(arms),
        )

    def _summary(self, arms: Sequence[ArmState], now: float) -> str:
        """All in a line: candidates, the best, failures, time left or what is waited for."""
        told, budget = sum(arm.candidates for arm in arms), sum(arm.budget for arm in arms)
        parts = [f"{told} of {budget} candidates"]
        if told:
            leader = max(arms, key=lambda arm: -math.inf if math.isnan(arm.best) else arm.best)
            failed = sum(arm.failed for arm in arms)
            if not math.isnan(leader.best):
                parts.append(f"best {leader.best:.3f} ({leader.strategy})")
            parts.append(f"{failed} failed")
        parts.append(self._left(arms, now))
        return ", ".join(part for part in parts if part)

    def _left(self, arms: Sequence[ArmState], now: float) -> str:
        missing = sum(max(0, arm.budget - arm.candidates) for arm in arms if not arm.done)
        if all(arm.done for arm in arms):
            return "all strategies have ended"
        fresh = sum(arm.fresh for arm in arms)
        if fresh <= 0 or not self._begun:
            running = any(arm.status == "RUNNING" for arm in arms)
            return "waiting for the first scores" if running else "waiting for Ray to start"
        if not missing:
            return "waiting for strategies to end"
        seconds = round((now - min(self._begun.values())) / fresh * missing)
        return f"about {seconds // 60} min {seconds % 60:02d} s left"


def _best(arms: Sequence[ArmState]) -> float:
    return max((arm.best for arm in arms if not math.isnan(arm.best)), default=math.nan)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _state(arms: Sequence[ArmState]) -> str:
    """What a strategy does, or what it waits for."""
    if any(arm.status == "ERROR" for arm in arms) and all(arm.done for arm in arms):
        return "broken"
    if all(arm.done for arm in arms):
        return "done"
    running = [arm for arm in arms if arm.status == "RUNNING"]
    if not running:
        return "waits for free devices"
    return "runs" if any(arm.candidates for arm in running) else "waits for its first scores"


def _table(lines: Sequence[_Line]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("strategy", no_wrap=True)
    stopped = any(line.stopped for line in lines)
    names = ("done", "a minute", "best", "failed", *(("stopped",) if stopped else ()))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for line in lines:
        cells = [line.name, line.done, line.rate, line.best, line.failed]
        table.add_row(*cells, *([line.stopped or "0"] if stopped else []), line.state)
    return table
