"""Candidates under way: what lower rungs said of them, kept until they are in the record.

A log beside the record, so that a search that is killed loses no score. It holds nothing that a
finished study needs and is gone when no candidate is under way.
"""

import json
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from search.candidates import Candidate
from search.record.attributes import from_attributes, to_attributes
from search.record.journal import mend
from search.record.record import RecordError


class UnderWay:
    """The log; only for who holds the record's lock.

    Args:
        path: The file; made with the first candidate.
        recorded: Names of the candidates that the record has.

    Raises:
        RecordError: The file cannot be read or mended, or is not such a log.
    """

    def __init__(self, path: Path, recorded: Collection[str]) -> None:
        self.path = path
        self._candidates: dict[str, Candidate] = {}
        if not path.exists():
            return
        try:
            mend(path, begins=b'{"strategy":')
            for line in path.read_text().splitlines():
                self._put(_from_json(line))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RecordError(
                f"{path} cannot be read: {error}. Move it away: the search then scores anew what "
                "was under way"
            ) from error
        for name in recorded:
            self.forget(name)

    def of(self, strategy: str, seed: int) -> dict[int, Candidate]:
        """The candidates under way of an arm, by index."""
        return {
            c.index: c
            for c in self._candidates.values()
            if (c.strategy, c.seed) == (strategy, seed)
        }

    def keep(self, candidate: Candidate) -> None:
        """Keep what is known of a candidate; it is on the disk when this returns.

        Raises:
            RecordError: It could not be written, say because the disk is full.
        """
        line = _to_json(candidate).encode() + b"\n"
        try:
            with open(self.path, "ab") as log:
                size = log.tell()
                try:
                    log.write(line)
                    log.flush()
                    os.fsync(log.fileno())
                except BaseException:
                    # Or the next line would be glued to half of this one.
                    with suppress(OSError):
                        os.truncate(self.path, size)
                    raise
        except OSError as error:
            raise RecordError(
                f"candidate {candidate.id} could not be written to {self.path}: {error}. Free "
                "space on that disk (or mend what is named here) and resume the study"
            ) from error
        self._put(candidate)

    def forget(self, name: str) -> None:
        """Drop a candidate that is in the record now."""
        if self._candidates.pop(name, None) is not None and not self._candidates:
            self.path.unlink(missing_ok=True)

    def _put(self, candidate: Candidate) -> None:
        self._candidates[candidate.id] = candidate


def _to_json(candidate: Candidate) -> str:
    content = {
        "strategy": candidate.strategy,
        "seed": candidate.seed,
        "params": dict(zip(candidate.names, map(float, candidate.vector), strict=True)),
        "scores": [candidate.quality, candidate.cost],
        "attributes": to_attributes(candidate),
    }
    return json.dumps(content, default=float)  # NumPy's scalars, too


def _from_json(line: str) -> Candidate:
    content = json.loads(line)
    return from_attributes(content.pop("attributes"), **content)
