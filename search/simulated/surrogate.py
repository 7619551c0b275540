r"""A surrogate of real proxy scores: Gaussian processes over the realised sharing matrix.

Legend: T tasks, E = T (T + 1) / 2 free entries of P, N scored points.

The accuracy of task t is a Gaussian process with a constant mean and a Matern kernel of smoothness
5/2 (Rasmussen and Williams 2006, eq. 4.17) over the entries of P. Four lengths, fitted for each
task by its marginal likelihood (eq. 5.8), say how far accuracy depends on an entry: the task's own
use, what it shares with others, what others use, and what others share. Uses and overlaps enter by
their square roots, since the first channels matter most. What is predicted is the posterior mean,
without the noise of a training.
"""

import csv
import io
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Self

import numpy as np
import torch

from partitioning import FloatArray, entry_tasks, matrix_to_vector
from search.strategies import TaskFacts, TaskKnowledge, entry_kinds, matern


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """The fitted process of one task.

    Attributes:
        mean: Of accuracies, before anything is observed.
        scale: Standard deviation of what is to be explained.
        noise: Standard deviation of one score around it.
        lengths: Of own use, own overlaps, others' uses and others' overlaps, after the square root,
            in the order of the numbers that `entry_kinds` has for them.
    """

    mean: float
    scale: float
    noise: float
    lengths: tuple[float, float, float, float]


def correlation(left_ME: FloatArray, right_NE: FloatArray) -> FloatArray:
    """Correlations, shape (M, N), of points whose entries are in units of their lengths."""
    squared_MN = (
        np.square(left_ME).sum(axis=1)[:, None]
        + np.square(right_NE).sum(axis=1)
        - 2 * left_ME @ right_NE.T
    )
    return matern(torch.from_numpy(squared_MN)).numpy()


class Surrogate:
    """Predicts accuracies from points that were scored.

    Args:
        knowledge: What a strategy may know of the T tasks.
        points_NE: Realised P of the points, laid out as by `matrix_to_vector`.
        accuracy_NT: Their accuracies.
        kernels: One per task.
    """

    def __init__(
        self,
        knowledge: TaskKnowledge,
        points_NE: FloatArray,
        accuracy_NT: FloatArray,
        kernels: tuple[Kernel, ...],
    ) -> None:
        self.knowledge = knowledge
        num_tasks = len(kernels)
        kinds_TE = entry_kinds(entry_tasks(num_tasks), range(num_tasks), num_tasks)
        self._lengths_TE = np.array(
            [np.array(k.lengths)[kinds_E] for k, kinds_E in zip(kernels, kinds_TE, strict=True)]
        )
        self._mean_T = np.array([kernel.mean for kernel in kernels])
        self._points = [np.sqrt(points_NE) / lengths_E for lengths_E in self._lengths_TE]
        self._weights = []
        for t, kernel in enumerate(kernels):
            covariance_NN = kernel.scale**2 * correlation(self._points[t], self._points[t])
            covariance_NN += kernel.noise**2 * np.eye(len(points_NE))
            centred_N = accuracy_NT[:, t] - kernel.mean
            self._weights.append(kernel.scale**2 * np.linalg.solve(covariance_NN, centred_N))

    @classmethod
    def shipped(cls, name: str, tasks: tuple[str, ...]) -> Self:
        """One of the tables that come with the project.

        Args:
            name: Of the table, such as "mini_decathlon".
            tasks: The study's tasks, which must be those of the table, in its order.

        Raises:
            ValueError: Other tasks.
        """
        folder = files("search.simulated") / "tables"
        fitted = json.loads((folder / f"{name}.json").read_text())
        knowledge = TaskKnowledge(
            tasks=tuple(TaskFacts(**task) for task in fitted["tasks"]),
            similarity=np.array(fitted["similarity"]),
        )
        names = tuple(task.name for task in knowledge.tasks)
        if tasks != names:
            raise ValueError(
                f"the surrogate {name} is of the tasks {', '.join(names)}, in this order; got "
                f"{', '.join(tasks)}"
            )
        points_NE, accuracy_NT = read_table((folder / f"{name}.csv").read_text())
        kernels = tuple(
            Kernel(**{**kernel, "lengths": tuple(kernel["lengths"])})
            for kernel in fitted["kernels"]
        )
        return cls(knowledge, points_NE, accuracy_NT, kernels)

    def accuracy(self, P_TT: FloatArray) -> FloatArray:
        """Accuracy of every task, shape (T,), in [0, 1], at a realised P of shape (T, T)."""
        return self.at(matrix_to_vector(P_TT))

    def at(self, P_E: FloatArray) -> FloatArray:
        """The same, shape (T,), at a P that is laid out as by `matrix_to_vector`, shape (E,)."""
        point_E = np.sqrt(P_E)
        predicted_T = self._mean_T + np.array(
            [
                float((correlation((point_E / lengths_E)[None], points_NE) @ weights_N)[0])
                for lengths_E, points_NE, weights_N in zip(
                    self._lengths_TE, self._points, self._weights, strict=True
                )
            ]
        )
        return np.asarray(np.clip(predicted_T, 0.0, 1.0))

    def front(self) -> None:
        """The true front of a surrogate is not known, so there is none to return."""
        return


def read_table(text: str) -> tuple[FloatArray, FloatArray]:
    """Realised P (N, E) and accuracies (N, T) of the points of a table (CSV), by its columns."""
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = list(rows[0])
    accuracy = [name for name in columns if name.startswith("accuracy[")]
    entries = [name for name in columns if name.startswith(("use[", "overlap["))]

    def values(names: list[str]) -> FloatArray:
        return np.array([[float(row[name]) for name in names] for row in rows])

    return values(entries), values(accuracy)
