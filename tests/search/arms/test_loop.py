"""The arm's loop over an in-process pool whose cohorts finish in any order."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from partitioning import Masks
from search.arms.loop import ReplayError
from search.candidates import Rung
from tests.helpers.arms import LEARNERS, ArmRun, vectors
from tests.helpers.pools import ShuffledPool


@pytest.mark.parametrize("name", LEARNERS)
def test_the_order_of_completion_changes_nothing(name: str) -> None:
    arm = ArmRun(name)
    first = arm.run(ShuffledPool(1))
    second = arm.run(ShuffledPool(2))
    assert len(first) == 70
    assert vectors(first) == vectors(second)
    assert vectors(first) != vectors(replace(arm, seed=1).run(ShuffledPool(1)))


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("stop_after", [1, 20, 47])
def test_resumed_equals_uninterrupted(name: str, stop_after: int) -> None:
    arm = ArmRun(name)
    whole = arm.run(ShuffledPool(1))
    half = arm.run_until_recorded(stop_after, ShuffledPool(2))
    assert len(half) == stop_after
    pool = ShuffledPool(3)
    resumed = arm.run(pool, known=half)
    assert vectors(resumed) == vectors(whole)
    # What was recorded is not scored again, nor are equal designs.
    designs = {c.masks.digest() for c in half.values()}
    fresh = {c.masks.digest() for i, c in resumed.items() if i not in half}
    assert len(fresh - designs) <= pool.scored <= len(fresh) <= 70 - stop_after


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("ladder", [(Rung(steps=100),), (Rung(steps=10, keep=0.5), Rung(steps=20))])
def test_a_budget_of_seconds(name: str, ladder: Sequence[Rung]) -> None:
    arm = ArmRun(name, ladder=ladder, bracket=6)
    whole = arm.run(ShuffledPool(1))
    spent = np.cumsum([whole[index].seconds for index in range(len(whole))])
    limited = replace(arm, seconds=spent[30])
    cut = limited.run(ShuffledPool(2))
    # What the strategy waits for ends sooner; what was asked before is finished.
    assert vectors(cut) == vectors(whole)[: len(cut)]
    assert 31 <= len(cut) <= 31 + 3 * 6
    half = limited.run_until_recorded(9, ShuffledPool(2))
    resumed = limited.run(ShuffledPool(3), known=half)
    assert vectors(resumed) == vectors(cut)
    assert [resumed[i].quality for i in resumed] == [cut[i].quality for i in resumed]


def test_failed_candidates_are_recorded_and_told() -> None:
    recorded = ArmRun("es").run(ShuffledPool(1, fail=frozenset({0, 5, 20, 33})))
    assert {i for i, c in recorded.items() if c.failed} == {0, 5, 20, 33}
    assert recorded[5].error == "made to fail"
    assert recorded[5].masks  # what failed can be looked at


def test_a_record_of_other_proposals_is_refused() -> None:
    half = ArmRun("random").run_until_recorded(12, ShuffledPool(0))
    half[2] = replace(half[2], vector=tuple(np.zeros(len(half[2].vector))))
    with pytest.raises(ReplayError, match="random-0-2 in the record is not what random proposes"):
        ArmRun("random").run(ShuffledPool(0), known=half)


def test_the_record_keeps_how_masks_came_about() -> None:
    candidate = ArmRun("random", candidates=3).run(ShuffledPool(0))[1]
    masks, decoding = candidate.masks, candidate.decoding
    assert decoding is not None
    assert candidate.cost == pytest.approx(masks.mean_use())
    realised = np.array(decoding.realised["stage3.block0.hidden"])
    assert realised == pytest.approx(masks.realised("stage3.block0.hidden"), abs=1e-6)
    (group,) = decoding.bound
    assert decoding.bound[group] <= decoding.deviation[group] + 1e-6
    assert decoding.target.keys() == {group}
    assert decoding.proven is True


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("ladder", [(Rung(steps=100),), (Rung(steps=10, keep=0.5), Rung(steps=20))])
def test_the_number_of_evaluators_changes_nothing(name: str, ladder: Sequence[Rung]) -> None:
    """So that a study goes on on another cluster, each of whose arms has more or fewer of them."""
    arm = ArmRun(name, ladder=ladder, cohort=8)
    few, many = (arm.run(ShuffledPool(1, slots=slots)) for slots in (2, 32))
    assert vectors(few) == vectors(many)
    assert [few[i].quality for i in few] == [many[i].quality for i in few]


class Watched(ShuffledPool):
    """Notes how large the cohorts are, in the order in which they are handed out."""

    def __init__(self, **settings: int) -> None:
        super().__init__(0, **settings)
        self.sizes: list[int] = []

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        self.sizes.append(len(cohort))
        super().submit(ticket, cohort, rung)


def test_a_generation_is_divided_over_all_evaluators() -> None:
    """A cohort of 64 would take the whole of it, while the other evaluators are idle."""
    pool = Watched(slots=8)
    ArmRun("tpe", cohort=64, candidates=40).run(pool)
    generation = 8  # of tpe; the initial one has 16
    assert pool.sizes == [4] * 4 + [generation // 4] * 12
    pool = Watched(slots=8)
    ArmRun("random", cohort=8, candidates=64).run(pool)
    assert pool.sizes[:4] == [8] * 4, "who proposes without end has whole cohorts"
