"""What a strategy is told of its problem, what it proposes, and what comes back.

A strategy knows nothing of Ray, MLflow or masks: it proposes points of the unit cube and learns
from their quality and cost. Legend: d entries of a vector, T tasks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Protocol

import numpy as np

from partitioning import FloatArray
from partitioning.settings import at_least, checked
from search.candidates import REFERENCE


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What is known of a task before the search.

    Attributes:
        name: The task's name.
        classes: Number of classes.
        images: Number of training images.
        teacher_accuracy: Validation accuracy of its single-task teacher, in [0, 1]; None where
            there is none.
        floor: Validation accuracy of always answering the commonest class, in [0, 1].
    """

    name: str
    classes: int
    images: int
    teacher_accuracy: float | None = None
    floor: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskKnowledge:
    """What is known of all T tasks before the search; see `Problem` for both.

    Attributes:
        tasks: Facts, in the order of the study.
        similarity: How alike the features of the tasks' teachers are, shape (T, T), or None.
    """

    tasks: tuple[TaskFacts, ...] = ()
    similarity: FloatArray | None = None

    @property
    def floor(self) -> float:
        """The quality of guessing: the mean over tasks of their floors; 0 where none are known."""
        return sum(task.floor for task in self.tasks) / max(1, len(self.tasks))


@dataclass(frozen=True, kw_only=True, eq=False)
@checked()
class Problem:
    """What a strategy may know of the search space.

    Attributes:
        dim: Number d of entries of a vector.
        names: Readable name of every entry, such as "use[cifar10]"; d of them.
        use_dims: Positions of the entries that say how much of the channels a task uses.
        seed: Seeds all of the strategy's randomness.
        baselines: Vectors of shape (d,), entries in [0, 1], by name.
        initial: How many candidates every strategy proposes first: the first random
            vectors of the seed, so that all strategies of a seed start from the same knowledge.
            The fixed baselines leave them out, and so do strategies that are set to `uniform`.
        use_steps: Into how many equal parts a use entry's range is divided, each of which means one
            use; None where every value means another.
        concerns: For every entry the tasks that it is about, by position; d of them. Empty where
            that is not known.
        tasks: What is known of the T tasks. Empty where nothing is.
        similarity: How alike the features of the tasks' teachers are, shape (T, T), symmetric,
            in [0, 1] with 1 on the diagonal. None where it is not known.
        reference: Quality and cost of the point that hypervolumes are seen from.

    Raises:
        ValueError: If the sizes disagree or a position or an entry is out of its range.
    """

    dim: Annotated[int, at_least(1)]
    names: tuple[str, ...]
    use_dims: tuple[int, ...]
    seed: Annotated[int, at_least(0)]
    baselines: Mapping[str, FloatArray]
    initial: Annotated[int, at_least(1)] = 16
    use_steps: Annotated[int | None, at_least(1)] = None
    concerns: tuple[tuple[int, ...], ...] = ()
    tasks: tuple[TaskFacts, ...] = ()
    similarity: FloatArray | None = None
    reference: tuple[float, float] = REFERENCE

    def _check(self) -> None:
        if len(self.names) != self.dim:
            raise ValueError(f"names must have dim = {self.dim} entries, got {len(self.names)}")
        if len(set(self.use_dims)) != len(self.use_dims) or any(
            not 0 <= position < self.dim for position in self.use_dims
        ):
            raise ValueError(
                f"use_dims must be different positions from 0 to {self.dim - 1}, "
                f"got {self.use_dims}"
            )
        if self.concerns and len(self.concerns) != self.dim:
            raise ValueError(
                f"concerns must have dim = {self.dim} entries, got {len(self.concerns)}"
            )
        self._keep_similarity()
        self._keep_baselines()

    def _keep_similarity(self) -> None:
        """Keeps a read-only copy of the similarity, which must be a (T, T) matrix."""
        if self.similarity is not None:
            similarity = np.array(self.similarity, dtype=np.float64)
            if similarity.shape != (len(self.tasks), len(self.tasks)):
                raise ValueError(
                    f"similarity must have shape (T, T) with T = {len(self.tasks)} tasks, got "
                    f"{similarity.shape}"
                )
            similarity.setflags(write=False)
            object.__setattr__(self, "similarity", similarity)

    def _keep_baselines(self) -> None:
        """Keeps read-only copies of the baselines, which must lie in the unit cube."""
        baselines = {}
        for name, given in self.baselines.items():
            vector = np.array(given, dtype=np.float64)
            if vector.shape != (self.dim,):
                raise ValueError(
                    f"baseline {name!r} must have shape (dim,) = ({self.dim},), got {vector.shape}"
                )
            # Written so that NaN fails, too.
            if not np.all((vector >= 0.0) & (vector <= 1.0)):
                raise ValueError(f"baseline {name!r} must lie in [0, 1], got {vector}")
            vector.setflags(write=False)
            baselines[name] = vector
        object.__setattr__(self, "baselines", MappingProxyType(baselines))


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What became of one proposal.

    Attributes:
        index: Position of the proposal in the order of asking, from 0.
        vector: The proposal, shape (d,).
        quality: To be maximised, mean validation accuracy in [0, 1], at the lowest rung; None where
            it failed.
        cost: To be minimised, relative to sharing everything; None where it failed.
        error: Why the evaluation failed, if it did.
        realisable: What of the proposal could be realised, shape (d,): the vector nearest to it
            that masks exist for. None where that is not known.
        accuracy: Validation accuracy of every task, shape (T,); None where that is not known.
    """

    index: int
    vector: FloatArray
    quality: float | None
    cost: float | None
    error: str | None = None
    realisable: FloatArray | None = None
    accuracy: FloatArray | None = None

    @property
    def failed(self) -> bool:
        """Whether there is nothing to learn from: an error, or a score missing or not finite."""
        return self.error is not None or any(
            score is None or not math.isfinite(score) for score in (self.quality, self.cost)
        )

    def scores(self) -> tuple[float, float]:
        """Quality and cost of an outcome that has not failed.

        Raises:
            ValueError: If the outcome failed.
        """
        if self.failed or self.quality is None or self.cost is None:
            raise ValueError(f"candidate {self.index} failed and has no scores: {self.error}")
        return self.quality, self.cost


class Strategy(Protocol):
    """Proposes vectors and learns from what became of them.

    Every proposal is a function of the problem, the strategy's settings and the *set* of outcomes
    told so far. So outcomes may be told in any order, vectors may be asked for in chunks of any
    size, and a strategy that is asked and told again what a record holds goes on as if it had
    never stopped. Failed outcomes are told like any other.
    """

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes at most n vectors of shape (d,), entries in [0, 1], which the caller may keep.

        Fewer, even none, means "not before more outcomes are told"; none while no outcome is
        outstanding means that the strategy has finished.
        """
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learns from outcomes of earlier proposals, each told once.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal.
        """
        ...
