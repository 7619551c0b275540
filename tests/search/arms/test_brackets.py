"""Brackets that are scored rung by rung, over an in-process pool that finishes in any order."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from search.arms.loop import ReplayError
from search.arms.stages import outcome
from search.candidates import (
    Candidate,
    Measurement,
    Rung,
    front,
    history,
    promoted,
    scored,
    study_hypervolume,
)
from search.candidates.rungs import replay
from search.mirror import shown as tracked
from search.record import Record
from search.record.attributes import from_attributes, to_attributes
from search.report import summary
from tests.helpers.arms import LEARNERS, ArmRun, steps_of, vectors
from tests.helpers.pools import ShuffledPool, score, sometimes

LADDER = (Rung(steps=5, keep=0.5), Rung(steps=20, keep=0.5), Rung(steps=100))
ALL = tuple(replace(rung, keep=1.0) for rung in LADDER)


def halved(strategy: str, **settings: Any) -> ArmRun:
    """An arm whose brackets of 8 climb three rungs."""
    return ArmRun(strategy, **{"ladder": LADDER, "bracket": 8} | settings)


def outline(recorded: dict[int, Candidate]) -> list[object]:
    """Proposals, scores and how far everyone went."""
    return [
        (c.vector, c.quality, c.cost, c.error, len(c.rungs), c.stopped)
        for _, c in sorted(recorded.items())
    ]


def brackets(recorded: dict[int, Candidate], sizes: Sequence[int]) -> list[list[Candidate]]:
    starts = np.cumsum([0, *sizes])
    return [[recorded[i] for i in range(a, a + n)] for a, n in zip(starts, sizes, strict=False)]


@pytest.mark.parametrize("fails", [lambda masks, steps: False, sometimes])
def test_who_goes_on_is_what_halving_says(fails: object) -> None:
    pool = ShuffledPool(1, fails=fails)  # type: ignore[arg-type]
    recorded = halved("random", candidates=45).run(pool)
    curves = []
    for candidate in recorded.values():  # what every rung would have said
        masks = candidate.masks
        curves.append(
            [
                np.nan if fails(masks, rung.steps) else score(masks, rung.steps).quality  # type: ignore[operator]
                for rung in LADDER
            ]
        )
    cost_N = [c.masks.mean_use() for c in recorded.values()]
    indices = sorted(recorded)
    order = [list(recorded).index(i) for i in indices]
    told = replay(
        np.array(curves)[order], np.array(cost_N)[order], [r.steps for r in LADDER], [0.5, 0.5],
        bracket=8,
    )  # fmt: skip
    assert [len(recorded[i].rungs) - 1 for i in indices] == told.reached_N.tolist()
    assert [
        recorded[i] in scored(list(recorded.values())) for i in indices
    ] == told.final_N.tolist()
    assert steps_of(recorded) == pytest.approx(told.compute * 45 * 100)
    assert pool.steps == steps_of(recorded, repeats=False)
    for i in indices:
        rungs = recorded[i].rungs
        assert [r.steps for r in rungs] == [5, 20, 100][: len(rungs)]
        assert recorded[i].failed == bool(np.isnan(curves[order[i]][len(rungs) - 1]))
        if not recorded[i].failed:
            assert recorded[i].quality == rungs[-1].quality == curves[order[i]][len(rungs) - 1]
            assert recorded[i].accuracy == rungs[-1].accuracy
    if not recorded[0].failed:
        first = recorded[0].rungs[0]
        assert (first.fidelity, first.error, first.quality_std) == ("proxy", None, None)
        assert first.accuracy.keys() == first.distillation_loss.keys()
        assert first.seconds is not None


def test_compute_is_what_the_formula_says() -> None:
    pool = ShuffledPool(0)
    recorded = halved("random", candidates=64).run(pool)
    assert steps_of(recorded) == 64 * (5 + 20 / 2 + 100 / 4)
    assert pool.steps == steps_of(recorded, repeats=False)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_order_of_completion_changes_nothing(name: str) -> None:
    arm = halved(name)
    first = arm.run(ShuffledPool(1, fails=sometimes))
    assert len(first) == 70
    for pool in (ShuffledPool(2, fails=sometimes), ShuffledPool(3, slots=1, fails=sometimes)):
        assert outline(first) == outline(arm.run(pool))
    # Nor does how many are handed over at once: brackets are the same.
    others = replace(arm, cohort=5).run(ShuffledPool(1, fails=sometimes))
    assert outline(first) == outline(others)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("stop_after", [1, 20, 47])
def test_resumed_equals_uninterrupted(name: str, stop_after: int) -> None:
    arm, first = halved(name), ShuffledPool(1, fails=sometimes)
    whole = arm.run(first)
    for run_until in (arm.run_until_recorded, arm.run_until_kept):
        pool, begun = ShuffledPool(2, fails=sometimes), dict[int, Candidate]()
        half = run_until(stop_after, pool, begun=begun)
        assert len(half) < 70
        # What is durable is JSON.
        begun = {i: through_json(candidate) for i, candidate in begun.items()}
        later = ShuffledPool(3, fails=sometimes)
        resumed = arm.run(later, known=half, begun=begun)
        assert outline(resumed) == outline(whole)
        # Nothing that was kept is scored again; the cohort that was being kept is lost.
        designs = {(c.masks.digest(), r.steps) for c in whole.values() for r in c.rungs}
        assert len(designs) <= pool.scored + later.scored <= first.scored + 4 * 3


def through_json(candidate: Candidate) -> Candidate:
    attributes = json.loads(json.dumps(to_attributes(candidate)))
    return from_attributes(
        attributes,
        strategy=candidate.strategy,
        seed=candidate.seed,
        params=dict(zip(candidate.names, candidate.vector, strict=True)),
        scores=(candidate.quality, candidate.cost),  # type: ignore[arg-type]
    )


def test_keeping_all_measures_every_rung_of_every_candidate() -> None:
    pool = ShuffledPool(0)
    recorded = halved("random", ladder=ALL, candidates=21).run(pool)
    assert all(len(c.rungs) == 3 and not c.stopped for c in recorded.values())
    assert steps_of(recorded) == 21 * 125
    assert pool.steps == steps_of(recorded, repeats=False)


def test_brackets_end_where_the_strategy_waits() -> None:
    """ES asks for 16 and waits, then for 8 and waits: brackets of 12 and 4, then of 8."""
    recorded = halved("es", bracket=12, candidates=50).run(ShuffledPool(1))
    gone: list[list[Any]] = [[], []]
    for members in brackets(recorded, [12, 4, 8, 8, 8, 8, 2]):
        going = members
        for rung in range(2):
            scores = [(c.rungs[rung].quality, c.cost) for c in going]
            on = promoted(*zip(*scores, strict=True), 0.5, gone[rung])
            assert [len(c.rungs) > rung + 1 for c in going] == on.tolist()
            gone[rung] += [score for score, goes in zip(scores, on, strict=True) if goes]
            going = [c for c, goes in zip(going, on, strict=True) if goes]


def test_strategies_are_told_of_the_lowest_rung() -> None:
    recorded = halved("random").run(ShuffledPool(1))
    top = [c for c in recorded.values() if len(c.rungs) == 3]
    assert top
    for candidate in top:
        told = outcome(candidate)
        assert told.quality == candidate.rungs[0].quality != candidate.quality
        accuracy = [candidate.rungs[0].accuracy[str(n)] for n in candidate.masks.networks]
        assert told.accuracy is not None
        assert told.accuracy.tolist() == accuracy


def test_all_failed() -> None:
    pool = ShuffledPool(1, fails=lambda masks, steps: True)
    recorded = halved("es", candidates=20).run(pool)
    assert all(c.failed and not c.stopped and len(c.rungs) == 1 for c in recorded.values())
    assert recorded[3].rungs[0] == Measurement(steps=5, error="made to fail")


def test_failing_later_is_failing() -> None:
    recorded = halved("random").run(ShuffledPool(1, fails=lambda masks, steps: steps == 100))
    found = list(recorded.values())
    late = [c for c in found if c.failed]
    assert late
    assert all(c.quality is None and len(c.rungs) == 3 for c in late)
    assert (late[0].rungs[1].quality or 0) > 0
    assert not scored(found)
    assert study_hypervolume(found) == 0.0


def test_a_record_in_which_others_went_on_is_refused() -> None:
    half = halved("random").run_until_recorded(16, ShuffledPool(0))
    index = next(i for i, c in half.items() if c.stopped)
    half[index] = replace(half[index], rungs=(*half[index].rungs, half[index].rungs[-1]))
    with pytest.raises(ReplayError, match=rf"random-0-{index} reached rung \d in the record"):
        halved("random").run(ShuffledPool(0), known=half)


def test_only_final_candidates_are_compared() -> None:
    found = list(halved("random").run(ShuffledPool(1, fails=sometimes)).values())
    final = [c for c in found if not c.failed and not c.stopped]
    # A stopped candidate that would dominate everything.
    best = next(c for c in found if c.stopped)
    found[found.index(best)] = best = replace(best, quality=2.0, cost=0.0)
    assert scored(found) == final
    assert front(found) == front(final)
    assert study_hypervolume(found) == study_hypervolume(final)
    told = summary(found)
    assert told["failed"] == sum(c.failed for c in found) > 0
    assert told["stopped"] == len(found) - len(final) - told["failed"] > 0
    assert best.id not in [member["candidate"] for member in told["front"]]
    rows = history(found)
    assert rows["stopped"].iloc[-1] == told["stopped"]
    assert rows["best_quality"].iloc[-1] == max(c.quality or 0 for c in final)
    assert rows["hypervolume"].iloc[-1] == pytest.approx(study_hypervolume(final))


def test_the_record_keeps_stopped_candidates(tmp_path: Path) -> None:
    found = list(halved("random", candidates=24).run(ShuffledPool(1, fails=sometimes)).values())
    with Record(tmp_path / "record.journal", "s") as record:
        for candidate in found:
            record.add(candidate)
    with Record(tmp_path / "record.journal", "s") as record:
        assert record.candidates() == sorted(found, key=lambda c: c.index)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "record.journal"))
    )
    study = optuna.load_study(study_name="s/random/0", storage=storage)
    states = {t.user_attrs["index"]: t.state.name for t in study.trials}
    assert states == {
        c.index: "FAIL" if c.failed else "PRUNED" if c.stopped else "COMPLETE" for c in found
    }
    assert set(states.values()) == {"FAIL", "PRUNED", "COMPLETE"}
    best = study.best_trials
    assert sorted(t.user_attrs["index"] for t in best) == sorted(c.index for c in front(found))


def test_the_mirror_shows_the_rungs() -> None:
    found = halved("random").run(ShuffledPool(1, fails=sometimes)).values()
    stopped = next(c for c in found if c.stopped and len(c.rungs) == 2)
    final = scored(list(found))[0]
    shown = tracked.metrics(stopped)
    assert shown["quality"] == shown["rungs/1/quality"] == stopped.quality
    assert (shown["rungs/0/steps"], shown["rungs/1/steps"]) == (5, 20)
    assert "rungs/2/quality" not in shown
    for candidate, flags in ((stopped, ("1", "true")), (final, ("2", "false"))):
        tags = tracked.tags(candidate, front=False)
        assert (tags["rung"], tags["stopped"]) == flags
    plain = ArmRun("random", candidates=1).run(ShuffledPool(1))[0]
    assert not any("rung" in key for key in tracked.metrics(plain))
    assert not {"rung", "stopped"} & set(tracked.tags(plain, front=False))


def test_vectors_are_those_of_a_search_without_rungs() -> None:
    """Random search learns nothing, so halving must not change what it proposes."""
    climbed, flat = halved("random"), ArmRun("random")
    assert vectors(climbed.run(ShuffledPool(0))) == vectors(flat.run(ShuffledPool(0)))
