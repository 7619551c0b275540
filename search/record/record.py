"""The record of a study: every candidate, in an Optuna journal, written by one process at a time.

The record is the only truth of a study. It is an ordinary Optuna storage (`JournalStorage` on a
file), with one Optuna study per strategy and seed, named `<study>/<strategy>/<seed>`; quality is
maximised and cost minimised; candidates that were stopped on a lower rung are pruned trials. A
candidate is added when it is complete, as one line of the file, so that it is there in full or not
at all. Whatever reads Optuna studies reads the record. The version of its format is an attribute of
every Optuna study, and so is what the scores of its candidates depend on. Lines are numbered and
sealed (`lines.py`): what was lost or changed since is noticed, and the rest is read.
"""

import functools
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Self

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from partitioning import RECORD, FormatError, name_of_damaged, write_atomically
from search.candidates import Candidate, Utilisation, total
from search.record.attributes import from_attributes, to_attributes
from search.record.journal import lines_written, lock_for_writing, mend, say_written
from search.record.lines import (
    CREATE_TRIAL,
    DIRECTIONS,
    STUDY_ATTRIBUTE,
    Lines,
    SealingBackend,
    mended,
    read_lines,
)

#: Attribute of every Optuna study: what the scores of its candidates depend on.
SCORED_ON = "scored_on"
#: And what its evaluators did with their time, by when the arm began, anew after every resuming.
USED = "evaluators"

logger = logging.getLogger(__name__)


class RecordError(RuntimeError):
    """The record cannot be opened, read or written; the message says how to mend it."""


class DuplicateCandidate(RecordError):  # noqa: N818 - the name says what it is
    """A candidate with this strategy, seed and index is in the record already."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a record holds of a study.

    Attributes:
        candidates: By strategy, seed and index.
        scored_on: Digests of what their scores depend on, by what it is.
        used: What evaluators did with their time, by strategy and seed.
        faults: What is wrong with lines of the file, which are left out.
    """

    candidates: list[Candidate]
    scored_on: Mapping[str, str]
    used: Mapping[tuple[str, int], Utilisation]
    faults: tuple[str, ...] = ()


