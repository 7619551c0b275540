"""The arm's loop over an in-process pool whose cohorts finish in any order."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from partitioning import ChannelGroup, Masks, SharingSpace, SolverConfig, SpaceConfig
from search.arms.loop import Arm, Budget, ReplayError, Scored
from search.candidates import Candidate, Rung
from search.strategies import STRATEGIES, Problem
from trainers.cost import Costs
from trainers.proxy import Evaluation

TASKS = ("a", "b", "c")
GROUPS = (ChannelGroup(name="stage3.block0.hidden", width=12, kind="hidden"),)
LEARNERS = ("random", "es", "policy_gradient")


class ShuffledPool:
    """Scores by a formula; finished cohorts come back in a random order."""

    def __init__(
        self,
        seed: int,
        *,
        slots: int = 4,
        fail: frozenset[int] = frozenset(),
        fails: Callable[[Masks, int], bool] = lambda masks, steps: False,
    ) -> None:
        self.slots = slots
        self.scored = 0
        self.steps = 0
        self._fail = fail
        self._fails = fails
        self._order = random.Random(seed)
        self._flying: dict[int, tuple[Sequence[Masks], Rung]] = {}

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        assert len(self._flying) < self.slots
        self._flying[ticket] = cohort, rung
        self.steps += rung.steps * len(cohort)

    def wait(self) -> tuple[int, list[Scored]]:
        ticket = self._order.choice(sorted(self._flying))
        cohort, rung = self._flying.pop(ticket)
        self.scored += len(cohort)
        return ticket, [
            Scored(error="made to fail")
            if ticket + i in self._fail or self._fails(m, rung.steps)
            else Scored(evaluation=score(m, rung.steps))
            for i, m in enumerate(cohort)
        ]


def score(masks: Masks, steps: int) -> Evaluation:
    """Fewer steps put candidates in another order."""
    use = masks.use()
    return Evaluation(
        accuracy={
            name: float(1 - (u - 0.6) ** 2 - (u * 37 % 1) / steps)
            for name, u in zip(TASKS, use, strict=True)
        },
        distillation_loss=dict.fromkeys(TASKS, 0.0),
        costs=Costs(
            use=dict(zip(TASKS, map(float, use), strict=True)),
            parameters={}, macs={}, union_parameters=0, mean_use=float(use.mean()),
            relative_parameters=1.0, relative_macs=1.0, relative_union=1.0,
        ),
        seconds=float(use.mean()),
    )  # fmt: skip


def run(
    name: str,
    pool: ShuffledPool,
    *,
    known: dict[int, Candidate] | None = None,
    seed: int = 0,
    candidates: int = 70,
    cohort: int = 3,
    stop_after: int | None = None,
    ladder: Sequence[Rung] = (Rung(steps=100),),
    bracket: int = 16,
    begun: dict[int, Candidate] | None = None,
    stop_after_kept: int | None = None,
    seconds: float = float("inf"),
) -> dict[int, Candidate]:
    """Runs an arm and returns what it recorded, by index; stops dead after some records.

    `begun` is what was under way before, and gets what is under way at the end.
    """
    space = SharingSpace(
        tasks=TASKS, groups=GROUPS, config=SpaceConfig(), solver=SolverConfig(time_limit=5)
    )
    recorded: dict[int, Candidate] = dict(known or {})

    def record(candidate: Candidate) -> None:
        if stop_after is not None and len(recorded) >= stop_after:
            raise InterruptedError
        assert candidate.index not in recorded
        recorded[candidate.index] = candidate
        kept.pop(candidate.index, None)

    kept = {} if begun is None else begun
    before = dict(kept)
    counted = 0

    def keep(candidate: Candidate) -> None:
        nonlocal counted
        if counted == stop_after_kept:
            raise InterruptedError
        counted += 1
        assert candidate.index not in recorded
        kept[candidate.index] = candidate

    problem = Problem(
        dim=space.dim, names=tuple(space.names()), use_dims=space.use_dims, seed=seed, baselines={}
    )
    kind = STRATEGIES[name]
    told: list[int] = []
    arm = Arm(
        name=name, seed=seed, strategy=kind.build(problem, kind.settings()), space=space, pool=pool,
        budget=Budget(candidates=candidates, cohort=cohort, bracket=bracket, seconds=seconds),
        ladder=ladder,
        cost="use", record=record, keep=keep,
    )  # fmt: skip
    try:
        arm.run(dict(known or {}), lambda candidate: told.append(candidate.index), before)
    except InterruptedError:
        return recorded
    assert told == list(range(candidates if seconds == float("inf") else len(recorded)))
    assert not kept
    return recorded


def vectors(recorded: dict[int, Candidate]) -> list[tuple[float, ...]]:
    return [recorded[index].vector for index in range(len(recorded))]


@pytest.mark.parametrize("name", LEARNERS)
def test_the_order_of_completion_changes_nothing(name: str) -> None:
    first = run(name, ShuffledPool(1))
    second = run(name, ShuffledPool(2))
    assert len(first) == 70
    assert vectors(first) == vectors(second)
    assert vectors(first) != vectors(run(name, ShuffledPool(1), seed=1))


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("stop_after", [1, 20, 47])
def test_resumed_equals_uninterrupted(name: str, stop_after: int) -> None:
    whole = run(name, ShuffledPool(1))
    half = run(name, ShuffledPool(2), stop_after=stop_after)
    assert len(half) == stop_after
    pool = ShuffledPool(3)
    resumed = run(name, pool, known=half)
    assert vectors(resumed) == vectors(whole)
    assert pool.scored == 70 - stop_after  # what was recorded is not scored again


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("ladder", [(Rung(steps=100),), (Rung(steps=10, keep=0.5), Rung(steps=20))])
def test_a_budget_of_seconds(name: str, ladder: Sequence[Rung]) -> None:
    whole = run(name, ShuffledPool(1), ladder=ladder, bracket=6)
    spent = np.cumsum([whole[index].seconds for index in range(len(whole))])
    limit = spent[30]
    cut = run(name, ShuffledPool(2), ladder=ladder, bracket=6, seconds=limit)
    # What the strategy waits for ends sooner; what was asked before is finished.
    assert vectors(cut) == vectors(whole)[: len(cut)]
    assert 31 <= len(cut) <= 31 + 3 * 6
    half = run(name, ShuffledPool(2), ladder=ladder, bracket=6, seconds=limit, stop_after=9)
    resumed = run(name, ShuffledPool(3), ladder=ladder, bracket=6, seconds=limit, known=half)
    assert vectors(resumed) == vectors(cut)
    assert [resumed[i].quality for i in resumed] == [cut[i].quality for i in resumed]


def test_failed_candidates_are_recorded_and_told() -> None:
    recorded = run("es", ShuffledPool(1, fail=frozenset({0, 5, 20, 33})))
    assert {i for i, c in recorded.items() if c.failed} == {0, 5, 20, 33}
    assert recorded[5].error == "made to fail"
    assert recorded[5].evaluation["masks"]  # what failed can be looked at


def test_a_record_of_other_proposals_is_refused() -> None:
    half = run("random", ShuffledPool(0), stop_after=12)
    half[2] = replace(half[2], vector=tuple(np.zeros(len(half[2].vector))))
    with pytest.raises(ReplayError, match="random-0-2 in the record is not what random proposes"):
        run("random", ShuffledPool(0), known=half)


def test_the_record_keeps_how_masks_came_about() -> None:
    candidate = run("random", ShuffledPool(0), candidates=3)[1]
    masks = Masks.from_dict(candidate.evaluation["masks"])
    assert candidate.cost == pytest.approx(masks.mean_use())
    realised = np.array(candidate.evaluation["realised"]["stage3.block0.hidden"])
    assert realised == pytest.approx(masks.realised("stage3.block0.hidden"), abs=1e-6)
    (group,) = candidate.evaluation["bound"]
    assert candidate.evaluation["bound"][group] <= candidate.evaluation["deviation"][group] + 1e-6
    assert candidate.evaluation["proven"] is True
