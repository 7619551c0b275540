"""Surrogates: against the formula, and the one that is shipped."""

from importlib.resources import files

import numpy as np
import pytest

from partitioning import FloatArray
from search.config import load_config
from search.simulated.surrogate import Kernel, Surrogate, read_table
from search.strategies import TaskKnowledge


def test_a_surrogate_is_the_posterior_mean() -> None:
    """Against the formula (Rasmussen and Williams 2006, eq. 2.23) in plain loops."""
    rng = np.random.default_rng(0)
    points_NE, accuracy_NT = rng.random((7, 3)), rng.random((7, 2))
    kernels = tuple(
        Kernel(mean=0.4 + t, scale=0.3, noise=0.05, lengths=(0.5, 1.0 + t, 2.0, 3.0))
        for t in range(2)
    )
    surrogate = Surrogate(TaskKnowledge(), points_NE, accuracy_NT, kernels)
    P_TT = np.array([[0.5, 0.2], [0.2, 0.7]])
    new_E = np.array([0.5, 0.7, 0.2])

    def covariance(kernel: Kernel, task: int, one: FloatArray, other: FloatArray) -> float:
        own, others, shared = (task, 1 - task, 2)
        squared = 0.0
        for position, length in ((own, 0), (others, 2), (shared, 1)):
            difference = np.sqrt(one[position]) - np.sqrt(other[position])
            squared += (difference / kernel.lengths[length]) ** 2
        r = np.sqrt(5 * squared)
        return float(kernel.scale**2 * (1 + r + r**2 / 3) * np.exp(-r))

    for t, kernel in enumerate(kernels):
        K = np.array([[covariance(kernel, t, a, b) for b in points_NE] for a in points_NE])
        k = np.array([covariance(kernel, t, new_E, a) for a in points_NE])
        weights = np.linalg.solve(K + kernel.noise**2 * np.eye(7), accuracy_NT[:, t] - kernel.mean)
        expected = np.clip(kernel.mean + k @ weights, 0, 1)
        assert surrogate.accuracy(P_TT)[t] == pytest.approx(expected, abs=1e-9)


def test_the_shipped_surrogate_knows_the_points_it_was_made_of() -> None:
    config = load_config("configs/compare_surrogate.yaml")
    names = tuple(task.name for task in config.tasks)
    surrogate = Surrogate.shipped("mini_decathlon", names)
    text = (files("search.simulated") / "tables" / "mini_decathlon.csv").read_text()
    points_NE, accuracy_NT = read_table(text)
    assert len(points_NE) >= 600
    predicted_NT = np.array([surrogate.at(point_E) for point_E in points_NE])
    # It smooths the noise of single trainings away: cross-validated errors are .016 to .027.
    error_T = np.sqrt(np.square(predicted_NT - accuracy_NT).mean(axis=0))
    assert (error_T < 0.03).all()
    assert np.corrcoef(predicted_NT.mean(axis=1), accuracy_NT.mean(axis=1))[0, 1] > 0.98
    # More channels for all, shared by all, are better for the mean.
    qualities = [surrogate.accuracy(np.full((9, 9), use)).mean() for use in (0.1, 0.3, 0.9)]
    assert qualities == sorted(qualities)
    with pytest.raises(ValueError, match="is of the tasks cifar10, gtsrb"):
        Surrogate.shipped("mini_decathlon", names[::-1])
