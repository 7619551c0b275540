"""What an arm does when, and so why its evaluators are idle at that moment."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Changes of what an arm does that are kept, for evaluators that have been idle since then.
KEPT = 10_000


class Clock:
    """Knows what an arm did at any moment, in the words of `search.candidates.IDLE`.

    Args:
        now: The seconds of a clock that does not go back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._changes: deque[tuple[float, str]] = deque([(now(), "arm")], maxlen=KEPT)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """While this lasts, whoever is idle is idle because the arm does this."""
        before = self._changes[-1][1]
        self._changes.append((self._now(), what))
        try:
            yield
        finally:
            self._changes.append((self._now(), before))

    def split(self, since: float, until: float) -> dict[str, float]:
        """Seconds that the arm spent on what, between two times."""
        found: dict[str, float] = {}
        for changed, what in reversed(self._changes):
            if changed < until:
                begin = max(changed, since)
                found[what] = found.get(what, 0.0) + max(0.0, until - begin)
                until = begin
            if changed <= since:
                break
        return found
