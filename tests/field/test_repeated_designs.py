"""A design that is proposed again is not scored again, and a front lists designs."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from search.arms.loop import Arm, Budget
from search.candidates import Candidate, Rung, front
from search.report import summary
from tests.helpers.arms import SPACE
from tests.helpers.pools import ShuffledPool
from tests.helpers.small_networks import candidate as masks_of

LADDERS = [(Rung(steps=100),), (Rung(steps=5, keep=0.5), Rung(steps=20, keep=0.5), Rung(steps=100))]


class Few:
    """Proposes four designs again and again."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._designs = self._rng.random((4, SPACE.dim))

    def ask(self, n: int) -> list[np.ndarray]:
        return [self._designs[self._rng.integers(4)] for _ in range(n)]

    def tell(self, outcomes: Any) -> None:
        pass


def run(
    pool: ShuffledPool, ladder: Any, known: dict[int, Candidate], most: float = float("inf"),
    begun: dict[int, Candidate] | None = None,
) -> tuple[dict[int, Candidate], dict[int, Candidate]]:  # fmt: skip
    """What an arm recorded, and what it had under way where it was stopped."""
    recorded, kept = dict(known), dict(begun or {})

    def record(candidate: Candidate) -> None:
        if len(recorded) >= most:
            raise InterruptedError
        assert candidate.index not in recorded
        recorded[candidate.index] = candidate
        kept.pop(candidate.index, None)

    arm = Arm(
        name="few", seed=0, strategy=Few(), space=SPACE, pool=pool,
        budget=Budget(candidates=40, cohort=3, bracket=8), ladder=ladder, cost="use",
        record=record, keep=lambda candidate: kept.__setitem__(candidate.index, candidate),
    )  # fmt: skip
    with suppress(InterruptedError):
        arm.run(known, lambda candidate: None, begun)
    return recorded, kept


@pytest.mark.parametrize("ladder", LADDERS)
def test_scored_once_at_every_rung(ladder: Any) -> None:
    pool = ShuffledPool(0)
    recorded, _ = run(pool, ladder, {})
    assert sorted(recorded) == list(range(40))
    assert pool.scored <= (4 if len(ladder) == 1 else 4 * len(ladder) + 8)
    by_design: dict[str, set[Any]] = {}
    for found in recorded.values():
        scores = (found.quality, found.cost, len(found.rungs))
        by_design.setdefault(found.masks.digest() + str(len(found.rungs)), set()).add(scores)
    assert all(len(scores) == 1 for scores in by_design.values()), "as if scored each time"
    names = {rung.evaluator for found in recorded.values() for rung in found.rungs}
    assert any(name.startswith("as few-0-") for name in names), "a repeat says whose score it has"
    designs = {found.masks.digest() for found in recorded.values()}
    assert summary(list(recorded.values()))["repeated"] == 40 - len(designs)


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("stop_after", [1, 9, 22])
def test_resumed_equals_uninterrupted(ladder: Any, stop_after: int) -> None:
    whole, _ = run(ShuffledPool(1), ladder, {})
    half, kept = run(ShuffledPool(2), ladder, {}, stop_after)
    resumed, _ = run(ShuffledPool(3), ladder, half, begun=kept)

    def scores(found: dict[int, Candidate]) -> list[Any]:
        return [
            (c.vector, c.quality, c.cost, c.stopped, c.seconds) for _, c in sorted(found.items())
        ]

    assert scores(resumed) == scores(whole)


def test_a_failure_is_not_handed_on() -> None:
    recorded, _ = run(ShuffledPool(0, slots=1, fail=frozenset({0})), LADDERS[0], {})
    failed = [index for index, found in recorded.items() if found.failed]
    assert failed == [0]


def test_a_front_lists_designs() -> None:
    recorded, _ = run(ShuffledPool(0), LADDERS[0], {})
    members = front(list(recorded.values()))
    designs = [member.masks.digest() for member in members]
    assert len(designs) == len(set(designs)) <= 4
    for member in members:
        equals = [c.index for c in recorded.values() if c.masks == member.masks]
        assert member.index == min(equals)
    # Equal scores of other designs are two members still.
    other = replace(members[0], index=99, decoding=replace(members[0].decoding, masks=masks_of(0)))
    assert len(front([members[0], other])) == 2
