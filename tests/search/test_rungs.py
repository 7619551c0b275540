"""Brackets that are scored rung by rung, over an in-process pool that finishes in any order."""

import json
import runpy
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_arm import LEARNERS, ShuffledPool, run, score, vectors

from partitioning import Masks
from search.arms.loop import ReplayError
from search.candidates import Candidate, Rung, front, history, promoted, scored, study_hypervolume
from search.candidates.rungs import replay
from search.mirror import shown as tracked
from search.record import Record, Writer
from search.record.record import RecordError
from search.record.underway import UnderWay
from search.report import summary

LADDER = (Rung(steps=5, keep=0.5), Rung(steps=20, keep=0.5), Rung(steps=100))
ALL = tuple(replace(rung, keep=1.0) for rung in LADDER)


def halved(name: str, pool: ShuffledPool, **settings: object) -> dict[int, Candidate]:
    return run(name, pool, **{"ladder": LADDER, "bracket": 8, **settings})  # type: ignore[arg-type]


def outline(recorded: dict[int, Candidate]) -> list[object]:
    """Proposals, scores and how far everyone went."""
    return [
        (c.vector, c.quality, c.cost, c.error, c.evaluation["rung"], c.evaluation["final"])
        for _, c in sorted(recorded.items())
    ]


def sometimes(masks: Masks, steps: int) -> bool:
    """Fails some candidates at every rung, by their masks alone."""
    return int(masks.digest()[:6], 16) % 7 == steps % 7


def brackets(recorded: dict[int, Candidate], sizes: Sequence[int]) -> list[list[Candidate]]:
    starts = np.cumsum([0, *sizes])
    return [[recorded[i] for i in range(a, a + n)] for a, n in zip(starts, sizes, strict=False)]


@pytest.mark.parametrize("fails", [lambda masks, steps: False, sometimes])
def test_who_goes_on_is_what_halving_says(fails: object) -> None:
    pool = ShuffledPool(1, fails=fails)  # type: ignore[arg-type]
    recorded = halved("random", pool, candidates=45)
    curves = []
    for candidate in recorded.values():  # what every rung would have said
        masks = Masks.from_dict(candidate.evaluation["masks"])
        curves.append(
            [
                np.nan if fails(masks, rung.steps) else score(masks, rung.steps).quality  # type: ignore[operator]
                for rung in LADDER
            ]
        )
    cost_N = [Masks.from_dict(c.evaluation["masks"]).mean_use() for c in recorded.values()]
    indices = sorted(recorded)
    order = [list(recorded).index(i) for i in indices]
    told = replay(
        np.array(curves)[order], np.array(cost_N)[order], [r.steps for r in LADDER], [0.5, 0.5],
        bracket=8,
    )  # fmt: skip
    assert [recorded[i].evaluation["rung"] for i in indices] == told.reached_N.tolist()
    assert [
        recorded[i] in scored(list(recorded.values())) for i in indices
    ] == told.final_N.tolist()
    assert pool.steps == pytest.approx(told.compute * 45 * 100)
    for i in indices:
        rungs = recorded[i].rungs
        assert [r["steps"] for r in rungs] == [5, 20, 100][: len(rungs)]
        assert recorded[i].failed == bool(np.isnan(curves[order[i]][len(rungs) - 1]))
        if not recorded[i].failed:
            assert recorded[i].quality == rungs[-1]["quality"] == curves[order[i]][len(rungs) - 1]
            assert recorded[i].accuracy == rungs[-1]["accuracy"]
    if not recorded[0].failed:
        assert recorded[0].rungs[0].keys() == {
            "fidelity", "steps", "quality", "accuracy", "distillation_loss", "seconds",
        }  # fmt: skip


