"""Quasi-random search: scrambled Sobol points, which leave fewer holes than uniform ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.quasirandom import SobolEngine

from partitioning import FloatArray
from search.strategies.ledger import Ledger
from search.strategies.protocol import Outcome, Problem
from search.strategies.random_search import uniform_vectors

STREAM = 15


@dataclass(frozen=True, kw_only=True)
class SobolSettings:
    """Quasi-random search has nothing to set."""


class SobolSearch:
    """Proposes the initial batch, then a scrambled Sobol sequence (Owen 1998), and learns nothing.

    Any 2^k points from the sequence's start are spread evenly over every entry: one of them lies in
    each of 2^k equal parts of [0, 1].
    """

    def __init__(self, problem: Problem, settings: SobolSettings) -> None:
        self._settings = settings
        self._ledger = Ledger()
        self._ledger.queue(uniform_vectors(problem, 0, problem.initial))
        self._initial = problem.initial
        sequence = np.random.SeedSequence(problem.seed, spawn_key=(STREAM,))
        self._engine = SobolEngine(
            problem.dim, scramble=True, seed=int(sequence.generate_state(1)[0])
        )

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes n vectors."""
        missing = self._ledger.asked + n - self._initial - self._engine.num_generated
        if missing > 0:
            drawn = self._engine.draw(missing, dtype=torch.float64)
            self._ledger.queue(drawn.numpy())
        return self._ledger.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Checks the outcomes off.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal.
        """
        self._ledger.tell(outcomes)
        self._ledger.drain()
