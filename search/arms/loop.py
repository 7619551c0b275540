"""An arm: one strategy with one seed, from the first proposal to the last. Knows nothing of Ray.

Candidates that follow each other in the order of asking form a bracket. A bracket is scored rung by
rung (`search/candidates/rungs.py`); those that are stopped, or fail, keep the score of the highest
rung that they reached. Without lower rungs nothing is compared, and a bracket is a cohort.

The order in which an arm asks and tells depends on the strategy, the budget and the sizes of
brackets and cohorts alone, never on which evaluator was faster: outcomes are told bracket by
bracket in the order of asking. So replaying the record gives a strategy exactly the state that an
uninterrupted run has.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from partitioning import Decoded, Masks, Space, VirtualNetwork
from search.candidates import Candidate, Rung, promoted
from search.config import COSTS
from search.strategies import Outcome, Strategy
from trainers.proxy import Evaluation

#: Why a record may be refused, and what to do.
OTHER_RECORD = (
    "the record was made by another version or other settings; start a study under another name"
)


class ReplayError(RuntimeError):
    """The record is not what this arm does: other proposals, or other candidates went on."""


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

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        """Start scoring a cohort as a rung says."""
        ...

    def wait(self) -> tuple[int, list[Scored]]:
        """Block until any cohort is scored; its ticket and its results in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of an arm.

    Attributes:
        candidates: Candidates in all, at most.
        seconds: Device-seconds, see `Candidate.seconds`, after which nothing more is asked for;
            what is under way by then is finished.
        cohort: Candidates handed to an evaluator at once.
        bracket: Candidates that are compared with each other, where there are lower rungs; no
            fewer than a cohort, which brackets would otherwise cut short.
    """

    candidates: int
    cohort: int
    bracket: int = 16
    seconds: float = float("inf")


@dataclass(kw_only=True)
class _Bracket:
    """Candidates that are compared with each other and told together.

    Attributes:
        candidates: By index, with what is known of them so far.
        climbing: Those that are scored at the present rung.
        rung: The present rung.
        closed: Whether no candidate will join.
        finished: Whether all have the score that the strategy is told.
    """

    candidates: dict[int, Candidate] = field(default_factory=dict)
    climbing: list[int] = field(default_factory=list)
    rung: int = 0
    closed: bool = False
    finished: bool = False


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
        ladder: The rungs; the last is the final scoring.
        cost: Key of `COSTS`.
        record: Makes a candidate durable; called before the strategy is told.
        keep: Makes durable what lower rungs said of a candidate that is still under way.
        labels: Names of fixed proposals, by index (the baselines').
        realisable: Look for what of a proposal could be realised, since the strategy reads it.
    """

    name: str
    seed: int
    strategy: Strategy
    space: Space
    pool: Pool
    budget: Budget
    ladder: Sequence[Rung]
    cost: str
    record: Callable[[Candidate], None]
    keep: Callable[[Candidate], None]
    labels: Sequence[str] = ()
    realisable: bool = False

    def run(
        self,
        known: Mapping[int, Candidate],
        on_told: Callable[[Candidate], None],
        begun: Mapping[int, Candidate] | None = None,
    ) -> None:
        """Spend the budget.

        Args:
            known: Recorded candidates by index; they are told again, not scored again.
            on_told: Called after each candidate that the strategy has been told of.
            begun: Candidates that were under way, by index; they go on from the rung they reached.

        Raises:
            ReplayError: A recorded candidate is not what the strategy proposes, or went further or
                less far than the scores of its bracket say.
        """
        self._known, self._begun = known, begun or {}
        self._brackets: deque[_Bracket] = deque()
        self._asked = 0
        self._spent = 0.0
        #: Cohorts that wait for the pool and that it has, by the index of their first candidate.
        self._waiting: dict[int, tuple[_Bracket, list[int]]] = {}
        self._flying: dict[int, tuple[_Bracket, list[int]]] = {}
        self._ask()
        while self._brackets:
            if not self._brackets[0].finished:
                self._receive()
                continue
            done = list(self._brackets.popleft().candidates.values())
            self.strategy.tell([_outcome(candidate) for candidate in done])
            for candidate in done:
                self._spent += candidate.seconds
                on_told(candidate)
            # Only now: what is asked for must not depend on timing.
            self._ask()

    def _ask(self) -> None:
        """Fill brackets, as many as keep the evaluators busy, as far as the strategy goes."""
        halving = len(self.ladder) > 1
        size = max(self.budget.bracket if halving else 1, self.budget.cohort)
        # Two at least, so that there is something to do while few are left in the first.
        ahead = max(2, -(-self.pool.slots * self.budget.cohort // size))
        while self._asked < self.budget.candidates:
            if self._spent >= self.budget.seconds:
                self._close_last()
                return
            if not self._brackets or self._brackets[-1].closed:
                if len(self._brackets) >= ahead:
                    return
                self._brackets.append(_Bracket())
            bracket = self._brackets[-1]
            room = min(size - len(bracket.candidates), self.budget.candidates - self._asked)
            vectors = self.strategy.ask(room)
            for start in range(0, len(vectors), self.budget.cohort):
                self._start(bracket, vectors[start : start + self.budget.cohort])
            if len(vectors) == room:
                self._close(bracket)
                continue
            # The strategy waits for outcomes. Those of earlier brackets may bring more candidates
            # into this one; where there are none, it has to do with those that it has.
            if len(self._brackets) == 1:
                self._close_last()
            return

    def _close_last(self) -> None:
        """Let no candidate join the last bracket; without any there is none."""
        if self._brackets and not self._brackets[-1].candidates:
            self._brackets.pop()
        elif self._brackets and not self._brackets[-1].closed:
            self._close(self._brackets[-1])

    def _close(self, bracket: _Bracket) -> None:
        bracket.closed = True
        self._climb(bracket)

    def _start(self, bracket: _Bracket, vectors: Sequence[np.ndarray]) -> None:
        """Take new candidates into a bracket and have them scored at the lowest rung."""
        joined = range(self._asked, self._asked + len(vectors))
        self._asked += len(vectors)
        for index, vector in zip(joined, vectors, strict=True):
            before = self._known.get(index) or self._begun.get(index)
            if before is not None:
                bracket.candidates[index] = self._replayed(before, vector)
                continue
            bracket.candidates[index] = self._proposed(index, vector)
            if _broken(bracket.candidates[index]):
                self._finish(bracket, index, final=False)
        bracket.climbing += joined
        self._queue(bracket, joined)

    def _replayed(self, candidate: Candidate, vector: np.ndarray) -> Candidate:
        if len(candidate.vector) != len(vector) or not np.array_equal(candidate.vector, vector):
            raise ReplayError(
                f"candidate {candidate.id} in the record is not what {self.name} proposes with "
                f"seed {self.seed}: {OTHER_RECORD}"
            )
        return candidate

    def _proposed(self, index: int, vector: np.ndarray) -> Candidate:
        """A new candidate, with its masks."""
        started = time.time()
        details: dict[str, Any] = {}
        if index < len(self.labels):
            details["label"] = self.labels[index]
        error = None
        try:
            decoded = self.space.decode(vector)
            details |= _decoding(decoded)
            if self.realisable and decoded.realisable is not None:
                details["realisable"] = decoded.realisable.tolist()
        except (ValueError, RuntimeError) as failure:
            error = f"no masks: {failure}"
        return Candidate(
            strategy=self.name,
            seed=self.seed,
            index=index,
            vector=tuple(map(float, vector)),
            names=tuple(self.space.names()),
            error=error,
            evaluation=details,
            started=started,
            finished=time.time(),
        )

    def _queue(self, bracket: _Bracket, indices: Sequence[int]) -> None:
        """Have those that have no score at the bracket's rung scored there, in cohorts."""
        missing = [i for i in indices if not self._done(bracket.candidates[i], bracket.rung)]
        for start in range(0, len(missing), self.budget.cohort):
            self._waiting[missing[start]] = bracket, missing[start : start + self.budget.cohort]
        self._submit()

    def _submit(self) -> None:
        while self._waiting and len(self._flying) < self.pool.slots:
            ticket = min(self._waiting)  # of the oldest bracket, whose end is waited for
            bracket, indices = self._flying[ticket] = self._waiting.pop(ticket)
            masks = [Masks.from_dict(bracket.candidates[i].evaluation["masks"]) for i in indices]
            self.pool.submit(ticket, masks, self.ladder[bracket.rung])

    def _receive(self) -> None:
        ticket, results = self.pool.wait()
        bracket, indices = self._flying.pop(ticket)
        last = bracket.rung == len(self.ladder) - 1
        for index, scored in zip(indices, results, strict=True):
            candidate = self._measured(bracket.candidates[index], bracket.rung, scored)
            bracket.candidates[index] = candidate
            if last or _broken(candidate):
                self._finish(bracket, index, final=not _broken(candidate))
            else:
                self.keep(candidate)
        self._climb(bracket)
        self._submit()

    def _climb(self, bracket: _Bracket) -> None:
        """Go on to the next rung for as long as all have a score at the present one."""
        while bracket.closed and not bracket.finished:
            members = [bracket.candidates[index] for index in bracket.climbing]
            if not all(self._done(candidate, bracket.rung) for candidate in members):
                return
            if bracket.rung == len(self.ladder) - 1:
                bracket.finished = True
                return
            going = promoted(
                [_quality(candidate, bracket.rung) for candidate in members],
                [np.nan if c.cost is None else c.cost for c in members],
                self.ladder[bracket.rung].keep,
            )
            bracket.rung += 1
            for candidate, goes in zip(members, going, strict=True):
                if candidate.index in self._known:
                    if (len(candidate.rungs) > bracket.rung) != goes:
                        raise ReplayError(
                            f"candidate {candidate.id} reached rung {len(candidate.rungs) - 1} in "
                            f"the record, which the scores of its bracket forbid: {OTHER_RECORD}"
                        )
                elif not goes and not _broken(candidate):
                    self._finish(bracket, candidate.index, final=False)
            bracket.climbing = [c.index for c, goes in zip(members, going, strict=True) if goes]
            self._queue(bracket, bracket.climbing)

    def _done(self, candidate: Candidate, rung: int) -> bool:
        """Whether nothing is left to be found out about it at a rung."""
        known = candidate.index in self._known
        return known or len(candidate.rungs) > rung or _broken(candidate)

    def _finish(self, bracket: _Bracket, index: int, *, final: bool) -> None:
        """Record a candidate that goes no further."""
        candidate = bracket.candidates[index]
        reached = len(candidate.rungs) - 1 if candidate.rungs else None
        details = {**candidate.evaluation, "rung": reached, "final": final}
        bracket.candidates[index] = replace(candidate, evaluation=details)
        self.record(bracket.candidates[index])

    def _measured(self, candidate: Candidate, rung: int, scored: Scored) -> Candidate:
        """The candidate with what one more rung says of it."""
        details = {**candidate.evaluation, "evaluator": scored.evaluator}
        entry = {"fidelity": self.ladder[rung].fidelity, "steps": self.ladder[rung].steps}
        quality, cost = None, candidate.cost
        if scored.evaluation is None:
            entry |= {"quality": None, "error": scored.error}
        else:
            measured = _measurements(scored.evaluation)
            quality = scored.evaluation.quality
            cost = getattr(scored.evaluation.costs, COSTS[self.cost].attribute)
            entry |= {"quality": quality, **measured}
            details |= {**measured, "costs": asdict(scored.evaluation.costs)}
        return replace(
            candidate,
            quality=quality,
            cost=cost,
            error=scored.error,
            evaluation=details | {"rungs": [*candidate.rungs, entry]},
            finished=time.time(),
        )


def _broken(candidate: Candidate) -> bool:
    """Whether it failed; one that has not been scored yet has not."""
    return candidate.failed and (candidate.error is not None or len(candidate.rungs) > 0)


def _quality(candidate: Candidate, rung: int) -> float:
    """Quality at a rung, whatever it reached later; NaN if it failed there."""
    quality = candidate.rungs[rung]["quality"] if len(candidate.rungs) > rung else None
    return np.nan if quality is None else float(quality)


def _measurements(evaluation: Evaluation) -> dict[str, Any]:
    """What is measured anew at every rung."""
    measured = {
        "accuracy": dict(evaluation.accuracy),
        "distillation_loss": dict(evaluation.distillation_loss),
        "seconds": evaluation.seconds,
    }
    return (
        measured
        if evaluation.quality_std is None
        else measured | {"quality_std": evaluation.quality_std}
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
        accuracy=_task_accuracy(candidate),
    )


def _task_accuracy(candidate: Candidate) -> np.ndarray | None:
    """(T,): mean accuracy over the levels of every task; None where nothing was measured."""
    if not candidate.accuracy:
        return None
    by_task: dict[str, list[float]] = {}
    for entry in candidate.evaluation["masks"]["networks"]:
        network = VirtualNetwork(task=entry["task"], level=entry["level"])
        by_task.setdefault(network.task, []).append(candidate.accuracy[str(network)])
    return np.array([np.mean(levels) for levels in by_task.values()])


def _decoding(decoded: Decoded) -> dict[str, Any]:
    """What the record keeps of the step from the vector to masks, by channel group."""
    kept = {
        "masks": decoded.masks.to_dict(),
        "realised": {
            g.name: _rounded(decoded.masks.realised(g.name)) for g in decoded.masks.groups
        },
    }
    if not decoded.solutions:
        return kept
    return kept | {
        "target": {k: _rounded(target) for k, target in decoded.target.items()},
        "deviation": {name: s.deviation for name, s in decoded.solutions.items()},
        "bound": {name: s.bound for name, s in decoded.solutions.items()},
        "proven": all(s.proven for s in decoded.solutions.values()),
    }


def _rounded(matrix: np.ndarray) -> list[list[float]]:
    return [[round(float(entry), 6) for entry in row] for row in matrix]
