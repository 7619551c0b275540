"""The fixed baselines: share all, independent, equal uses and the like, each proposed once."""

import difflib
from dataclasses import dataclass

from partitioning.settings import checked
from search.strategies.fixed_sequence import FixedSequence
from search.strategies.protocol import Problem


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


def fixed_baselines(problem: Problem, settings: BaselineSettings) -> FixedSequence:
    """Makes the strategy that proposes the problem's baselines in order, then is finished.

    Raises:
        ValueError: If the problem has no baselines, or none of a name asked for.
    """
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
    return FixedSequence(problem.baselines[name] for name in settings.names or problem.baselines)
