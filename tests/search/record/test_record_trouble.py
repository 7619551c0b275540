"""The record after crashes, on a full disk, and in folders that cannot be written to."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.record import Record, read_record
from search.record.record import RecordError
from tests.helpers.records import in_process, load_arm, make, process


class TestCrash:
    def test_killed_while_writing(self, path: Path) -> None:
        code = "record = Record(Path(sys.argv[1]), 'toy')\nfor i in range(10**6):\n"
        code += "    record.add(make(index=i)); print(i, flush=True)"
        for _ in range(3):
            for file in path.parent.iterdir():
                file.unlink()
            writer = subprocess.Popen(process(code, path), stdout=subprocess.PIPE, text=True)
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
