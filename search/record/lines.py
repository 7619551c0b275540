"""The lines of a record: numbered and sealed when they are written, checked when they are read.

A line is what Optuna writes, an operation in JSON, and behind it three keys that Optuna passes
over: "arm", the name of the Optuna study that it is about; "line", its number from 0; and
"checksum", of all before it. What others append with plain Optuna has none of them, and is no part
of the record.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from partitioning import RECORD

#: Operations of Optuna's journal.
CREATE_STUDY, STUDY_ATTRIBUTE, CREATE_TRIAL = 0, 2, 4
#: Of every arm: quality is maximised, cost minimised.
DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
_MARK = b',"checksum":"'


class NoRecordError(ValueError):
    """A file that is something else than one record."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What a record's file holds.

    Attributes:
        sealed: Whole lines of the record's writer, by their numbers, each once.
        faults: What is wrong with the file, in words that name the line (from 1).
        lost: How many of the writer's lines are not there, or not whole.
        end: Number of the next line.
    """

    sealed: Sequence[Mapping[str, Any]]
    faults: Sequence[str]
    lost: int
    end: int


class SealingBackend(JournalFileBackend):
    """Optuna's file of a journal, with every line that is appended numbered and sealed.

    Args:
        path: The file.
        end: Number of the next line.
    """

    def __init__(self, path: Path, end: int) -> None:
        super().__init__(str(path))
        self.end = end
        #: The Optuna study that the next lines are about.
        self.arm = ""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations; they are on the disk when this returns."""
        numbered = enumerate(logs, start=self.end)
        super().append_logs([sealed(log | {"arm": self.arm, "line": n}) for n, log in numbered])
        self.end += len(logs)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the checksum that `unsealed` checks, as its last key."""
    return {**content, "checksum": _checksum(_dump(content))}


def unsealed(line: bytes) -> dict[str, Any] | None:
    """The object that a line of compact JSON holds; None where that is not what was sealed."""
    body, mark, tail = line.rstrip(b"\r\n").rpartition(_MARK)
    body += b"}"
    if not mark or tail != _checksum(body).encode() + b'"}':
        return None
    content: dict[str, Any] = json.loads(body)
    return content


def read_lines(path: Path, written: int | None = None) -> Lines:
    """Read a record's file past whatever is wrong with it.

    A last line without its end is being written, or was when its writer was killed: it is no fault.

    Args:
        path: The file.
        written: How many lines are known to have been written; None where that is not known.

    Raises:
        NoRecordError: It is something else, or two records in one.
        FormatError: It is the record of another version.
        OSError: It cannot be read.
    """
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    faults: list[str] = []
    others = broken = 0
    last = -1
    with open(path, "rb") as file:
        for position, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                break
            content = unsealed(raw)
            if content is None:
                fault = _fault(raw, path, first=not found)
                others += fault is None
                if fault is not None:
                    faults.append(f"line {position} {fault}")
                    broken += bool(raw.strip())
                continue
            _check_version(content, path)
            number = content["line"]
            place, known = found.setdefault(number, (position, content))
            if place != position:
                if _dump(known) != _dump(content):
                    raise NoRecordError(
                        f"line {position} and line {place} are both number {number}, so two "
                        "records are mixed in it"
                    )
                faults.append(f"line {position} repeats line {place}")
            elif number < last:
                faults.append(f"line {position} is out of its order")
            last = max(last, number)
    if faults and not found and not others:
        raise NoRecordError(f"{faults[0]}, and no other line is one of a record")
    end = max(max(found, default=-1) + 1, written or 0)
    missing = [number for number in range(end) if number not in found]
    if len(missing) > broken:
        before = [place for number, (place, _) in found.items() if number < missing[0]]
        after = f"after line {max(before)}" if before else "at the beginning"
        faults.append(f"{_lines(len(missing) - broken)} missing, the first {after}")
    return Lines(
        sealed=[found[number][1] for number in sorted(found)],
        faults=faults,
        lost=len(missing),
        end=end,
    )


def mended(lines: Lines) -> Iterable[bytes]:
    """The sealed lines as a file that Optuna reads: numbered anew, every arm with a beginning.

    Args:
        lines: Of a damaged file.
    """
    arms: list[str] = []
    number = 0
    for line in lines.sealed:
        content = dict(line)
        arm = content["arm"]
        steps = [content]
        if arm not in arms:
            arms.append(arm)
            if content["op_code"] != CREATE_STUDY:  # the line that began the arm is lost
                begin = {"op_code": CREATE_STUDY, "worker_id": content["worker_id"]}
                steps.insert(0, begin | {"study_name": arm, "directions": DIRECTIONS, "arm": arm})
        for step in steps:
            if "study_id" in step:
                step["study_id"] = arms.index(arm)
            step["line"] = number
            number += 1
            yield _dump(sealed(step)) + b"\n"


def _fault(raw: bytes, path: Path, *, first: bool) -> str | None:
    """What is wrong with a line that is not sealed; None where another program appended it."""
    if not raw.strip():
        return "is blank"
    try:
        content = json.loads(raw)
        operation = content["op_code"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return "is cut short or garbled"
    if "checksum" in content:
        return "was changed since it was written"
    attributes = content.get("user_attr", {})
    if operation == STUDY_ATTRIBUTE and RECORD.name in attributes:
        RECORD.check(attributes[RECORD.name], path)
    if operation == CREATE_TRIAL and "index" in content.get("user_attrs", {}):
        if first:  # as in records before lines were sealed
            RECORD.check(None, path)
        return "has lost its checksum"
    return None


def _check_version(content: Mapping[str, Any], path: Path) -> None:
    if content["op_code"] == STUDY_ATTRIBUTE and RECORD.name in content["user_attr"]:
        RECORD.check(content["user_attr"][RECORD.name], path)


def _lines(count: int) -> str:
    return "1 line is" if count == 1 else f"{count} lines are"


def _dump(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
