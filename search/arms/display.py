"""The search's progress: a live table on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

#: Seconds between two plain lines.
PLAIN_EVERY = 15.0


@dataclass(frozen=True, kw_only=True)
class ArmState:
    """How far an arm is.

    Attributes:
        name: `<strategy>-<seed>`.
        status: Tune's word: PENDING, RUNNING, TERMINATED, ERROR.
        candidates: Candidates told.
        budget: Candidates in all; for the baselines as many as there are.
        failed: Candidates without a score.
        stopped: Candidates that were not scored beyond a lower rung.
        best: Best quality; NaN before the first.
        hypervolume: Of the arm's own front.
        busy: Share of their time that its evaluators score; NaN where it has none of its own.
    """

    name: str
    status: str
    candidates: int
    budget: int
    failed: int
    stopped: int
    best: float
    hypervolume: float
    busy: float

    @property
    def done(self) -> bool:
        """Whether the arm has ended."""
        return self.status in ("TERMINATED", "ERROR")


class Display:
    """Shows the states of all arms.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last = float("-inf")
        self._first: tuple[float, int] | None = None

    def say(self, line: str) -> None:
        """Print one line, above the table if there is one."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def show(self, arms: Sequence[ArmState], *, done: bool = False) -> None:
        """Show the arms; on a terminal in place, elsewhere a line now and then."""
        now = time.monotonic()
        told = sum(arm.candidates for arm in arms)
        if self._first is None:
            self._first = (now, told)
        left = self._left(now, arms)
        if self._live is not None:
            if not self._live.is_started and not done:
                self._live.start()
            self._live.update(_table(arms, left), refresh=True)
        elif told and (done or now - self._last >= PLAIN_EVERY):
            self._last = now
            parts = [
                f"{a.name} {a.candidates}/{a.budget} best {a.best:.3f} hv {a.hypervolume:.3f}"
                for a in arms
                if a.candidates
            ]
            self.say(f"{told} candidates, {left} | " + " | ".join(parts))
        if done:
            self.close()

    def close(self) -> None:
        """Leave the last table standing and give the terminal back."""
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def _left(self, now: float, arms: Sequence[ArmState]) -> str:
        assert self._first is not None
        started, before = self._first
        fresh = sum(arm.candidates for arm in arms) - before
        missing = sum(arm.budget - arm.candidates for arm in arms if not arm.done)
        if not missing:
            return "done"
        if fresh <= 0:
            return "time left unknown"
        seconds = round((now - started) / fresh * missing)
        return f"about {seconds // 60} min {seconds % 60:02d} s left"


def _table(arms: Sequence[ArmState], left: str) -> Table:
    table = Table(title=f"search: {left}", title_justify="left")
    table.add_column("strategy-seed")
    table.add_column("state")
    for name in ("candidates", "failed", "stopped", "best quality", "hypervolume", "busy"):
        table.add_column(name, justify="right")
    for arm in arms:
        table.add_row(
            arm.name,
            {"TERMINATED": "done", "ERROR": "broken"}.get(arm.status, arm.status.lower()),
            f"{arm.candidates}/{arm.budget}",
            str(arm.failed),
            str(arm.stopped),
            f"{arm.best:.3f}",
            f"{arm.hypervolume:.4f}",
            "" if math.isnan(arm.busy) else f"{arm.busy:.0%}",
        )
    return table
