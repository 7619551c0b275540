"""The record: round trips, one writer, crashes, a full disk, and what plain Optuna makes of it."""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.record import Record, read_record
from search.record.record import Candidate, DuplicateCandidate, RecordError

NAMES = ("use[digits]", "use[shapes]", "overlap[digits,shapes]")


def make(strategy: str = "es", seed: int = 0, index: int = 0, **changes: Any) -> Candidate:
    rng = np.random.default_rng([seed, abs(index)])
    cost = float(rng.uniform(0.1, 1.0))
    candidate = Candidate(
        strategy=strategy,
        seed=seed,
        index=index,
        vector=tuple(rng.uniform(size=3).tolist()),
        names=NAMES,
        quality=float(rng.uniform(0.3, 0.9)),
        cost=cost,
        error=None,
        evaluation={
            "accuracy": {"digits": 0.5, "shapes": 0.25},
            "realised": {"stage3": [[0.5, 0.25], [0.25, 0.75]]},
            "proven": True,
        },
        started=1_700_000_000.123456 + index,
        finished=1_700_000_001.654321 + index,
    )
    return replace(candidate, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record.journal"


def in_process(code: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process of its own, with `make` and the record imported."""
    head = f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    head += "from test_record import *\n"
    command = [sys.executable, "-c", head + code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)


class TestRoundTrip:
    def test_what_was_added_comes_back_exactly(self, path: Path) -> None:
        added = [make(index=1), make(index=0), make("random", 3, 2), make("es", 1, 0)]
        with Record(path, "toy") as record:
            for candidate in added:
                record.add(candidate)
            expected = [added[1], added[0], added[3], added[2]]
            assert record.candidates() == expected
            assert record.candidates(strategy="es", seed=0) == expected[:2]
            assert record.candidates(seed=3) == [added[2]]
        assert read_record(path, "toy") == expected
        with Record(path, "toy") as record:
            assert record.candidates() == expected

    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_any_vector_any_json(self, data: st.DataObject, tmp_path_factory: object) -> None:
        vector = data.draw(st.lists(st.floats(0, 1), max_size=5))
        leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
        tree = st.recursive(
            leaves, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(), t, max_size=3)
        )
        candidate = make(
            vector=tuple(vector),
            names=tuple(f"use[{i}]" for i in range(len(vector))),
            quality=data.draw(st.floats(allow_nan=False, allow_infinity=False)),
            evaluation={"tree": data.draw(tree)},
            started=data.draw(st.floats(0, 4e9)),
        )
        folder = tmp_path_factory.mktemp("any")  # type: ignore[attr-defined]
        with Record(folder / "record.journal", "toy") as record:
            record.add(candidate)
        [found] = read_record(folder / "record.journal", "toy")
        assert found == candidate

    def test_numbers_of_numpy_and_numbers_json_lacks(self, path: Path) -> None:
        evaluation = {
            "accuracy": {"digits": np.float32(0.5), "shapes": math.nan},
            "costs": {"macs": np.int64(7), "latency": math.inf},
            "realised": {"stage3": np.eye(2)},
            "proven": np.bool_(True),
        }
        with Record(path, "toy") as record:
            record.add(make(evaluation=evaluation, quality=np.float64(0.5), cost=np.float32(0.5)))
        [found] = read_record(path, "toy")
        assert math.isnan(found.evaluation["accuracy"].pop("shapes"))
        assert found.evaluation == {
            "accuracy": {"digits": 0.5},
            "costs": {"macs": 7, "latency": math.inf},
            "realised": {"stage3": [[1.0, 0.0], [0.0, 1.0]]},
            "proven": True,
        }

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        for line in path.read_text().splitlines():
            json.loads(line, parse_constant=refuse)

    def test_what_json_cannot_hold_is_refused_and_leaves_no_trace(self, path: Path) -> None:
        with Record(path, "toy") as record:
            with pytest.raises(ValueError, match=r"es-0-0.*object"):
                record.add(make(evaluation={"network": object()}))
            assert record.candidates() == []
            record.add(make())

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"vector": (0.1, 1.2, 0.3)}, r"es-0-0: use\[shapes\] must be in \[0, 1\], got 1.2"),
            ({"vector": (0.1, math.nan, 0.3)}, "got nan"),
            ({"vector": (0.1,)}, "1 entries and 3 different names"),
            ({"names": ("a", "a", "b")}, "3 entries and 2 different names"),
            ({"index": -1}, "index must be >= 0"),
            ({"strategy": "a/b"}, "hold '/'"),
            ({"evaluation": {"error": 1}}, r"must not use the keys \['error'\]"),
        ],
    )
    def test_bad_candidates_are_refused(self, changes: dict[str, Any], match: str) -> None:
        with pytest.raises(ValueError, match=match):
            make(**changes)

    def test_studies_with_similar_names_are_kept_apart(self, path: Path) -> None:
        for study, strategy in (("toy", "es"), ("my/toy", "es"), ("toy/es", "random")):
            with Record(path, study) as record:
                record.add(make(strategy))
        assert [c.id for c in read_record(path, "toy")] == ["es-0-0"]
        assert [c.id for c in read_record(path, "toy/es")] == ["random-0-0"]
        assert read_record(path, "es") == []


class TestFailed:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"quality": None, "cost": None, "error": "killed"}, "killed"),
            ({"quality": 0.5, "cost": 0.25, "error": "late"}, "late"),
            ({"quality": math.nan}, "not finite: quality nan"),
            ({"cost": math.inf}, "cost inf"),
            ({"cost": None}, "cost None"),
        ],
    )
    def test_are_kept_as_failed_with_the_reason(
        self, path: Path, changes: dict[str, Any], reason: str
    ) -> None:
        candidate = make(**changes)
        assert candidate.failed
        with Record(path, "toy") as record:
            record.add(candidate)
        [found] = read_record(path, "toy")
        assert found.failed
        assert found.error is not None
        assert reason in found.error
        assert repr((found.quality, found.cost)) == repr((candidate.quality, candidate.cost))
        assert found.vector == candidate.vector
        [trial] = load_arm(path, "toy/es/0").trials
        assert trial.state == TrialState.FAIL


def load_arm(path: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


def test_plain_optuna_reads_it(path: Path) -> None:
    scores = [(0.5, 0.5), (0.9, 0.9), (0.4, 0.6), (0.2, 0.1)]
    with Record(path, "toy") as record:
        for index, (quality, cost) in enumerate(scores):
            record.add(make(index=index, quality=quality, cost=cost))
        record.add(make(index=4, quality=None, cost=None, error="killed"))
    arm = load_arm(path, "toy/es/0")
    assert {trial.user_attrs["index"] for trial in arm.best_trials} == {0, 1, 3}
    assert [direction.name for direction in arm.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert arm.metric_names == ["quality", "cost"]
    trial = arm.trials[1]
    assert trial.params == dict(zip(NAMES, make(index=1).vector, strict=True))
    assert trial.user_attrs["accuracy"] == {"digits": 0.5, "shapes": 0.25}
    assert trial.datetime_start is not None
    assert trial.datetime_start.timestamp() == pytest.approx(make(index=1).started, abs=1e-5)
    assert trial.duration is not None
    assert trial.duration.total_seconds() == pytest.approx(1.530865, abs=1e-5)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
    arm.sampler = sampler  # a sampler can go on from it
    assert set(arm.ask(dict(arm.trials[0].distributions)).params) == set(NAMES)


def test_trials_that_others_add_are_no_candidates(path: Path) -> None:
    with Record(path, "toy") as record:
        record.add(make())
    load_arm(path, "toy/es/0").enqueue_trial({NAMES[0]: 0.5})
    assert [candidate.id for candidate in read_record(path, "toy")] == ["es-0-0"]


def test_no_output(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = optuna.logging.get_verbosity()
    with Record(path, "toy") as record:
        record.add(make())
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity


class TestOneWriter:
    def test_the_same_candidate_twice_is_refused(self, path: Path) -> None:
        with Record(path, "toy") as record:
            record.add(make())
            size = path.stat().st_size
            with pytest.raises(DuplicateCandidate, match="es-0-0"):
                record.add(make(quality=0.1))
            assert path.stat().st_size == size
        with Record(path, "toy") as record, pytest.raises(DuplicateCandidate, match="es-0-0"):
            record.add(make())

    def test_a_second_writer_is_refused_with_the_name_of_the_first(self, path: Path) -> None:
        with Record(path, "toy") as record:
            with pytest.raises(RecordError, match=rf"process {os.getpid()} on .*journal\.writer"):
                Record(path, "toy")
            result = in_process("Record(Path(sys.argv[1]), 'toy')", path, check=False)
            assert f"process {os.getpid()}" in result.stderr
            record.add(make())
        Record(path, "toy").close()

    def test_closed_means_closed(self, path: Path) -> None:
        record = Record(path, "toy")
        record.close()
        with pytest.raises(RecordError, match="closed"):
            record.add(make())

    def test_readers_see_whole_candidates_while_it_is_written(self, path: Path) -> None:
        code = "record = Record(Path(sys.argv[1]), 'toy')\n"
        code += "for i in range(300): record.add(make(index=i))"
        Record(path, "toy").close()
        head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        head += "from test_record import *\n"
        writer = subprocess.Popen([sys.executable, "-c", head + code, str(path)])
        counts = []
        while writer.poll() is None:
            found = read_record(path, "toy")
            assert found == [make(index=i) for i in range(len(found))]
            counts.append(len(found))
        assert writer.returncode == 0
        assert counts == sorted(counts)
        assert len(set(counts)) > 3
        assert len(read_record(path, "toy")) == 300


class TestCrash:
    def test_killed_while_writing(self, path: Path) -> None:
        code = "record = Record(Path(sys.argv[1]), 'toy')\nfor i in range(10**6):\n"
        code += "    record.add(make(index=i)); print(i, flush=True)"
        head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        head += "from test_record import *\n"
        for _ in range(3):
            Path.unlink(path, missing_ok=True)
            writer = subprocess.Popen(
                [sys.executable, "-c", head + code, str(path)], stdout=subprocess.PIPE, text=True
            )
            assert writer.stdout is not None
            told = [int(next(writer.stdout)) for _ in range(20)]
            writer.send_signal(signal.SIGKILL)
            told += [int(line) for line in writer.stdout.read().split()]
            writer.wait()
            writer.stdout.close()
            found = read_record(path, "toy")
            assert len(found) >= len(told)  # what was added had been told to be safe
            with Record(path, "toy") as record:
                assert record.candidates() == found
                record.add(make(index=10**6))
            assert [c.index for c in read_record(path, "toy")] == [c.index for c in found] + [10**6]

    def test_a_stale_lock_of_optunas_costs_no_time(self, path: Path) -> None:
        with Record(path, "toy") as record:
            record.add(make())
        lock = path.with_name("record.journal.lock")
        lock.symlink_to(path)
        torn = path.with_name("record.journal.lock1234.rename")
        torn.symlink_to(path)
        begin = time.monotonic()
        with Record(path, "toy") as record:
            record.add(make(index=1))
        assert time.monotonic() - begin < 5  # Optuna would wait for 30
        assert sorted(os.listdir(path.parent)) == ["record.journal", "record.journal.writer"]

    @pytest.mark.parametrize("cut", [1, 2, 500])
    def test_a_line_cut_short_is_dropped(self, path: Path, cut: int) -> None:
        with Record(path, "toy") as record:
            record.add(make())
            record.add(make(index=1))
        os.truncate(path, path.stat().st_size - cut)
        assert [c.index for c in read_record(path, "toy")] == [0]
        with Record(path, "toy") as record:
            assert [c.index for c in record.candidates()] == [0]
            record.add(make(index=1))
            record.add(make(index=2))
        assert [c.index for c in read_record(path, "toy")] == [0, 1, 2]

    def test_a_garbled_last_line_is_dropped(self, path: Path) -> None:
        with Record(path, "toy") as record:
            record.add(make())
        sound = path.read_bytes()
        path.write_bytes(sound + b"\0" * 70_000 + b'"x"}\n')
        with Record(path, "toy") as record:
            record.add(make(index=1))
        assert path.read_bytes().startswith(sound)
        assert [c.index for c in read_record(path, "toy")] == [0, 1]

    def test_the_very_first_line_cut_short(self, path: Path) -> None:
        path.write_bytes(b'{"op_c')
        with Record(path, "toy") as record:
            record.add(make())
        assert len(read_record(path, "toy")) == 1

    def test_damage_in_the_middle_is_told(self, path: Path) -> None:
        with Record(path, "toy") as record:
            record.add(make())
            record.add(make(index=1))
        lines = path.read_bytes().splitlines(keepends=True)
        damaged = b"".join([*lines[:-2], lines[-2][:-30] + b"\n", lines[-1]])
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match="damaged"):
            read_record(path, "toy")
        with pytest.raises(RecordError, match="damaged"):
            Record(path, "toy")
        assert path.read_bytes() == damaged
        path.write_bytes(b"".join(lines))
        Record(path, "toy").close()  # and the lock had been freed

    def test_another_kind_of_file_is_left_alone(self, path: Path) -> None:
        path.write_bytes(b"dear diary\nno newline")
        with pytest.raises(RecordError, match="not a record"):
            Record(path, "toy")
        assert path.read_bytes() == b"dear diary\nno newline"


FILL = """
path, room = Path(sys.argv[1]), int(sys.argv[2])
record = Record(path, "toy")
for i in range(5): record.add(make(index=i))
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, resource.RLIM_INFINITY))
for _ in range(2):  # the second try meets whatever the first has left
    try:
        record.add(make("random", index=7))
    except RecordError as error:
        print(error)
    assert path.read_bytes() == before, "the torn line must be gone"
    assert [c.index for c in record.candidates()] == list(range(5))
    assert [c.index for c in read_record(path, "toy")] == list(range(5))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
