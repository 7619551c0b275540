"""Gradients of the evolution strategies, from rewards of antithetic directions.

Legend and line numbers are those of `evolution.py`: K directions of which the
best b count, d entries of a vector, T tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray
from search.strategies.protocol import Outcome, Problem


def penalty(vector: FloatArray, use_dims: Sequence[int], weight: float) -> float:
    """Omega = weight * mean of the squared use entries, in units of quality.

    Args:
        vector: Shape (d,), entries in [0, 1].
        use_dims: Positions of the use entries; none of them make 0.
        weight: lambda, not negative.

    Returns:
        In [0, weight].

    Example:
        >>> penalty(np.array([1.0, 0.5, 0.3]), (0, 1), 0.8)
        0.5
    """
    use = vector[list(use_dims)]
    return weight * float(np.square(use).sum()) / max(1, len(use))


def ascent(directions_KD: FloatArray, rewards_K2: FloatArray, best: int) -> FloatArray:
    """What line 7 multiplies the learning rate with.

    Args:
        directions_KD: Directions delta, shape (K, d).
        rewards_K2: Rewards of x + nu delta and of x - nu delta, shape (K, 2).
        best: How many directions b count; all of them where there are fewer.

    Returns:
        Shape (d,); zeros where all rewards are the same, which says nothing of where to go.

    Example:
        >>> ascent(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 1.0], [2.0, 2.0]]), 1)
        array([2., 0.])
    """
    best_b = np.argsort(-rewards_K2.max(axis=1), kind="stable")[:best]  # line 6
    rewards_b2 = rewards_K2[best_b]
    if np.ptp(rewards_b2) == 0.0:
        return np.zeros(directions_KD.shape[1])
    gain_b = rewards_b2[:, 0] - rewards_b2[:, 1]
    step_D: FloatArray = gain_b @ directions_KD[best_b] / (len(best_b) * rewards_b2.std())
    return step_D  # line 7


@dataclass(frozen=True)
class GradientTerm:
    """One of the gradients that a step is made of: that of all, or of a task.

    Attributes:
        task: The task whose accuracy its reward is made of; None for quality, the mean of all.
        use_dims: The use entries whose penalty its reward contains.
        share_D: With what weight it moves every entry, shape (d,).
    """

    task: int | None
    use_dims: tuple[int, ...]
    share_D: FloatArray

    def reward(self, outcome: Outcome, weight: float) -> float:
        """Quality or accuracy less penalty; the cost that was measured plays no part."""
        score = outcome.scores()[0]
        if self.task is not None:
            assert outcome.accuracy is not None
            score = float(outcome.accuracy[self.task])
        vector = np.asarray(outcome.vector, dtype=np.float64)
        return score - penalty(vector, self.use_dims, weight)


def terms_per_task(problem: Problem) -> list[GradientTerm]:
    """A term per task, which moves the entries that concern it; shared entries by their mean.

    Raises:
        ValueError: If it is not known which tasks an entry concerns.
    """
    if not problem.concerns or not all(problem.concerns):
        raise ValueError(
            "per_task must be false where it is not known which tasks every entry concerns"
        )
    num_tasks = 1 + max(max(tasks) for tasks in problem.concerns)
    share_TD = np.zeros((num_tasks, problem.dim))
    for entry, tasks in enumerate(problem.concerns):
        share_TD[list(tasks), entry] = 1.0 / len(tasks)
    return [
        GradientTerm(task, tuple(i for i in problem.use_dims if share_D[i] > 0.0), share_D)
        for task, share_D in enumerate(share_TD)
    ]