def test_compute_is_what_the_formula_says() -> None:
    pool = ShuffledPool(0)
    halved("random", pool, candidates=64)
    assert pool.steps == 64 * (5 + 20 / 2 + 100 / 4)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_order_of_completion_changes_nothing(name: str) -> None:
    first = halved(name, ShuffledPool(1, fails=sometimes))
    assert len(first) == 70
    for pool in (ShuffledPool(2, fails=sometimes), ShuffledPool(3, slots=1, fails=sometimes)):
        assert outline(first) == outline(halved(name, pool))
    # Nor does how many are handed over at once: brackets are the same.
    assert outline(first) == outline(halved(name, ShuffledPool(1, fails=sometimes), cohort=5))


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("stop_after", [1, 20, 47])
def test_resumed_equals_uninterrupted(name: str, stop_after: int) -> None:
    first = ShuffledPool(1, fails=sometimes)
    whole = halved(name, first)
    for settings in ({"stop_after": stop_after}, {"stop_after_kept": stop_after}):
        pool, begun = ShuffledPool(2, fails=sometimes), dict[int, Candidate]()
        half = halved(name, pool, begun=begun, **settings)
        assert len(half) < 70
        # What is durable is JSON.
        begun = {i: through_json(candidate) for i, candidate in begun.items()}
        later = ShuffledPool(3, fails=sometimes)
        resumed = halved(name, later, known=half, begun=begun)
        assert outline(resumed) == outline(whole)
        # Nothing that was kept is scored again; the cohort that was being kept is lost.
        assert first.scored <= pool.scored + later.scored <= first.scored + 4 * 3


def through_json(candidate: Candidate) -> Candidate:
    content = json.loads(json.dumps(asdict(candidate)))
    return Candidate(**(content | {key: tuple(content[key]) for key in ("vector", "names")}))


def test_keeping_all_measures_every_rung_of_every_candidate() -> None:
    pool = ShuffledPool(0)
    recorded = halved("random", pool, ladder=ALL, candidates=21)
    assert all(len(c.rungs) == 3 and c.evaluation["final"] for c in recorded.values())
    assert pool.steps == 21 * 125


def test_brackets_end_where_the_strategy_waits() -> None:
    """ES asks for 16 and waits, then for 8 and waits: brackets of 12 and 4, then of 8."""
    recorded = halved("es", ShuffledPool(1), bracket=12, candidates=50)
    for members in brackets(recorded, [12, 4, 8, 8, 8, 8, 2]):
        going = members
        for rung in range(2):
            on = promoted([c.rungs[rung]["quality"] for c in going], [c.cost for c in going], 0.5)  # type: ignore[misc]
            assert [len(c.rungs) > rung + 1 for c in going] == on.tolist()
            going = [c for c, goes in zip(going, on, strict=True) if goes]


def test_all_failed() -> None:
    recorded = halved("es", ShuffledPool(1, fails=lambda masks, steps: True), candidates=20)
    assert all(c.failed and not c.stopped and len(c.rungs) == 1 for c in recorded.values())
    assert recorded[3].rungs[0] == {
        "fidelity": "proxy", "steps": 5, "quality": None, "error": "made to fail",
    }  # fmt: skip


def test_failing_later_is_failing() -> None:
    recorded = halved("random", ShuffledPool(1, fails=lambda masks, steps: steps == 100))
    found = list(recorded.values())
    late = [c for c in found if c.failed]
    assert late
    assert all(c.quality is None and len(c.rungs) == 3 for c in late)
    assert late[0].rungs[1]["quality"] > 0
    assert not scored(found)
    assert study_hypervolume(found) == 0.0


def test_a_record_in_which_others_went_on_is_refused() -> None:
    half = halved("random", ShuffledPool(0), stop_after=16)
    index = next(i for i, c in half.items() if c.stopped)
    rungs = [*half[index].rungs, half[index].rungs[-1]]
    half[index] = replace(half[index], evaluation={**half[index].evaluation, "rungs": rungs})
    with pytest.raises(ReplayError, match=rf"random-0-{index} reached rung \d in the record"):
        halved("random", ShuffledPool(0), known=half)


