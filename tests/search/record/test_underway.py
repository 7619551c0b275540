"""What is kept of candidates that are under way, until they are recorded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.candidates import Candidate, Rung
from search.record import Writer
from search.record.record import RecordError
from search.record.underway import UnderWay
from tests.helpers.arms import ArmRun
from tests.helpers.pools import ShuffledPool

LADDER = (Rung(steps=5, keep=0.5), Rung(steps=20, keep=0.5), Rung(steps=100))


def opened(folder: Path, *recorded: str) -> UnderWay:
    return UnderWay(folder / "record.underway", recorded)


def six_candidates() -> list[Candidate]:
    begun: dict[int, Candidate] = {}
    ArmRun("random", ladder=LADDER, bracket=8).run_until_kept(6, ShuffledPool(0), begun=begun)
    assert len(begun) == 6
    return list(begun.values())


def test_what_is_kept_is_there_again(tmp_path: Path) -> None:
    a, b, c = six_candidates()[:3]
    strange = replace(a.rungs[0], seconds=float("nan"), quality_std=np.float32(0.5))
    a = replace(a, rungs=(strange,))
    log = opened(tmp_path)
    assert not log.path.exists()
    log.keep(a)
    log.keep(b)
    later = replace(b, quality=0.75)
    log.keep(later)
    log.keep(c)
    log.forget(c.id)
    again = opened(tmp_path, c.id).of("random", 0)
    assert again[b.index] == later
    (kept,) = again[a.index].rungs
    assert np.isnan(kept.seconds)
    assert replace(kept, seconds=strange.seconds) == strange
    assert replace(again[a.index], rungs=a.rungs) == a
    assert set(again) == {a.index, b.index}
    assert opened(tmp_path, c.id).of("random", 1) == {}
    assert opened(tmp_path, c.id).of("es", 0) == {}


def test_it_goes_with_the_last(tmp_path: Path) -> None:
    a, b = six_candidates()[:2]
    log = opened(tmp_path)
    log.keep(a)
    log.keep(b)
    log.forget(a.id)
    assert log.path.exists()
    log.forget(b.id)
    assert not log.path.exists()
    log.keep(a)
    assert not opened(tmp_path, a.id).path.exists()


def test_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    a, b, c = six_candidates()[:3]
    log = opened(tmp_path)
    log.keep(a)
    log.keep(b)
    log.path.write_bytes(log.path.read_bytes()[:-9])
    log = opened(tmp_path)
    assert set(log.of("random", 0)) == {a.index}
    log.keep(c)
    assert set(opened(tmp_path).of("random", 0)) == {a.index, c.index}


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.underway").write_text("dear diary\n")
    with pytest.raises(RecordError, match=r"record\.underway cannot be read: no line begins"):
        opened(tmp_path)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = six_candidates()[:2]
    log = opened(tmp_path)
    log.keep(a)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(RecordError, match=f"{b.id} could not be written .* No space left"):
            log.keep(b)
    assert set(opened(tmp_path).of("random", 0)) == {a.index}


def test_the_writer_forgets_what_is_recorded(tmp_path: Path) -> None:
    a, b = six_candidates()[:2]
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


def test_what_was_under_way_goes_with_its_record(tmp_path: Path) -> None:
    """Who begins a study anew may have other data."""
    (a, *_) = six_candidates()
    path = tmp_path / "record.journal"
    for data in ("one", "other"):
        writer = Writer(path, "s", None, {})
        writer.begin([("random", 0)], {"data": data})
        assert writer.begun("random", 0) == {}
        writer.keep(a)
        writer.begin([("random", 0)], {"data": data})
        assert writer.begun("random", 0) == {a.index: a}
        writer.close(lambda tracker, candidates: None)
        path.unlink()
        (tmp_path / "record.journal.writer").unlink()
