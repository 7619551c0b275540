"""The book every strategy keeps: what it proposed, what is outstanding, what it was told."""

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from partitioning import FloatArray
from search.strategies.protocol import Outcome

# A record keeps float64 exactly; anything further off than this is another proposal.
SAME_VECTOR = 1e-9


class Ledger:
    """Hands out queued vectors in order and gathers their outcomes, in whatever order they come.

    Example:
        >>> ledger = Ledger()
        >>> ledger.queue([np.zeros(2), np.ones(2)])
        >>> first, second = ledger.ask(10)
        >>> ledger.tell([Outcome(index=1, vector=second, quality=0.5, cost=0.1)])
        >>> ledger.complete
        False
        >>> ledger.tell([Outcome(index=0, vector=first, quality=None, cost=None, error="lost")])
        >>> ledger.complete, [outcome.index for outcome in ledger.drain()]
        (True, [0, 1])
    """

    def __init__(self) -> None:
        self._queued: deque[FloatArray] = deque()
        self._outstanding: dict[int, FloatArray] = {}
        self._told: dict[int, Outcome] = {}
        self._asked = 0

    @property
    def complete(self) -> bool:
        """Whether every queued vector has been asked for and its outcome told."""
        return not self._queued and not self._outstanding

    @property
    def asked(self) -> int:
        """Number of vectors handed out so far, which is the next one's index."""
        return self._asked

    def queue(self, vectors: Iterable[FloatArray]) -> None:
        """Adds vectors, each of shape (d,), to be handed out after those already queued."""
        self._queued.extend(np.array(vector, dtype=np.float64) for vector in vectors)

    def ask(self, n: int) -> list[FloatArray]:
        """Hands out copies of the next at most n queued vectors.

        Raises:
            ValueError: If n is negative.
        """
        if n < 0:
            raise ValueError(f"the number of vectors asked for must not be negative, got {n}")
        vectors = [self._queued.popleft() for _ in range(min(n, len(self._queued)))]
        for vector in vectors:
            self._outstanding[self._asked] = vector
            self._asked += 1
        return [vector.copy() for vector in vectors]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in outcomes: all of them, or none where one is refused.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal, comes twice, or carries
                another vector than was proposed.
        """
        seen: set[int] = set()
        for outcome in outcomes:
            if outcome.index not in self._outstanding or outcome.index in seen:
                raise ValueError(
                    f"candidate {outcome.index} is not outstanding: an outcome must be told once, "
                    f"of one of the {self._asked} candidates asked for so far"
                )
            seen.add(outcome.index)
            proposed = self._outstanding[outcome.index]
            given = np.asarray(outcome.vector, dtype=np.float64)
            if given.shape != proposed.shape or not np.allclose(
                given, proposed, rtol=0.0, atol=SAME_VECTOR
            ):
                raise ValueError(
                    f"candidate {outcome.index} was proposed as {proposed}, but its outcome is of "
                    f"{given}: resume with the settings, the seed and the library versions that "
                    "the record was made with, or start a new study"
                )
        for outcome in outcomes:
            del self._outstanding[outcome.index]
            self._told[outcome.index] = outcome

    def drain(self) -> list[Outcome]:
        """Returns what was told since the last time, in the order of asking, and forgets it."""
        told = [self._told[index] for index in sorted(self._told)]
        self._told.clear()
        return told
