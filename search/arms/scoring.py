"""What an arm asks of the evaluators that score its candidates, and what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from partitioning import Masks
from search.candidates import Rung, Utilisation
from trainers.proxy import Evaluation


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What an evaluator says of one candidate: an evaluation, or why there is none.

    Attributes:
        evaluation: What was measured; None where the scoring failed.
        error: Why it failed; None where it did not.
        evaluator: Name of the evaluator; empty where it has none.
    """

    evaluation: Evaluation | None = None
    error: str | None = None
    evaluator: str = ""


class Pool(Protocol):
    """Evaluators that score cohorts at the same time."""

    #: How many there are.
    evaluators: int
    #: Cohorts that can be under way at once: two for every evaluator, one of which waits.
    slots: int

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        """Start scoring a cohort as a rung says."""
        ...

    def wait(self) -> tuple[int, list[Scored]]:
        """Block until any cohort is scored; its ticket and its results in order."""
        ...

    def utilisation(self) -> Utilisation:
        """What evaluators have done with their time so far; nothing of a pool without any."""
        ...
