"""Candidates under way: what lower rungs said of them, kept until they are in the record.

A log beside the record, so that a search that is killed loses no score. It holds nothing that a
finished study needs and is gone when no candidate is under way. Its lines are sealed as the
record's are; one that is damaged is passed over, and its candidate scored anew.
"""

import json
import logging
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from search.candidates import Candidate
from search.record.attributes import from_attributes, to_attributes
from search.record.journal import mend
from search.record.lines import sealed, unsealed
from search.record.record import RecordError

logger = logging.getLogger(__name__)


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
            lines = list(map(unsealed, path.read_bytes().splitlines()))
            for content in filter(None, lines):
                self._put(from_attributes(content.pop("attributes"), **content))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RecordError(
                f"{path} cannot be read: {error}. Move it away: the search then scores anew what "
                "was under way"
            ) from error
        damaged = [str(number) for number, line in enumerate(lines, start=1) if line is None]
        if damaged:
            logger.warning(
                "warning: %s is damaged in line %s; what was under way there is scored anew",
                path,
                ", ".join(damaged),
            )
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
        line = _to_line(candidate)
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

    def forget_arm(self, strategy: str, seed: int) -> None:
        """Drop the candidates of an arm, whose scores depend on what is no longer there."""
        for candidate in self.of(strategy, seed).values():
            self.forget(candidate.id)

    def _put(self, candidate: Candidate) -> None:
        self._candidates[candidate.id] = candidate


def _to_line(candidate: Candidate) -> bytes:
    content = {
        "strategy": candidate.strategy,
        "seed": candidate.seed,
        "params": dict(zip(candidate.names, map(float, candidate.vector), strict=True)),
        "scores": [candidate.quality, candidate.cost],
        "attributes": to_attributes(candidate),
    }
    plain = json.loads(json.dumps(content, default=float))  # NumPy's scalars become numbers
    return json.dumps(sealed(plain), separators=(",", ":")).encode() + b"\n"
