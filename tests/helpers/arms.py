"""Arms of a small sharing space: run to the end, stopped dead on the way, and resumed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from partitioning import ChannelGroup, SharingSpace, SolverConfig, SpaceConfig
from search.arms.loop import Arm, Budget
from search.candidates import SCORED_AS, Candidate, Rung
from search.strategies import STRATEGIES, Problem
from tests.helpers.pools import ShuffledPool

LEARNERS = ("random", "es", "policy_gradient")
SPACE = SharingSpace(
    tasks=("a", "b", "c"),
    groups=(ChannelGroup(name="stage3.block0.hidden", width=12, kind="hidden"),),
    config=SpaceConfig(),
    solver=SolverConfig(time_limit=5),
)


@dataclass
class Books:
    """What an arm recorded and what it has under way; it stops dead where a book is full."""

    recorded: dict[int, Candidate]
    begun: dict[int, Candidate]
    most_recorded: float = float("inf")
    most_kept: float = float("inf")
    times_kept: int = field(default=0, init=False)

    def record(self, candidate: Candidate) -> None:
        if len(self.recorded) >= self.most_recorded:
            raise InterruptedError
        assert candidate.index not in self.recorded
        self.recorded[candidate.index] = candidate
        self.begun.pop(candidate.index, None)

    def keep(self, candidate: Candidate) -> None:
        if self.times_kept >= self.most_kept:
            raise InterruptedError
        self.times_kept += 1
        assert candidate.index not in self.recorded
        self.begun[candidate.index] = candidate


@dataclass(frozen=True)
class ArmRun:
    """An arm with its budget and ladder. All runs return what is recorded, by index.

    A run may go on from what an earlier one left: `known` is what that recorded, and `begun` what
    it had under way, which then holds what this one has under way when it ends.
    """

    strategy: str
    seed: int = 0
    candidates: int = 70
    cohort: int = 3
    bracket: int = 16
    ladder: Sequence[Rung] = (Rung(steps=100),)
    seconds: float = float("inf")

    def run(
        self,
        pool: ShuffledPool,
        *,
        known: Mapping[int, Candidate] | None = None,
        begun: dict[int, Candidate] | None = None,
    ) -> dict[int, Candidate]:
        """Runs to the end of the budget."""
        books = Books(dict(known or {}), _or_new(begun))
        told = self._run(pool, books)
        recorded = len(books.recorded)
        assert told == list(range(self.candidates if self.seconds == float("inf") else recorded))
        assert not books.begun
        return books.recorded

    def run_until_recorded(
        self, count: int, pool: ShuffledPool, *, begun: dict[int, Candidate] | None = None
    ) -> dict[int, Candidate]:
        """Stops dead where one more than `count` candidates would be recorded."""
        return self._interrupted(pool, Books({}, _or_new(begun), most_recorded=count))

    def run_until_kept(
        self, count: int, pool: ShuffledPool, *, begun: dict[int, Candidate] | None = None
    ) -> dict[int, Candidate]:
        """Stops dead where candidates under way would be kept for the `count` + 1st time."""
        return self._interrupted(pool, Books({}, _or_new(begun), most_kept=count))

    def _interrupted(self, pool: ShuffledPool, books: Books) -> dict[int, Candidate]:
        try:
            self._run(pool, books)
        except InterruptedError:
            return books.recorded
        raise AssertionError("the arm must have been stopped before its end")

    def _run(self, pool: ShuffledPool, books: Books) -> list[int]:
        """Runs until the books are full or the budget is used; whom the arm was told of."""
        problem = Problem(
            dim=SPACE.dim, names=tuple(SPACE.names()), use_dims=SPACE.use_dims,
            seed=self.seed, baselines={},
        )  # fmt: skip
        kind = STRATEGIES[self.strategy]
        arm = Arm(
            name=self.strategy,
            seed=self.seed,
            strategy=kind.build(problem, kind.settings()),
            space=SPACE,
            pool=pool,
            budget=Budget(
                candidates=self.candidates, cohort=self.cohort, bracket=self.bracket,
                seconds=self.seconds,
            ),
            ladder=self.ladder,
            cost="use",
            record=books.record,
            keep=books.keep,
        )  # fmt: skip
        told: list[int] = []
        known, begun = dict(books.recorded), dict(books.begun)
        arm.run(known, lambda candidate: told.append(candidate.index), begun)
        return told


def _or_new(begun: dict[int, Candidate] | None) -> dict[int, Candidate]:
    return {} if begun is None else begun


def steps_of(recorded: Mapping[int, Candidate], *, repeats: bool = True) -> int:
    """Steps of all scorings that are recorded, with or without those of designs scored before."""
    return sum(
        said.steps
        for candidate in recorded.values()
        for said in candidate.rungs
        if repeats or not said.evaluator.startswith(SCORED_AS)
    )


def vectors(recorded: Mapping[int, Candidate]) -> list[tuple[float, ...]]:
    """The proposals of an arm, in the order of asking."""
    return [recorded[index].vector for index in range(len(recorded))]
