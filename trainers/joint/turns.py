"""Whose turn it is: a curriculum that draws lagging tasks more often."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.joint.config import TrainConfig


def curriculum(accuracy_R: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """The chance of drawing each row next, from its running training accuracy.

    Args:
        accuracy_R: Running training accuracies in (0, 1], (R,).
        temperature: Above 0; large draws uniformly.

    Returns:
        Probabilities (R,).

    >>> curriculum(np.array([0.25, 0.5]), 1.0).round(3).tolist()
    [0.667, 0.333]
    """
    exponents = -np.log(accuracy_R) / temperature
    weights = np.exp(exponents - exponents.max())  # a small temperature must not overflow
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


class Turns:
    """Whose turn it is, by the curriculum.

    Args:
        classes: Of each row's task.
        config: Temperature and smoothing.
        seed: Of the draws.
    """

    def __init__(self, classes: Sequence[int], config: TrainConfig, seed: int) -> None:
        self._config = config
        self._rng = np.random.default_rng(seed)
        # A floor at chance level keeps a task that has learnt nothing from taking every batch.
        self._floor_R = 1.0 / np.array(classes)
        self._running_R = self._floor_R.copy()
        self.drawn = [0] * len(classes)

    def draw(self) -> int:
        """The row that trains next."""
        chances_R = curriculum(self._running_R, self._config.temperature)
        return int(self._rng.choice(len(chances_R), p=chances_R))

    def learn(self, row: int, accuracy: float) -> None:
        """Take in what a row reached on its batch."""
        self.drawn[row] += 1
        running = self._running_R[row]
        running += self._config.smoothing * (accuracy - running)
        self._running_R[row] = max(self._floor_R[row], running)

    def state(self) -> dict[str, Any]:
        """As JSON: what `load` goes on from."""
        return {
            "random": self._rng.bit_generator.state,
            "running": self._running_R.tolist(),
            "drawn": self.drawn,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        self._rng.bit_generator.state = state["random"]
        self._running_R = np.array(state["running"])
        self.drawn = list(state["drawn"])
