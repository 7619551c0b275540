"""A record with a line torn, lost, doubled or changed, or without its file: said, read, mended."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from search.record import Record, RecordError, read_record
from search.record.record import _warn
from tests.helpers.records import load_arm, make

Damage = Callable[[list[bytes]], list[bytes]]


def torn(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], lines[4][:40] + b"\n", *lines[5:]]


def changed(lines: list[bytes]) -> list[bytes]:
    assert b'"quality":' in lines[4]
    return [*lines[:4], lines[4].replace(b'"quality":0.', b'"quality":0.9', 1), *lines[5:]]


#: What is done to the file, what is said of it, and which candidates are lost of "es" 0 to 3 and
#: "random" 0 and 1. Lines 1 to 3 and 8 to 10 begin the two arms.
DAMAGES: dict[str, tuple[Damage, str, list[str]]] = {
    "blank": (lambda lines: [*lines[:4], b"\n", *lines[4:]], "line 5 is blank", []),
    "torn": (torn, "line 5 is cut short or garbled", ["es-0-1"]),
    "changed": (changed, "line 5 was changed", ["es-0-1"]),
    "lost": (lambda lines: lines[:4] + lines[5:], "1 line is missing, the first after line 4",
             ["es-0-1"]),
    "swapped": (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]],
                "line 6 is out of its order", []),
    "beginning moved": (lambda lines: [*lines[1:6], lines[0], *lines[6:]],
                        "line 6 is out of its order", []),
    "doubled": (lambda lines: lines[:5] + lines[4:], "line 6 repeats line 5", []),
    "first lost": (lambda lines: lines[1:], "1 line is missing, the first at the beginning", []),
    "first torn": (lambda lines: [lines[0][:9] + b"\n", *lines[1:]], "line 1 is cut short", []),
    "arm's beginning lost": (lambda lines: lines[:7] + lines[8:],
                             "1 line is missing, the first after line 7", []),
    "version lost": (lambda lines: lines[:2] + lines[3:],
                     "1 line is missing, the first after line 2", []),
    "last lost": (lambda lines: lines[:-1], "1 line is missing, the first after line 11",
                  ["random-0-1"]),
    "last torn": (lambda lines: [*lines[:-1], lines[-1][:40]], "1 line is missing, the first after",
                  ["random-0-1"]),
    "not text": (lambda lines: [*lines[:4], b"\xff\x00\n", *lines[5:]], "line 5 is cut short",
                 ["es-0-1"]),
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record of two arms, in a folder of its own."""
    path = tmp_path / "record.journal"
    with Record(path, "toy") as record:
        for index in range(4):
            record.add(make(index=index))
        for index in range(2):
            record.add(make("random", index=index))
    assert len(path.read_bytes().splitlines()) == 12
    _warn.cache_clear()
    return path


@pytest.mark.parametrize("name", DAMAGES)
def test_read_past_said_and_mended(path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = read_record(path, "toy")
    damage, words, lost = DAMAGES[name]
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    damaged = path.read_bytes()
    kept = [candidate for candidate in whole if candidate.id not in lost]
    with caplog.at_level(logging.WARNING):
        assert read_record(path, "toy") == read_record(path, "toy") == kept
    assert len(caplog.messages) == 1, "said once"
    assert f"{path} is damaged: {words}" in caplog.text
    assert "search with --resume" in caplog.text
    assert path.read_bytes() == damaged, "reading changes nothing"
    caplog.clear()
    with Record(path, "toy") as record:
        assert record.candidates() == kept
        for candidate in whole:
            if candidate.id in lost:
                record.add(candidate)
    assert words in caplog.text
    assert sorted(read_record(path, "toy"), key=str) == sorted(whole, key=str)
    # Nothing is lost: what was there is kept, but for half a line that was never whole.
    copy = path.with_name("record.journal.damaged").read_bytes()
    assert copy == damaged[: damaged.rfind(b"\n") + 1]
    _warn.cache_clear()
    caplog.clear()
    Record(path, "toy").close()
    assert not caplog.messages, "mended once and for all"
    trials = load_arm(path, "toy/es/0").trials + load_arm(path, "toy/random/0").trials
    assert len(trials) == 6, "as plain Optuna reads it"


def test_a_record_that_is_gone_or_empty(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    words = r"gone, or empty, of which 12 lines.*from a copy, or delete"
    for use in (read_record, Record):
        with pytest.raises(RecordError, match=words):
            use(path, "toy")
    assert not path.exists()
    path.write_bytes(b"")
    for use in (read_record, Record):
        with pytest.raises(RecordError, match=words):
            use(path, "toy")
    path.write_bytes(content)
    assert len(read_record(path, "toy")) == 6
    path.unlink()
    path.with_name("record.journal.writer").unlink()
    Record(path, "toy").close()


def test_two_records_in_one(path: Path) -> None:
    """Of one name and number by number alike, as runs of a config at two places are."""
    other = path.with_name("other.journal")
    with Record(other, "toy") as record:
        record.add(make(index=0, quality=0.1))
    for mixed in (path.read_bytes() + other.read_bytes(), other.read_bytes() + path.read_bytes()):
        path.write_bytes(mixed)
        for use in (read_record, Record):
            with pytest.raises(RecordError, match=r"are both number 0, so two records are mixed"):
                use(path, "toy")
        assert path.read_bytes() == mixed


def test_a_note_that_finds_no_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes the candidate but not the note beside it: it is not recorded twice."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with Record(path, "toy") as record:
        monkeypatch.setattr("os.pwrite", full)
        record.add(make(index=4))
        monkeypatch.undo()
        with pytest.raises(RecordError, match="already"):
            record.add(make(index=4))
        record.add(make(index=5))
    assert [c.id for c in read_record(path, "toy")][4:6] == ["es-0-4", "es-0-5"]
    noted = path.with_name("record.journal.writer").read_text()
    assert noted.endswith(f", {len(path.read_bytes().splitlines())} lines written\n")


def test_what_others_append_is_passed_over_in_silence(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_arm(path, "toy/es/0").enqueue_trial({"use[digits]": 0.5})
    assert len(read_record(path, "toy")) == 6
    with Record(path, "toy") as record:
        record.add(make(index=4))
    assert len(read_record(path, "toy")) == 7
    assert not caplog.messages


def test_the_seal_is_the_files_own(path: Path) -> None:
    """Lines are numbered, name their arm, and cannot be exchanged between places."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["line"] for entry in entries] == list(range(12))
    assert {entry["arm"] for entry in entries} == {"toy/es/0", "toy/random/0"}
    assert len({entry["checksum"] for entry in entries}) == 12
