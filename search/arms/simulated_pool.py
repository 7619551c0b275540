"""Scores candidates by a simulated problem, in the arm's own process."""

import os
import socket
from collections import deque
from collections.abc import Sequence

from partitioning import Masks
from search.arms.scoring import Scored
from search.candidates import Rung, Utilisation
from search.config import StudyConfig
from trainers.cost import costs
from trainers.proxy import Evaluation


class SimulatedPool:
    """Scores cohorts at once: an actor would take longer to reach than the scoring takes.

    A simulated device-second is what a candidate that shares all channels takes; others take as
    much less as they need fewer multiply-accumulates.

    Args:
        config: The study, of one virtual network per task.
    """

    evaluators = 1
    #: Nothing is under way while the arm goes on, so there is nothing to be ahead of.
    slots = 1

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._simulation = config.simulated
        self._classes = [facts.classes for facts in self._simulation.knowledge.tasks]
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._scored: deque[tuple[int, list[Scored]]] = deque()

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        """Score a cohort."""
        self._scored.append((ticket, [self._score(masks) for masks in cohort]))

    def wait(self) -> tuple[int, list[Scored]]:
        """The cohort that was submitted first; its ticket and its results in order."""
        return self._scored.popleft()

    def utilisation(self) -> Utilisation:
        """Nothing: it has no evaluators of its own."""
        return {}

    def _score(self, masks: Masks) -> Scored:
        accuracy_T = self._simulation.accuracy(masks.mean_realised())
        names = [str(network) for network in masks.networks]
        config = self._config
        counted = costs(config.network, masks, self._classes)
        evaluation = Evaluation(
            accuracy=dict(zip(names, accuracy_T.tolist(), strict=True)),
            distillation_loss={},
            costs=counted,
            seconds=counted.relative_macs,
        )
        return Scored(evaluation=evaluation, evaluator=self._name)
