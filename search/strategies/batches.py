"""Strategies that learn from whole batches: asking and telling once, for all of them.

What is particular to a strategy is a `BatchLearner`, which never sees a part of a batch. So when
outcomes arrive, and in what order, plays no part in what it learns.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from partitioning import FloatArray
from search.strategies.coordinates import Coordinates
from search.strategies.ledger import Ledger
from search.strategies.protocol import Outcome, Problem


class BatchLearner(Protocol):
    """Turns what became of a batch into the next one."""

    def learn(self, batch: list[Outcome]) -> Iterable[FloatArray]:
        """Learns from a batch and proposes the next.

        Args:
            batch: Outcomes of all vectors of the last batch, failed ones too, in the order of
                asking; the first batch is the problem's initial one. Never empty.

        Returns:
            The vectors of the next batch, at least one, each of shape (d,), entries in [0, 1].
        """
        ...


Learner = TypeVar("Learner", bound=BatchLearner)


class Batches(Generic[Learner]):
    """A strategy of batches, or generations: each is proposed, awaited and learnt from as a whole.

    `ask` returns nothing while outcomes of a batch are outstanding. The first batch is the initial
    one that all strategies share. A batch is learnt from when the next is asked for, so that
    nothing is computed for the last.

    Args:
        problem: What to search.
        learner: Makes a batch from the outcomes of the one before.
        coordinates: Draw the first batch; None are those that all strategies share.
        check: Refuses an outcome that the learner could not make use of, by a ValueError.
    """

    def __init__(
        self,
        problem: Problem,
        learner: Learner,
        *,
        coordinates: Coordinates | None = None,
        check: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._learner = learner
        self._check = check
        self._ledger = Ledger()
        first = coordinates or Coordinates(problem=problem)
        self._ledger.queue(first.vectors(0, problem.initial))

    @property
    def learner(self) -> Learner:
        """The learner given; it has learnt from every batch that is complete."""
        self._learn()
        return self._learner

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes the next at most n vectors of the batch; none while it is outstanding.

        Raises:
            ValueError: If n is negative.
        """
        if n > 0:
            self._learn()
        return self._ledger.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in outcomes.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal, or is refused; then none
                is taken in.
        """
        for outcome in outcomes:
            self._check(outcome)
        self._ledger.tell(outcomes)

    def _learn(self) -> None:
        if self._ledger.complete:
            self._ledger.queue(self._learner.learn(self._ledger.drain()))


def next_index(batch: Sequence[Outcome]) -> int:
    """Index of the first candidate after a batch."""
    return batch[-1].index + 1