record.add(make("random", index=7))
record.add(make(index=5))
"""


class TestFullDisk:
    @pytest.mark.parametrize("room", [0, 40, 400])  # none, a part of a line, a line but no more
    def test_leaves_it_readable_and_appendable(self, path: Path, room: int) -> None:
        result = in_process(FILL, path, room, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("free space") == 2
        assert "random-0-7 could not be written" in result.stdout
        found = read_record(path, "toy")
        assert [c.id for c in found] == [f"es-0-{i}" for i in range(6)] + ["random-0-7"]
        assert load_arm(path, "toy/random/0").metric_names == ["quality", "cost"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")])
    def test_a_write_that_may_not_be_durable_is_taken_back(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        sync, errors = os.fsync, [error]

        def fsync(file: int) -> None:
            if errors:
                raise errors.pop()
            sync(file)

        with Record(path, "toy") as record:
            record.add(make())
            before = path.read_bytes()
            monkeypatch.setattr(os, "fsync", fsync)
            with pytest.raises(RecordError if isinstance(error, OSError) else type(error)):
                record.add(make(index=1))
            assert path.read_bytes() == before
            record.add(make(index=1))
            assert [c.index for c in record.candidates()] == [0, 1]

    def test_what_could_not_be_taken_back_at_once_is_later(self, path: Path) -> None:
        with Record(path, "toy") as record:
            record.add(make())
            size = path.stat().st_size
            with path.open("ab") as journal:
                journal.write(b'{"op_code":4,"half')
            record._storage = None  # what is left when even truncating fails
            assert [c.index for c in record.candidates()] == [0]
            record.add(make(index=1))
        assert path.read_bytes()[:size].endswith(b"\n")
        assert [c.index for c in read_record(path, "toy")] == [0, 1]


@pytest.fixture
def readonly() -> Iterator[Path]:
    """A record with one candidate, in a folder that this process may not write to."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    with Record(folder / "record.journal", "toy") as record:
        record.add(make())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        yield folder / "record.journal"
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
        shutil.rmtree(folder)