def test_a_record_from_before_there_were_rungs_goes_on() -> None:
    half = run("es", ShuffledPool(0), stop_after=20)
    for index, candidate in half.items():
        old = {
            key: value
            for key, value in candidate.evaluation.items()
            if key not in ("rungs", "rung", "final")
        }
        half[index] = replace(candidate, evaluation=old)
    pool = ShuffledPool(0)
    resumed = run("es", pool, known=half)
    assert vectors(resumed) == vectors(run("es", ShuffledPool(0)))
    assert pool.scored == 50
    assert len(scored(list(resumed.values()))) == 70


def test_only_final_candidates_are_compared() -> None:
    found = list(halved("random", ShuffledPool(1, fails=sometimes)).values())
    final = [c for c in found if not c.failed and c.evaluation["final"]]
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
    import optuna

    found = list(halved("random", ShuffledPool(1, fails=sometimes), candidates=24).values())
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
    found = halved("random", ShuffledPool(1, fails=sometimes)).values()
    stopped = next(c for c in found if c.stopped and len(c.rungs) == 2)
    final = scored(list(found))[0]
    shown = tracked.metrics(stopped)
    assert shown["quality"] == shown["rungs/1/quality"] == stopped.quality
    assert (shown["rungs/0/steps"], shown["rungs/1/steps"]) == (5, 20)
    assert "rungs/2/quality" not in shown
    for candidate, flags in ((stopped, ("1", "true")), (final, ("2", "false"))):
        tags = tracked.tags(candidate, front=False)
        assert (tags["rung"], tags["stopped"]) == flags
    plain = run("random", ShuffledPool(1), candidates=1)[0]
    assert not any("rung" in key for key in tracked.metrics(plain))
    assert not {"rung", "stopped"} & set(tracked.tags(plain, front=False))


