"""The fixed baselines: share all, independent, equal uses and the like, each proposed once."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from partitioning import FloatArray
from partitioning.settings import checked
from search.strategies.ledger import Ledger
from search.strategies.protocol import Outcome, Problem


@dataclass(frozen=True, kw_only=True)
@checked()
class BaselineSettings:
    """Which baselines to propose.

    Attributes:
        names: Names of baselines, each once, in the order in which to propose them; none means all
            that the space has.

    Raises:
        ValueError: A name is listed twice.
    """

    names: tuple[str, ...] = ()

    def _check(self) -> None:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"names must differ, but {', '.join(twice)} is listed more than once")


class FixedBaselines:
    """Proposes the problem's baselines in order, then is finished.

    Raises:
        ValueError: If the problem has no baselines, or none of a name asked for.
    """

    def __init__(self, problem: Problem, settings: BaselineSettings) -> None:
        if not problem.baselines:
            raise ValueError(
                "there is no baseline to propose in this search space: leave the strategy out"
            )
        for name in settings.names:
            if name not in problem.baselines:
                nearest = difflib.get_close_matches(name, problem.baselines, n=1, cutoff=0.0)[0]
                raise ValueError(
                    f"unknown baseline {name!r}: did you mean {nearest!r}? "
                    f"Known are {', '.join(problem.baselines)}"
                )
        self.names: tuple[str, ...] = settings.names or tuple(problem.baselines)
        self._ledger = Ledger()
        self._ledger.queue(problem.baselines[name] for name in self.names)

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes the next at most n baselines; none once all have been proposed."""
        return self._ledger.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Checks the outcomes off.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal.
        """
        self._ledger.tell(outcomes)
        self._ledger.drain()
