"""When to keep what is under way, so that keeping it costs little."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

#: What is under way is kept no more often than after so many times what that took.
AT_MOST = 20


class Pace:
    """When it is time to keep what is under way.

    Args:
        every: Seconds after which it is; 0 keeps every step. Where keeping it takes long it is kept
            less often.
    """

    def __init__(self, every: float) -> None:
        self._every, self._took = every, 0.0
        self._kept = time.perf_counter()

    def due(self) -> bool:
        """Whether it is time."""
        wait = max(self._every, AT_MOST * self._took) if self._every else 0.0
        return time.perf_counter() - self._kept >= wait

    @contextmanager
    def kept(self) -> Iterator[None]:
        """It is kept within."""
        begun = time.perf_counter()
        yield
        self._kept = time.perf_counter()
        self._took = self._kept - begun
