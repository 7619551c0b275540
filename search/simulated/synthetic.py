r"""A synthetic problem of tasks, capacities and interference, whose true front is known.

Legend: T tasks, S a set of tasks, N = 2^T of them, P the realised sharing matrix.

A channel that task t shares with task j is worth $1 + w_{tj}$ of a channel of its own to t: more
where the tasks help each other, less where they interfere. What t has at its disposal is

    $e_t = P_{tt} + \sum_{j \neq t} w_{tj} P_{tj}$

and its accuracy grows with diminishing returns from chance $a_t$ to its best $b_t$,

    $A_t = a_t + (b_t - a_t) \frac{1 - \exp(-k_t e_t)}{1 - \exp(-k_t h)}$,

where h is the most that a task can have, all channels shared with its whole cluster and none else.

Tasks belong to clusters: within one they help, across they interfere, by little enough that no
channel is ever worth less than nothing.

Masks are a distribution p of channels over the N sets of tasks that use them, so P is linear in p
and the mean accuracy is concave in p. The front of all distributions, which no number of channels
can exceed, is therefore found exactly by convex programming (see `front`).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning import FloatArray
from partitioning.settings import NOT_NEGATIVE, at_least, checked, interval
from search.simulated.convex_front import FrontBounds, concave_front
from search.strategies import TaskFacts, TaskKnowledge

#: Beyond this the sets of tasks are too many to go through one by one.
MAX_TASKS = 12


@dataclass(frozen=True, kw_only=True)
@checked()
class SyntheticConfig:
    """Which synthetic problem.

    Attributes:
        seed: Draws clusters, capacities and best accuracies.
        clusters: Number of clusters of tasks that help each other.
        interference: How much of the worst possible interference there is: at 1 a channel that all
            tasks share would be worth nothing to tasks without relatives.
        help: What sharing a channel with all others of its cluster adds to its worth.
    """

    seed: Annotated[int, at_least(0)] = 0
    clusters: Annotated[int, at_least(1)] = 3
    interference: Annotated[float, interval("[0, 1]")] = 0.9
    help: Annotated[float, NOT_NEGATIVE] = 0.4


class SyntheticProblem:
    """Tasks in clusters that help and interfere, as the module's equations have it.

    Args:
        tasks: Names of the T tasks, at most `MAX_TASKS`.
        config: Which problem.

    Attributes:
        knowledge: What a strategy may know of the tasks: facts drawn to fit the accuracies, and a
            similarity that is larger for tasks that help each other.

    Raises:
        ValueError: More tasks than `MAX_TASKS`.
    """

    def __init__(self, tasks: tuple[str, ...], config: SyntheticConfig) -> None:
        count = len(tasks)
        if count > MAX_TASKS:
            raise ValueError(
                f"the synthetic problem has at most {MAX_TASKS} tasks (its front goes through all "
                f"sets of tasks), got {count}"
            )
        rng = np.random.default_rng(config.seed)
        cluster_T = rng.permutation(np.arange(count) % config.clusters)
        related_TT = (cluster_T[:, None] == cluster_T[None, :]) & ~np.eye(count, dtype=np.bool_)
        strength_TT = rng.uniform(0.5, 1.0, (count, count))
        worst = 1.0 / max(1, count - 1)
        helps_TT = config.help * strength_TT / np.maximum(1, related_TT.sum(axis=1, keepdims=True))
        self.worth_TT = np.where(related_TT, helps_TT, -config.interference * worst * strength_TT)
        np.fill_diagonal(self.worth_TT, 1.0)
        self.rate_T = rng.uniform(2.0, 10.0, count)
        self.most_T = 1.0 + np.where(related_TT, helps_TT, 0.0).sum(axis=1)
        classes_T = rng.integers(2, 101, count)
        self.chance_T = 1.0 / classes_T
        self.best_T = rng.uniform(0.6, 1.0, count)
        span_T = 1 - np.exp(-self.rate_T * self.most_T)
        self.scale_T = (self.best_T - self.chance_T) / span_T
        facts = tuple(
            TaskFacts(
                name=name,
                classes=int(classes),
                images=2000,
                teacher_accuracy=float(best),
                floor=1.0 / int(classes),
            )
            for name, classes, best in zip(tasks, classes_T, self.best_T, strict=True)
        )
        mutual_TT = (self.worth_TT + self.worth_TT.T) / 2
        span = np.ptp(mutual_TT[~np.eye(count, dtype=np.bool_)]) if count > 1 else 0.0
        low = mutual_TT.min()
        similarity_TT = (mutual_TT - low) / (span or 1.0)
        np.fill_diagonal(similarity_TT, 1.0)
        self.knowledge = TaskKnowledge(tasks=facts, similarity=similarity_TT)

    def accuracy(self, P_TT: FloatArray) -> FloatArray:
        """Accuracy of every task, shape (T,), at a realised P of shape (T, T)."""
        effect_T = (self.worth_TT * P_TT).sum(axis=1)
        return np.asarray(self.chance_T + self.scale_T * (1 - np.exp(-self.rate_T * effect_T)))

    def front(self) -> FrontBounds:
        """Inner and outer approximation of the true front: mean accuracy against mean use."""
        count = len(self.rate_T)
        member_NT = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        # What a channel used by a set is worth to each of its tasks: e is linear in p.
        worth_NT = member_NT * (member_NT @ self.worth_TT.T)

        def quality(effect_T: FloatArray) -> tuple[float, FloatArray]:
            decay_T = np.exp(-self.rate_T * effect_T)
            value = float(np.mean(self.chance_T + self.scale_T * (1 - decay_T)))
            return value, self.scale_T * self.rate_T * decay_T / count

        return concave_front(worth_NT.astype(np.float64), member_NT.mean(axis=1), quality)
