"""A strategy that is settled from the start: vectors in a given order, whatever becomes of them."""

from collections.abc import Iterable, Sequence
from itertools import islice

from partitioning import FloatArray
from search.strategies.ledger import Ledger
from search.strategies.protocol import Outcome


class FixedSequence:
    """Proposes vectors in the order given, waits for nothing and learns nothing.

    Args:
        vectors: Each of shape (d,), entries in [0, 1]; endless, or else it finishes with the last.
            They are drawn as they are asked for.
    """

    def __init__(self, vectors: Iterable[FloatArray]) -> None:
        self._vectors = iter(vectors)
        self._ledger = Ledger()

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes the next n vectors, fewer once there are no more.

        Raises:
            ValueError: If n is negative.
        """
        self._ledger.queue(islice(self._vectors, max(0, n)))
        return self._ledger.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Checks the outcomes off.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal.
        """
        self._ledger.tell(outcomes)
        self._ledger.drain()
