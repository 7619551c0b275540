"""A file of JSON lines with one writer: a lock that dies with its holder, and mending a crash."""

import fcntl
import json
import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

#: How often the lock is tried, 50 ms apart.
LOOKS = 5


def lock_for_writing(path: Path) -> IO[str]:
    """Becomes the only writer of the file at `path`, until the file returned is closed.

    The kernel frees the lock when its holder ends, however it ends. The lock file itself stays: if
    it were removed, two processes could each hold "the" lock.

    Raises:
        BlockingIOError: another process, which the message names, holds the lock.
        OSError: the folder cannot be written, or its file system has no locks.
    """
    lock_path = path.with_name(path.name + ".writer")
    lock = open(lock_path, "r+", opener=_make_or_open)  # noqa: SIM115 - as long as it is held
    try:
        _take(lock)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().partition(",")[0] or "another process"
        lock.close()
        raise BlockingIOError(
            error.errno, f"it is being written by {holder}", str(lock_path)
        ) from None
    except OSError:
        lock.close()
        raise
    return lock


def _take(lock: IO[str]) -> None:
    """Take the lock; who looks whether a file is written has it for a moment, too."""
    for left in reversed(range(LOOKS)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.05)


def is_written(path: Path) -> bool:
    """Whether a process writes the file at `path` at this moment; nothing is made or changed.

    Where that cannot be found out, nobody is taken to write it.
    """
    try:
        with open(path.with_name(path.name + ".writer")) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def say_written(lock: IO[str], lines: int) -> None:
    """Notes in the lock file who holds it, and how many lines its file has.

    So lines that are gone from the end of the file, or with the whole file, are noticed. A disk
    that has no room for the note is no reason to fail: the lines themselves are written.
    """
    note = f"process {os.getpid()} on {socket.gethostname()}, {lines} lines written\n".encode()
    with suppress(OSError):
        os.pwrite(lock.fileno(), note, 0)  # over the old note, which takes no more room
        os.ftruncate(lock.fileno(), len(note))


def _make_or_open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def lines_written(path: Path) -> int | None:
    """How many lines of the file at `path` its last writer has noted; None where none did."""
    try:
        note = path.with_name(path.name + ".writer").read_text()
    except (OSError, ValueError):
        return None
    found = re.search(r", (\d+) lines written\n", note)
    return int(found[1]) if found else None


def mend(path: Path, begins: bytes) -> None:
    """Makes the file appendable after a crash, or makes an empty one; only for the lock's holder.

    A last line that was cut short or garbled is removed, and so are lock files that Optuna left
    beside it: the lock's holder is the only writer, so whoever made them is dead, and Optuna would
    wait half a minute for each.

    Args:
        path: the file.
        begins: how every line of such a file begins, lest another kind of file is cut.

    Raises:
        ValueError: no line begins so.
        OSError: the file or its folder cannot be written.
    """
    for stale in path.parent.glob(f"{path.name}.lock*"):
        if stale.suffix in (".lock", ".rename"):
            stale.unlink()
    with open(path, "ab+") as lines:
        size = lines.seek(0, os.SEEK_END)
        lines.seek(0)
        if size and not any(line.startswith(begins) or begins.startswith(line) for line in lines):
            raise ValueError(f"no line begins with {begins.decode()}")
        whole = _end_of_sound_lines(lines, size)
        if whole < size:
            lines.truncate(whole)
        os.fsync(lines.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # a new file is durable once its folder is
    finally:
        os.close(folder)


def _end_of_sound_lines(lines: IO[bytes], size: int) -> int:
    """Where the next line belongs: behind the last line that is whole and valid JSON."""
    end = _behind_newline(lines, size)
    while end > 0:
        start = _behind_newline(lines, end - 1)
        lines.seek(start)
        try:
            json.loads(lines.read(end - start))
        except ValueError:  # after a power cut a line can have its end but not its middle
            end = start
        else:
            break
    return end


def _behind_newline(lines: IO[bytes], end: int, chunk: int = 1 << 16) -> int:
    """Position behind the last newline before `end`; 0 if there is none."""
    while end > 0:
        start = max(0, end - chunk)
        lines.seek(start)
        newline = lines.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