class TestBenchmark:
    """benchmarks/rungs.py, on the curves of arms that measured every rung."""

    def module(self) -> dict[str, Any]:
        return runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "rungs.py"))

    def test_curves_are_those_of_whole_climbs(self) -> None:
        found = halved("random", ShuffledPool(0, fails=sometimes), ladder=ALL, candidates=21)
        recorded = self.module()["curves"](list(found.values()), (0.0, 1.1))
        whole = [c for c in found.values() if not c.failed]
        assert 0 < len(whole) < 21
        assert recorded["steps"] == [5, 20, 100]
        assert recorded["quality"] == [[r["quality"] for r in c.rungs] for c in whole]
        assert recorded["cost"] == [c.cost for c in whole]
        flat = run("random", ShuffledPool(0), candidates=21)
        with pytest.raises(ValueError, match="21 candidates with at most 1 rungs"):
            self.module()["curves"](list(flat.values()), (0.0, 1.1))

    def test_the_table(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(0)
        quality = rng.random((32, 1)).repeat(3, axis=1)  # rungs that tell no lies
        recorded = {
            "steps": [1, 2, 8], "seconds": [2.0, 3.0, 8.0], "quality": quality.tolist(),
            "cost": rng.random(32).tolist(), "reference": [0.0, 1.1],
        }  # fmt: skip
        (tmp_path / "curves.json").write_text(json.dumps({"curves": recorded}))
        files = ["--study", str(tmp_path / "curves.json"), "--json", str(tmp_path / "out.json")]
        monkeypatch.setattr(sys, "argv", ["rungs.py", "--quick", *files])
        self.module()["main"]()
        written = json.loads((tmp_path / "out.json").read_text())
        assert written["curves"] == recorded
        rows = {(*r["steps"], *r["keep"], r["bracket"]): r for r in written["rows"]}
        row = rows[1, 2, 8, 0.5, 0.5, 16]
        assert row["compute"] == pytest.approx((1 + 1 + 2) / 8)
        assert row["compute_seconds"] == pytest.approx((2 + 1.5 + 2) / 8)
        assert rows[2, 8, 0.5, 32]["compute"] == pytest.approx((2 + 4) / 8)
        assert all(r["n"] == 32 and r["orders"] == 21 for r in written["rows"])
        assert rows[1, 8, 0.5, 32]["worst"] == rows[1, 8, 0.5, 32]["hypervolume"] == 1.0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + len(rows)
        assert any(line.startswith("* 1 (50%) -> 2 (50%) -> 8 ") for line in lines)


class TestUnderWay:
    def log(self, folder: Path, *recorded: str) -> UnderWay:
        return UnderWay(folder / "record.underway", recorded)

    def candidates(self) -> list[Candidate]:
        begun: dict[int, Candidate] = {}
        halved("random", ShuffledPool(0), begun=begun, stop_after_kept=6)
        assert len(begun) == 6
        return list(begun.values())

    def test_what_is_kept_is_there_again(self, tmp_path: Path) -> None:
        a, b, c = self.candidates()[:3]
        a = replace(a, evaluation={**a.evaluation, "strange": [float("nan"), np.float32(0.5)]})
        log = self.log(tmp_path)
        assert not log.path.exists()
        log.keep(a)
        log.keep(b)
        later = replace(b, quality=0.75)
        log.keep(later)
        log.keep(c)
        log.forget(c.id)
        again = self.log(tmp_path, c.id).of("random", 0)
        assert again[b.index] == later
        assert str(again[a.index]) == str(replace(a, evaluation={
            **a.evaluation, "strange": [float("nan"), 0.5],
        }))  # fmt: skip
        assert set(again) == {a.index, b.index}
        assert self.log(tmp_path, c.id).of("random", 1) == {}
        assert self.log(tmp_path, c.id).of("es", 0) == {}

    def test_it_goes_with_the_last(self, tmp_path: Path) -> None:
        a, b = self.candidates()[:2]
        log = self.log(tmp_path)
        log.keep(a)
        log.keep(b)
        log.forget(a.id)
        assert log.path.exists()
        log.forget(b.id)
        assert not log.path.exists()
        log.keep(a)
        assert not self.log(tmp_path, a.id).path.exists()

    def test_a_line_cut_short_is_dropped(self, tmp_path: Path) -> None:
        a, b, c = self.candidates()[:3]
        log = self.log(tmp_path)
        log.keep(a)
        log.keep(b)
        log.path.write_bytes(log.path.read_bytes()[:-9])
        log = self.log(tmp_path)
        assert set(log.of("random", 0)) == {a.index}
        log.keep(c)
        assert set(self.log(tmp_path).of("random", 0)) == {a.index, c.index}

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "record.underway").write_text("dear diary\n")
        with pytest.raises(RecordError, match=r"record\.underway cannot be read: it does not"):
            self.log(tmp_path)

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = self.candidates()[:2]
        log = self.log(tmp_path)
        log.keep(a)

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(RecordError, match=f"{b.id} could not be written .* No space left"):
                log.keep(b)
        assert set(self.log(tmp_path).of("random", 0)) == {a.index}

    def test_the_writer_forgets_what_is_recorded(self, tmp_path: Path) -> None:
        a, b = self.candidates()[:2]
        writer = Writer(tmp_path / "record.journal", "s", None, {})
        writer.keep(a)
        writer.keep(b)
        writer.add(a)
        assert (set(writer.known("random", 0)), set(writer.begun("random", 0))) == (
            {a.index},
            {b.index},
        )
        writer.close(lambda tracker, candidates: None)
        again = Writer(tmp_path / "record.journal", "s", None, {})
        assert again.begun("random", 0) == {b.index: b}
        again.add(b)
        assert not (tmp_path / "record.underway").exists()
        again.close(lambda tracker, candidates: None)


def test_vectors_are_those_of_a_search_without_rungs() -> None:
    """Random search learns nothing, so halving must not change what it proposes."""
    assert vectors(halved("random", ShuffledPool(0))) == vectors(run("random", ShuffledPool(0)))
