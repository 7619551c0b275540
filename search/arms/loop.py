"""An arm: one strategy with one seed, from the first proposal to the last. Knows nothing of Ray.

Candidates that follow each other in the order of asking form a bracket. A bracket is scored rung by
rung (`search/candidates/rungs.py`); those that are stopped, or fail, keep the score of the highest
rung that they reached. Without lower rungs nothing is compared, and a bracket is a cohort.

The order in which an arm asks and tells depends on the strategy, the budget and the sizes of
brackets and cohorts alone, never on which evaluator was faster: outcomes are told bracket by
bracket in the order of asking. So replaying the record gives a strategy exactly the state that an
uninterrupted run has.
"""

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from partitioning import Masks, Space
from search.arms.clock import Clock
from search.arms.repeats import Repeats
from search.arms.scoring import Pool
from search.arms.stages import broken, decoded, measured, outcome, quality_at, repeated
from search.candidates import Candidate, Rung, promoted
from search.strategies import Strategy

#: Why a record may be refused, and what to do.
OTHER_RECORD = (
    "the record was made by another version or other settings, or, where the strategy is cma_es, "
    "gp or task_models, on a processor of another kind; go on where it was made, or start a study "
    "under another name"
)


class ReplayError(RuntimeError):
    """The record is not what this arm does: other proposals, or other candidates went on."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of an arm.

    Attributes:
        candidates: Candidates in all, at most.
        seconds: Device-seconds, see `Candidate.seconds`, after which nothing more is asked for;
            what is under way by then is finished.
        cohort: Candidates handed to an evaluator at once, at most.
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
        size: Number of candidates that it was asked for.
        cohort: How many of them are handed out at once, at most.
        candidates: By index, with what is known of them so far.
        climbing: Those that are scored at the present rung.
        rung: The present rung.
        closed: Whether no candidate will join.
        finished: Whether all have the score that the strategy is told.
    """

    size: int = 0
    cohort: int = 1
    candidates: dict[int, Candidate] = field(default_factory=dict)
    climbing: list[int] = field(default_factory=list)
    rung: int = 0
    closed: bool = False
    finished: bool = False

    @property
    def climbers(self) -> list[Candidate]:
        """The candidates at the present rung."""
        return [self.candidates[index] for index in self.climbing]


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
        latency: Of masks, relative to sharing all, where the study measures it.
        record: Makes a candidate durable; called before the strategy is told.
        keep: Makes durable what lower rungs said of a candidate that is still under way.
        labels: Names of fixed proposals, by index (the baselines').
        realisable: Look for what of a proposal could be realised, since the strategy reads it.
        mapped: As `map`; finds the masks of what is proposed.
        clock: Is told what this arm does.
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
    latency: Callable[[Masks], float] | None = None
    labels: Sequence[str] = ()
    realisable: bool = False
    mapped: Callable[
        [Callable[[Candidate], Candidate], Iterable[Candidate]], Iterator[Candidate]
    ] = map
    clock: Clock = field(default_factory=Clock)

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
        self._names = tuple(self.space.names())
        self._brackets: deque[_Bracket] = deque()
        self._asked = 0
        self._spent = 0.0
        #: Cohorts that wait for the pool and that it has, by the index of their first candidate.
        self._waiting: dict[int, tuple[_Bracket, list[int]]] = {}
        self._flying: dict[int, tuple[_Bracket, list[int]]] = {}
        self._repeats: Repeats[tuple[_Bracket, int]] = Repeats()
        #: Quality and cost of those that have gone on, by the rung that they have gone on from.
        self._gone_on: list[list[tuple[float, float]]] = [[] for _ in self.ladder]
        self._ask()
        while self._brackets:
            if not self._brackets[0].finished:
                self._receive()
                continue
            done = list(self._brackets.popleft().candidates.values())
            self.strategy.tell([outcome(candidate) for candidate in done])
            for candidate in done:
                self._spent += candidate.seconds
                on_told(candidate)
            # Only now: what is asked for must not depend on timing.
            self._ask()

    def _ask(self) -> None:
        """Fill brackets, as many as keep the evaluators busy, as far as the strategy goes."""
        proposed = self._fill()
        # All evaluators have some of what is under way before any has a whole cohort.
        untold = sum(bracket.size for bracket in self._brackets)
        cohort = max(1, min(self.budget.cohort, -(-untold // self.pool.evaluators)))
        masked = self._masked([vector for _, vectors in proposed for vector in vectors])
        for bracket, vectors in proposed:
            bracket.cohort = cohort
            for start in range(0, len(vectors), cohort):  # scored while masks of the next are made
                self._start(bracket, vectors[start : start + cohort], masked)
        self._climb()

    def _masked(self, vectors: Sequence[np.ndarray]) -> Iterator[Candidate]:
        """With their masks, those of the next proposals that were not under way before."""
        fresh = (
            self._propose(index, vector)
            for index, vector in enumerate(vectors, start=self._asked)
            if index not in self._known and index not in self._begun
        )
        decode = functools.partial(decoded, self.space, realisable=self.realisable)
        return iter(self.mapped(decode, fresh))

    def _fill(self) -> list[tuple[_Bracket, Sequence[np.ndarray]]]:
        """What the strategy proposes now, by the bracket that it is for."""
        halving = len(self.ladder) > 1
        size = max(self.budget.bracket if halving else 1, self.budget.cohort)
        # Two at least, so that there is something to do while few are left in the first.
        ahead = max(2, -(-self.pool.slots * self.budget.cohort // size))
        proposed: list[tuple[_Bracket, Sequence[np.ndarray]]] = []
        asked = self._asked
        while asked < self.budget.candidates:
            if self._spent >= self.budget.seconds:
                self._close_last()
                break
            if not self._brackets or self._brackets[-1].closed:
                if len(self._brackets) >= ahead:
                    break
                self._brackets.append(_Bracket())
            bracket = self._brackets[-1]
            room = min(size - bracket.size, self.budget.candidates - asked)
            vectors = self.strategy.ask(room)
            proposed.append((bracket, vectors))
            asked += len(vectors)
            bracket.size += len(vectors)
            if len(vectors) == room:
                bracket.closed = True
                continue
            # The strategy waits for outcomes. Those of earlier brackets may bring more candidates
            # into this one; where there are none, it has to do with those that it has.
            if len(self._brackets) == 1:
                self._close_last()
            break
        return proposed

    def _close_last(self) -> None:
        """Let no candidate join the last bracket; without any there is none."""
        if self._brackets and not self._brackets[-1].size:
            self._brackets.pop()
        elif self._brackets:
            self._brackets[-1].closed = True

    def _start(
        self, bracket: _Bracket, vectors: Sequence[np.ndarray], masked: Iterator[Candidate]
    ) -> None:
        """Take new candidates into a bracket and have them scored at the lowest rung."""
        joined = range(self._asked, self._asked + len(vectors))
        self._asked += len(vectors)
        for index, vector in zip(joined, vectors, strict=True):
            before = self._known.get(index) or self._begun.get(index)
            if before is not None:
                self._check_proposal(before, vector)
                bracket.candidates[index] = before
                self._repeats.remember(before)
                continue
            with self.clock.doing("masks"):
                proposed = next(masked)
            bracket.candidates[index] = proposed
            if broken(proposed):
                self.record(proposed)
        bracket.climbing += joined
        self._queue(bracket, joined)

    def _check_proposal(self, candidate: Candidate, vector: np.ndarray) -> None:
        """Refuse a record of other proposals than the strategy makes."""
        if not np.array_equal(candidate.vector, vector):
            raise ReplayError(
                f"candidate {candidate.id} in the record is not what {self.name} proposes with "
                f"seed {self.seed}: {OTHER_RECORD}"
            )

    def _propose(self, index: int, vector: np.ndarray) -> Candidate:
        """A new candidate, without masks."""
        return Candidate(
            strategy=self.name,
            seed=self.seed,
            index=index,
            vector=tuple(map(float, vector)),
            names=self._names,
            label=self.labels[index] if index < len(self.labels) else None,
            started=time.time(),
        )

    def _queue(self, bracket: _Bracket, indices: Sequence[int]) -> None:
        """Have those that have no score at the bracket's rung scored there, in cohorts.

        A design that was scored there before is not scored again.
        """
        missing = []
        for index in indices:
            candidate = bracket.candidates[index]
            if self._done(candidate, bracket.rung):
                continue
            first = self._repeats.first(candidate, bracket.rung)
            if first is not None:
                self._take(bracket, repeated(candidate, first, bracket.rung))
            elif self._repeats.give_out(candidate, bracket.rung, (bracket, index)):
                missing.append(index)
        # At higher rungs a bracket has fewer, which are divided over as many evaluators.
        left = len(bracket.climbing) if bracket.rung else bracket.size
        cohort = max(1, -(-bracket.cohort * left // bracket.size))
        for start in range(0, len(missing), cohort):
            self._waiting[missing[start]] = bracket, missing[start : start + cohort]
        self._submit()

    def _submit(self) -> None:
        """Hand cohorts to the pool for as long as it has room."""
        while self._waiting and len(self._flying) < self.pool.slots:
            ticket = min(self._waiting)  # of the oldest bracket, whose end is waited for
            bracket, indices = self._flying[ticket] = self._waiting.pop(ticket)
            masks = [bracket.candidates[index].masks for index in indices]
            self.pool.submit(ticket, masks, self.ladder[bracket.rung])

    def _receive(self) -> None:
        """Wait for a cohort and make durable what is said of its candidates."""
        with self.clock.doing("outcomes" if self._asked < self.budget.candidates else "end"):
            ticket, results = self.pool.wait()
        bracket, indices = self._flying.pop(ticket)
        rung = bracket.rung
        waiting: list[tuple[_Bracket, int]] = []
        for index, scored in zip(indices, results, strict=True):
            candidate = measured(
                bracket.candidates[index],
                self.ladder[rung],
                scored,
                cost=self.cost,
                latency=self.latency,
            )
            self._take(bracket, candidate)
            self._repeats.remember(candidate)
            waiting += self._repeats.taken_back(candidate, rung)
        for other, index in waiting:
            self._queue(other, [index])
        self._climb()
        self._submit()

    def _take(self, bracket: _Bracket, candidate: Candidate) -> None:
        """Make durable what a bracket's rung said of a candidate."""
        bracket.candidates[candidate.index] = candidate
        if bracket.rung == len(self.ladder) - 1 or broken(candidate):
            self.record(candidate)
        else:
            self.keep(candidate)

    def _climb(self) -> None:
        """Let brackets go on to the next rung for as long as all have a score at the present one.

        Who goes on depends on those of earlier brackets that have, so a bracket waits for these.
        """
        top = len(self.ladder) - 1
        before = top  # the lowest rung of an earlier bracket
        for bracket in self._brackets:
            while bracket.closed and all(self._done(c, bracket.rung) for c in bracket.climbers):
                bracket.finished = bracket.rung == top
                if bracket.rung >= before:
                    break
                self._promote(bracket)
                self._queue(bracket, bracket.climbing)
            before = min(before, bracket.rung)

    def _promote(self, bracket: _Bracket) -> None:
        """Let the better ones of a bracket go on to the next rung, and stop the others."""
        members, gone_on = bracket.climbers, self._gone_on[bracket.rung]
        scores_N2 = np.array(
            [(quality_at(c, bracket.rung), np.nan if c.cost is None else c.cost) for c in members]
        ).reshape(-1, 2)
        keep = self.ladder[bracket.rung].keep
        going = promoted(scores_N2[:, 0], scores_N2[:, 1], keep, gone_on)
        gone_on += map(tuple, scores_N2[going].tolist())
        bracket.rung += 1
        bracket.climbing = [c.index for c, goes in zip(members, going, strict=True) if goes]
        for candidate, goes in zip(members, going, strict=True):
            if candidate.index in self._known:
                if (len(candidate.rungs) > bracket.rung) != goes:
                    raise ReplayError(
                        f"candidate {candidate.id} reached rung {len(candidate.rungs) - 1} in "
                        f"the record, which the scores of its bracket forbid: {OTHER_RECORD}"
                    )
            elif not goes and not broken(candidate):
                stopped = replace(candidate, stopped=True)
                bracket.candidates[candidate.index] = stopped
                self.record(stopped)

    def _done(self, candidate: Candidate, rung: int) -> bool:
        """Whether nothing is left to be found out about it at a rung."""
        known = candidate.index in self._known
        return known or len(candidate.rungs) > rung or broken(candidate)