class TestFolders:
    def test_a_read_only_folder_can_be_read_but_not_written(self, readonly: Path) -> None:
        before = sorted(os.listdir(readonly.parent))
        assert read_record(readonly, "toy") == [make()]
        assert sorted(os.listdir(readonly.parent)) == before
        with pytest.raises(RecordError, match=r"Permission denied.*Choose a study folder"):
            Record(readonly, "toy")

    def test_a_missing_folder_and_a_missing_record(self, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match="folder that exists"):
            Record(tmp_path / "none" / "record.journal", "toy")
        with pytest.raises(RecordError, match="no record at"):
            read_record(tmp_path / "record.journal", "toy")
        assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_two_thousand_candidates(path: Path) -> None:
    names = tuple(f"entry[{i}]" for i in range(45))
    vector = tuple(np.linspace(0, 1, 45).tolist())
    with Record(path, "toy") as record:
        begin = time.monotonic()
        for index in range(2000):
            record.add(make(index=index, vector=vector, names=names))
        print(f"{2000 / (time.monotonic() - begin):.0f} candidates a second")
    begin = time.monotonic()
    assert len(read_record(path, "toy")) == 2000
    seconds = time.monotonic() - begin
    print(f"2,000 read in {seconds:.1f} s")
    assert seconds < 10


# Used by the code that runs in processes of its own.
__all__ = ["Path", "Record", "RecordError", "make", "read_record", "resource"]
