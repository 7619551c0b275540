"""Local refinement: small steps from the front, where it has most room.

Members of the front are perturbed in a few entries at a time. A parent is the one of two random
members that has more room to itself on the front (crowding distance, Deb et al. 2002, III-B), so
that gaps are filled and the ends move outwards. Every candidate has a step size: a child that makes
it onto the front takes its parent's on, grown; one that does not shrinks its parent's. So steps
shrink where nothing is gained any more, and stay long where something is (the success rule of
evolution strategies, Rechenberg 1973, per member).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning import FloatArray
from partitioning.settings import FINITE, POSITIVE, Unit, at_least, at_most, checked, interval
from search.candidates import crowding, non_dominated
from search.strategies.batches import next_index
from search.strategies.coordinates import random_vectors
from search.strategies.protocol import Outcome, Problem
from search.strategies.streams import Stream, generator


@dataclass(frozen=True, kw_only=True)
@checked()
class LocalRefinementSettings:
    """Settings of local refinement.

    Attributes:
        step_size: Initial standard deviation of a step, as a share of an entry's range. Step sizes
            do not outgrow it.
        smallest: Step sizes do not shrink below this.
        grow: What a success multiplies a step size with.
        shrink: What a failure multiplies it with.
        entries: How many entries a step moves on average; at least one is moved.
        batch: Candidates per batch.

    Raises:
        ValueError: A value is outside its range.
    """

    step_size: Annotated[float, POSITIVE] = 0.3
    smallest: Annotated[float, POSITIVE, at_most("step_size")] = 0.02
    grow: Annotated[float, at_least(1), FINITE] = 1.5
    shrink: Annotated[float, interval("(0, 1]")] = 0.85
    entries: Annotated[float, POSITIVE] = 6.0
    batch: Annotated[int, at_least(1), Unit("candidates")] = 8


@dataclass(kw_only=True, eq=False)
class Member:
    """A candidate on the front.

    Attributes:
        vector: Shape (d,).
        quality: To be maximised.
        cost: To be minimised.
        step_size: Standard deviation of the next step from here.
    """

    vector: FloatArray
    quality: float
    cost: float
    step_size: float


class LocalRefinement:
    """Steps from the front of all outcomes so far, which it learns in batches.

    A failed candidate counts as a step that gained nothing; while all have failed, random vectors
    are drawn.
    """

    def __init__(self, problem: Problem, settings: LocalRefinementSettings) -> None:
        self._problem = problem
        self._settings = settings
        self._number = 0
        self._front: list[Member] = []
        #: Parents of the batch that is out; none of random vectors.
        self._parents: list[Member] = []

    @property
    def step_sizes(self) -> list[float]:
        """Step sizes of the members of the front."""
        return [member.step_size for member in self._front]

    def learn(self, batch: list[Outcome]) -> list[FloatArray]:
        """Renews the front and its step sizes by the batch, and steps from there."""
        self._renew(batch)
        self._parents = []
        if not self._front:
            return random_vectors(self._problem, next_index(batch), self._settings.batch)
        return self._steps()

    def _renew(self, batch: list[Outcome]) -> None:
        """The front with the batch's outcomes, and step sizes by what became of them."""
        settings = self._settings
        step_sizes = [parent.step_size for parent in self._parents] or [settings.step_size] * len(
            batch
        )
        children: list[Member | None] = []
        for outcome, step_size in zip(batch, step_sizes, strict=True):
            if outcome.failed:
                children.append(None)
                continue
            quality, cost = outcome.scores()
            grown = min(settings.step_size, step_size * settings.grow)
            vector = np.array(outcome.vector, dtype=np.float64)
            children.append(Member(vector=vector, quality=quality, cost=cost, step_size=grown))
        pool = self._front + [child for child in children if child is not None]
        on_front = non_dominated([m.quality for m in pool], [m.cost for m in pool])
        self._front = [member for member, on in zip(pool, on_front, strict=True) if on]
        for parent, child in zip(self._parents, children, strict=False):  # none of random vectors
            if child not in self._front:
                parent.step_size = max(settings.smallest, parent.step_size * settings.shrink)

    def _steps(self) -> list[FloatArray]:
        settings = self._settings
        rng = generator(self._problem.seed, Stream.LOCAL_REFINEMENT, self._number)
        self._number += 1
        room_F = crowding([m.quality for m in self._front], [m.cost for m in self._front])
        dim = self._problem.dim
        children = []
        for _ in range(settings.batch):
            first, second = rng.integers(len(self._front), size=2)
            parent = self._front[first if room_F[first] >= room_F[second] else second]
            moved = rng.random(dim) < settings.entries / dim
            moved[rng.integers(dim)] = True
            step = parent.step_size * rng.standard_normal(dim) * moved
            self._parents.append(parent)
            children.append(np.clip(parent.vector + step, 0.0, 1.0))
        return children
