"""The simulated problems by name, and what each of them offers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Protocol

from partitioning import FloatArray
from partitioning.settings import checked, one_of
from search.simulated.convex_front import FrontBounds
from search.simulated.surrogate import Surrogate
from search.simulated.synthetic import SyntheticConfig, SyntheticProblem
from search.strategies import TaskKnowledge


class Simulation(Protocol):
    """A problem whose accuracies are a function of the realised sharing matrix.

    Attributes:
        knowledge: What a strategy may know of the T tasks.
    """

    knowledge: TaskKnowledge

    def accuracy(self, P_TT: FloatArray) -> FloatArray:
        """Accuracy of every task, shape (T,), at a realised P of shape (T, T)."""
        ...

    def front(self) -> FrontBounds | None:
        """The true front of mean accuracy against mean use; None where it is not known."""
        ...


#: Makes the problem of every name from the tasks' names and the config.
PROBLEMS: dict[str, Callable[[tuple[str, ...], "SimulationConfig"], Simulation]] = {
    "synthetic": lambda tasks, config: SyntheticProblem(tasks, config.synthetic),
    "mini_decathlon": lambda tasks, config: Surrogate.shipped("mini_decathlon", tasks),
}


@dataclass(frozen=True, kw_only=True)
@checked()
class SimulationConfig:
    """What is simulated, where `evaluator` is simulated.

    Attributes:
        problem: synthetic (tasks, capacities and interference, whose true front is known) or
            mini_decathlon (a surrogate of real proxy scores of its nine tasks).
        synthetic: Which synthetic problem.
    """

    problem: Annotated[str, one_of(PROBLEMS)] = "synthetic"
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)


@lru_cache(maxsize=4)
def build_simulation(tasks: tuple[str, ...], config: SimulationConfig) -> Simulation:
    """The problem of a config; kept, since configs are checked often and fitting takes time.

    Args:
        tasks: Names of the tasks.
        config: Which problem.

    Raises:
        ValueError: The problem does not have these tasks, or not as many.
    """
    return PROBLEMS[config.problem](tasks, config)
