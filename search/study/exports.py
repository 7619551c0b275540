"""Where candidates were exported to: an entry for each export that became whole."""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from partitioning import DamagedFileError, read_json, write_json
from search.study.shelf import Say, move_aside

#: In a study's folder.
FILE = "exports.json"


def note_export(
    study: Path, *, candidate: str, seed: int, out: Path, formats: Sequence[str], say: Say
) -> None:
    """Keep where an export lies; of those that lay there before it nothing is kept.

    Args:
        study: The study's folder; where it cannot be written, nothing is kept.
        candidate: What was exported.
        seed: Of its training.
        out: Folder of the networks.
        formats: That were written.
        say: Called with a line where nothing is kept.
    """
    where = str(out.absolute())
    entry = {
        "candidate": candidate,
        "seed": seed,
        "path": where,
        "time": time.time(),
        "formats": list(formats),
    }
    try:
        with _alone(study):
            before = [one for one in _entries(study, say) if one["path"] != where]
            write_json(study / FILE, {"exports": [*before, entry]}, sealed=True)
    except (OSError, DamagedFileError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        say(f"the export is whole; the study's page will not name it, as {study / FILE} cannot be "
            f"written: {said}")  # fmt: skip


def read_exports(study: Path, say: Say) -> list[dict[str, Any]]:
    """Exports that became whole, the first first: candidate, seed, path, time and formats.

    Args:
        study: The study's folder.
        say: Called with a line where they cannot be read; then there are none.
    """
    try:
        return _read(study)
    except (OSError, DamagedFileError) as error:
        say(f"warning: exports of {study} are not known: {error}")
        return []


def _read(study: Path) -> list[dict[str, Any]]:
    path = study / FILE
    if not path.exists():
        return []
    found = read_json(path).get("exports")
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and {"candidate", "seed", "path", "time", "formats"} <= one.keys()
        for one in found
    ):
        raise DamagedFileError(f"{path} is damaged: it is no list of exports")
    return found


def _entries(study: Path, say: Say) -> list[dict[str, Any]]:
    """Those before; a damaged file is moved aside."""
    try:
        return _read(study)
    except DamagedFileError as error:
        move_aside(study / FILE, error, say)
        return []


@contextmanager
def _alone(study: Path) -> Iterator[None]:
    """Lets one export at a time note where it is; where folders cannot be locked, all."""
    folder = os.open(study, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