class Record:
    """The one writer of a study's record.

    Opening it takes a lock that the kernel frees when the process ends, however it ends, and
    mends what a crash may have left: a lock file of Optuna's, a last line cut short. A file that is
    damaged otherwise is kept beside it, and the record goes on with the lines that are whole.

    Args:
        path: the journal, such as `study/record.journal`; made if missing, its folder must exist.
        study: the study's name.

    Raises:
        RecordError: another process writes this record, the folder cannot be written, the file
            is not the study's record, or it is gone.
    """

    def __init__(self, path: Path, study: str) -> None:
        self.path = Path(path).absolute()
        self.study = study
        _require_present(self.path)
        self._lock = _lock(self.path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def begin(self, strategy: str, seed: int, scored_on: Mapping[str, str]) -> bool:
        """Keep what the scores of an arm's candidates depend on, before there is any.

        Args:
            strategy: Name of its strategy.
            seed: Its seed.
            scored_on: Digests, by what they are of.

        Returns:
            Whether what is under way may depend on something else: that, or nothing, was kept.

        Raises:
            RecordError: it could not be written.
        """
        with self._writing(f"arm {strategy}-{seed}"):
            arm = self._arm(strategy, seed)
            before = arm.user_attrs.get(SCORED_ON, {})
            if before != before | dict(scored_on):
                arm.set_user_attr(SCORED_ON, before | dict(scored_on))
        differs = any(before.get(what, digest) != digest for what, digest in scored_on.items())
        return differs or not before

    def add(self, candidate: Candidate) -> None:
        """Adds a candidate; it is on the disk when this returns.

        Raises:
            DuplicateCandidate: its strategy, seed and index are in the record already.
            RecordError: it could not be written, say because the disk is full. The record is as it
                was before and stays readable; the candidate can be added again.
            ValueError: what is known of it cannot be written as JSON.
        """
        if candidate.id in self._ids:
            raise DuplicateCandidate(f"candidate {candidate.id} is in {self.path} already")
        trial = _to_trial(candidate)
        with self._writing(f"candidate {candidate.id}"):
            self._arm(candidate.strategy, candidate.seed).add_trial(trial)
        self._ids.add(candidate.id)

    def use(self, strategy: str, seed: int, begun: float, used: Utilisation) -> None:
        """Keep what an arm's evaluators have done with their time since it began.

        Args:
            strategy: Name of its strategy.
            seed: Its seed.
            begun: Unix time in seconds; what was kept of the same before goes.
            used: Seconds.

        Raises:
            RecordError: it could not be written.
        """
        if not used:
            return
        with self._writing(f"arm {strategy}-{seed}"):
            arm = self._arm(strategy, seed)
            kept = {what: round(seconds, 3) for what, seconds in used.items()}
            arm.set_user_attr(USED, arm.user_attrs.get(USED, {}) | {f"{begun:.3f}": kept})

    def candidates(self, strategy: str | None = None, seed: int | None = None) -> list[Candidate]:
        """The candidates of a strategy and a seed (or of all), by strategy, seed and index."""
        return [
            candidate
            for candidate in read_record(self.path, self.study)
            if strategy in (None, candidate.strategy) and seed in (None, candidate.seed)
        ]

    def close(self) -> None:
        """Lets another process write the record."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        """Mends the file and reads it anew: what Optuna holds in memory is what is on the disk."""
        self._storage: JournalStorage | None = None
        self._arms: dict[tuple[str, int], Study] = {}
        try:
            mend(self.path, begins=b'{"op_code":')
            lines = read_lines(self.path, lines_written(self.path))
            if lines.faults:
                lines = self._keep_and_mend(lines)
            candidates = _contents(lines, self.path, self.study).candidates
            self._backend = SealingBackend(self.path, lines.end)
            self._storage = JournalStorage(self._backend)
        except (ValueError, KeyError, TypeError, AssertionError, OSError) as error:
            raise _refused(self.path, error) from error
        self._ids = {candidate.id for candidate in candidates}
        say_written(self._lock, lines.end)

    def _keep_and_mend(self, lines: Lines) -> Lines:
        """Keeps a copy of a damaged file, and writes its whole lines in its place."""
        copy = name_of_damaged(self.path)
        shutil.copy2(self.path, copy)
        with write_atomically(self.path) as partial:
            partial.write_bytes(b"".join(mended(lines)))
        say_written(self._lock, 0)
        _warn(
            f"{self.path} was damaged: {'; '.join(lines.faults)}. It is kept as {copy.name}, and "
            "the record goes on with the other lines; what is lost is scored anew"
        )
        return read_lines(self.path)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Takes back what a write leaves behind that fails.

        Raises:
            RecordError: The record has been closed, or the write failed; it can be tried again.
        """
        if self._lock.closed:
            raise RecordError(f"the record {self.path} has been closed: open it again")
        if self._storage is None:  # what an earlier failure left could not be removed then
            self._open()
        size = None
        try:
            size = self.path.stat().st_size
            yield
        except BaseException as error:
            # Also when interrupted: the next line must not be glued to half of this one.
            self._undo(size)
            if isinstance(error, OSError | RuntimeError):  # Runtime: Optuna's lock was not freed
                raise RecordError(
                    f"{what} could not be written to {self.path}: {error}. The candidates before "
                    "it are safe: free space on that disk (or mend what is named here) and resume "
                    "the study"
                ) from error
            raise
        say_written(self._lock, self._backend.end)

    def _undo(self, size: int | None) -> None:
        """Takes back what a failed write left behind, now or before the next candidate."""
        self._storage = None
        with suppress(OSError, RecordError):
            if size is not None:
                os.truncate(self.path, size)
            self._open()

    def _arm(self, strategy: str, seed: int) -> Study:
        key, name = (strategy, seed), f"{self.study}/{strategy}/{seed}"
        self._backend.arm = name
        if key not in self._arms:
            with _quiet():
                arm = optuna.create_study(
                    storage=self._storage,
                    study_name=name,
                    directions=DIRECTIONS,
                    load_if_exists=True,
                )
                if arm.metric_names is None:
                    arm.set_metric_names(["quality", "cost"])
                if RECORD.name not in arm.user_attrs:
                    arm.set_user_attr(RECORD.name, RECORD.version)
            self._arms[key] = arm
        return self._arms[key]


def require_no_writer(path: Path) -> None:
    """Refuses a record that another process writes at this moment.

    Raises:
        RecordError: one does, or the folder, where there is one, cannot be written.
    """
    if Path(path).exists():
        _lock(Path(path).absolute()).close()


def read_record(path: Path, study: str) -> list[Candidate]:
    """All candidates of a study, as `read_contents` finds them."""
    return read_contents(path, study).candidates


def read_contents(path: Path, study: str) -> Contents:
    """All candidates of a study, and what their scores depend on.

    It writes nothing and takes no lock, so it works beside a running search and on a read-only
    folder; a candidate that is being written at that moment is left out. What is wrong with the
    file is said in a warning that names the line, once, and the rest is read.

    Raises:
        RecordError: there is no such file, it is not the study's record, or it is one of another
            version.
    """
    path = Path(path).absolute()
    _require_present(path)
    if not path.is_file():
        raise RecordError(f"there is no record at {path}: has the study been started?")
    written = lines_written(path)  # before the file, which may grow
    try:
        lines = read_lines(path, written)
    except (ValueError, KeyError, OSError) as error:
        raise _refused(path, error) from error
    if lines.faults:
        _warn(
            f"{path} is damaged: {'; '.join(lines.faults)}. The other lines are read. To go on, "
            "search with --resume: it keeps a copy, mends the file and scores anew what is lost"
        )
    return _contents(lines, path, study)


def was_begun(path: Path) -> bool:
    """Whether there is, or was, a record at a path."""
    return path.is_file() or bool(lines_written(path))


def _lock(path: Path) -> IO[str]:
    try:
        return lock_for_writing(path)
    except BlockingIOError as error:
        raise RecordError(
            f"the record {path} cannot be written: {error.strerror} (lock file "
            f"{error.filename}). Wait for it or stop it: a study has one search at a time"
        ) from error
    except OSError as error:
        raise RecordError(
            f"the record {path} cannot be written: {error}. Choose a study folder that "
            "exists, that you may write to and whose file system can lock files"
        ) from error


def _require_present(path: Path) -> None:
    """Refuses to take a record that was deleted or emptied for one that has not been begun.

    Raises:
        RecordError: lines were written, but there are none.
    """
    if not (path.exists() and path.stat().st_size) and (written := lines_written(path)):
        raise RecordError(
            f"the record {path} is gone, or empty, of which {written} lines were written: put it "
            f"back from a copy, or delete {path.name}.writer, too, to begin the study anew"
        )


def _refused(path: Path, error: Exception) -> RecordError:
    if isinstance(error, FormatError):
        return RecordError(str(error))
    if isinstance(error, OSError):
        return RecordError(f"the record {path} cannot be read or written: {error}")
    return RecordError(
        f"{path} is not a record: {error}. Put the record back from a copy, or move this away"
    )


@functools.cache
def _warn(text: str) -> None:
    """Warns once, however often a command reads the record."""
    logger.warning("warning: %s", text)


def _contents(lines: Lines, path: Path, study: str) -> Contents:
    found: list[Candidate] = []
    scored_on: dict[tuple[str, int], Mapping[str, str]] = {}
    used: dict[tuple[str, int], Utilisation] = {}
    others = set()
    for line in lines.sealed:
        name, *key = line["arm"].rsplit("/", 2)
        if name != study:
            others.add(name)
        elif line["op_code"] == CREATE_TRIAL:
            found.append(_to_candidate(line, key[0], int(key[1])))
        elif line["op_code"] == STUDY_ATTRIBUTE and SCORED_ON in line["user_attr"]:
            scored_on[key[0], int(key[1])] = line["user_attr"][SCORED_ON]
        elif line["op_code"] == STUDY_ATTRIBUTE and USED in line["user_attr"]:
            used[key[0], int(key[1])] = total(line["user_attr"][USED].values())
    if others:
        raise RecordError(
            f"{path} is the record of the study {' and '.join(sorted(others))}, not of {study}: "
            "put the study's own record back"
        )
    found.sort(key=lambda found: (found.strategy, found.seed, found.index))
    arms = dict.fromkeys((candidate.strategy, candidate.seed) for candidate in found)
    merged = {what: digest for arm in arms for what, digest in scored_on.get(arm, {}).items()}
    return Contents(
        candidates=found, scored_on=merged, used=used, faults=tuple(map(str, lines.faults))
    )


def _to_trial(candidate: Candidate) -> FrozenTrial:
    scores = [None if s is None else float(s) for s in (candidate.quality, candidate.cost)]
    state = TrialState.COMPLETE
    if candidate.failed or candidate.stopped:
        # Optuna keeps no values of a failed trial; those of one that was stopped on a lower rung
        # must not be among its best. Both have theirs among the attributes.
        state = TrialState.FAIL if candidate.failed else TrialState.PRUNED
    trial = optuna.trial.create_trial(
        state=state,
        values=[s for s in scores if s is not None] if state == TrialState.COMPLETE else None,
        params={n: float(v) for n, v in zip(candidate.names, candidate.vector, strict=True)},
        distributions=dict.fromkeys(candidate.names, FloatDistribution(0.0, 1.0)),
        user_attrs=to_attributes(candidate),
    )
    trial.datetime_start = datetime.fromtimestamp(candidate.started)
    trial.datetime_complete = datetime.fromtimestamp(candidate.finished)
    return trial


def _to_candidate(line: Mapping[str, Any], strategy: str, seed: int) -> Candidate:
    return from_attributes(
        line["user_attrs"],
        strategy=strategy,
        seed=seed,
        params=line["params"],
        scores=line["values"],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna's note of every new study, and that metric names are new, off the screen."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
