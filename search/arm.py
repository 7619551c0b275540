"""An arm: one strategy with one seed, from the first proposal to the last. Knows nothing of Ray.

The order in which an arm asks and tells depends on the strategy, the budget and the cohort size
alone, never on which evaluator was faster: outcomes are told cohort by cohort in the order of
asking. So replaying the record gives a strategy exactly the state that an uninterrupted run has.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from partitioning import Decoded, Masks, Space
from search.candidate import Candidate
from search.config import COSTS
from search.strategies import Outcome, Strategy
from trainers.proxy import Evaluation


class ReplayError(RuntimeError):
    """A recorded candidate is not the one that the strategy proposes."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What an evaluator says of one candidate: an evaluation, or why there is none."""

    evaluation: Evaluation | None = None
    error: str | None = None
    evaluator: str = ""


class Pool(Protocol):
    """Evaluators that score cohorts at the same time."""

    #: Cohorts that can be under way at once.
    slots: int

    def submit(self, ticket: int, cohort: Sequence[Masks]) -> None:
        """Start scoring a cohort."""
        ...

    def wait(self) -> tuple[int, list[Scored]]:
        """Block until any cohort is scored; its ticket and its results in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of an arm.

    Attributes:
        candidates: Candidates in all.
        cohort: Candidates handed to an evaluator at once.
    """

    candidates: int
    cohort: int


@dataclass(kw_only=True)
class _Cohort:
    """Candidates that are told together."""

    candidates: dict[int, Candidate | None]
    waiting: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class Arm:
    """A running arm.

    Attributes:
        name: The strategy's name in the study.
        seed: Its seed.
        strategy: Asked and told.
        space: Decodes vectors into masks.
        pool: Scores cohorts.
        budget: How many candidates, how many at once.
        cost: Key of `COSTS`.
        labels: Names of fixed proposals, by index (the baselines').
        record: Makes a candidate durable; called before the strategy is told.
    """

    name: str
    seed: int
    strategy: Strategy
    space: Space
    pool: Pool
    budget: Budget
    cost: str
    record: Callable[[Candidate], None]
    labels: Sequence[str] = ()

    def run(self, known: Mapping[int, Candidate], on_told: Callable[[Candidate], None]) -> None:
        """Spend the budget.

        Args:
            known: Recorded candidates by index; they are told again, not scored again.
            on_told: Called after each candidate that the strategy has been told of.

        Raises:
            ReplayError: A recorded candidate is not what the strategy proposes.
        """
        self._known = known
        self._flying: dict[int, tuple[np.ndarray, Decoded, float]] = {}
        queue: deque[_Cohort] = deque()
        asked = 0
        while True:
            while len(queue) < self.pool.slots and asked < self.budget.candidates:
                # One cohort at a time: how many are asked for must not depend on timing.
                vectors = self.strategy.ask(min(self.budget.cohort, self.budget.candidates - asked))
                if not vectors:
                    break
                queue.append(self._start(asked, vectors))
                asked += len(vectors)
            if not queue:
                return
            cohort = queue.popleft()
            while any(candidate is None for candidate in cohort.candidates.values()):
                self._receive([cohort, *queue])
            done = [candidate for candidate in cohort.candidates.values() if candidate is not None]
            self.strategy.tell([_outcome(candidate) for candidate in done])
            for candidate in done:
                on_told(candidate)

    def _start(self, first: int, vectors: Sequence[np.ndarray]) -> _Cohort:
        cohort = _Cohort(candidates={})
        masks: list[Masks] = []
        for index, vector in enumerate(vectors, start=first):
            if index in self._known:
                cohort.candidates[index] = self._replayed(index, vector)
                continue
            cohort.candidates[index] = None
            started = time.time()
            try:
                decoded = self.space.decode(vector)
            except (ValueError, RuntimeError) as error:
                failed = Scored(error=f"no masks: {error}")
                candidate = self._candidate(index, vector, None, failed, started)
                self.record(candidate)
                cohort.candidates[index] = candidate
                continue
            self._flying[index] = (vector, decoded, started)
            cohort.waiting.append(index)
            masks.append(decoded.masks)
        if masks:
            self.pool.submit(cohort.waiting[0], masks)
        return cohort

    def _replayed(self, index: int, vector: np.ndarray) -> Candidate:
        candidate = self._known[index]
        if len(candidate.vector) != len(vector) or not np.array_equal(candidate.vector, vector):
            raise ReplayError(
                f"candidate {candidate.id} in the record is not what {self.name} proposes with "
                f"seed {self.seed}: the record was made by another version or other settings; "
                "start a study under another name"
            )
        return candidate

    def _receive(self, cohorts: Sequence[_Cohort]) -> None:
        ticket, results = self.pool.wait()
        cohort = next(c for c in cohorts if c.waiting and c.waiting[0] == ticket)
        for index, scored in zip(cohort.waiting, results, strict=True):
            vector, decoded, started = self._flying.pop(index)
            candidate = self._candidate(index, vector, decoded, scored, started)
            self.record(candidate)
            cohort.candidates[index] = candidate
        cohort.waiting.clear()

    def _candidate(
        self,
        index: int,
        vector: np.ndarray,
        decoded: Decoded | None,
        scored: Scored,
        started: float,
    ) -> Candidate:
        evaluation = scored.evaluation
        attribute = COSTS[self.cost].attribute
        cost = None if evaluation is None else getattr(evaluation.costs, attribute)
        details: dict[str, Any] = {"evaluator": scored.evaluator}
        if index < len(self.labels):
            details["label"] = self.labels[index]
        if decoded is not None:
            details |= _decoding(decoded)
        if evaluation is not None:
            details |= {
                "accuracy": dict(evaluation.accuracy),
                "distillation_loss": dict(evaluation.distillation_loss),
                "costs": asdict(evaluation.costs),
                "seconds": evaluation.seconds,
            }
        return Candidate(
            strategy=self.name,
            seed=self.seed,
            index=index,
            vector=tuple(map(float, vector)),
            names=tuple(self.space.names()),
            quality=None if evaluation is None else evaluation.quality,
            cost=cost,
            error=scored.error,
            evaluation=details,
            started=started,
            finished=time.time(),
        )


def _outcome(candidate: Candidate) -> Outcome:
    realisable = candidate.evaluation.get("realisable")
    return Outcome(
        index=candidate.index,
        vector=np.array(candidate.vector),
        quality=candidate.quality,
        cost=candidate.cost,
        error=candidate.error,
        realisable=None if realisable is None else np.array(realisable),
    )


def _decoding(decoded: Decoded) -> dict[str, Any]:
    """What the record keeps of the step from P to masks, by channel group."""
    return {
        "masks": decoded.masks.to_dict(),
        "target": {k: _rounded(target) for k, target in decoded.target.items()},
        "realised": {
            g.name: _rounded(decoded.masks.realised(g.name)) for g in decoded.masks.groups
        },
        "deviation": {name: s.deviation for name, s in decoded.solutions.items()},
        "bound": {name: s.bound for name, s in decoded.solutions.items()},
        "realisable": None if decoded.realisable is None else decoded.realisable.tolist(),
        "proven": all(s.proven for s in decoded.solutions.values()),
    }


def _rounded(matrix: np.ndarray) -> list[list[float]]:
    return [[round(float(entry), 6) for entry in row] for row in matrix]
