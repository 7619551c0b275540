"""The record of a study: every candidate, in an Optuna journal, written by one process at a time.

The record is the only truth of a study. It is an ordinary Optuna storage (`JournalStorage` on a
file), with one Optuna study per strategy and seed, named `<study>/<strategy>/<seed>`; quality is
maximised and cost minimised; candidates that were stopped on a lower rung are pruned trials. A
candidate is added when it is complete, as one line of the file, so that it is there in full or not
at all. Whatever reads Optuna studies reads the record. The version of its format is an attribute of
every Optuna study.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Self

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from partitioning import RECORD, FormatError
from search.candidates import Candidate
from search.record.attributes import from_attributes, to_attributes
from search.record.journal import lock_for_writing, mend


class RecordError(RuntimeError):
    """The record cannot be opened, read or written; the message says how to mend it."""


class DuplicateCandidate(RecordError):  # noqa: N818 - the name says what it is
    """A candidate with this strategy, seed and index is in the record already."""


class Record:
    """The one writer of a study's record.

    Opening it takes a lock that the kernel frees when the process ends, however it ends, and
    mends what a crash may have left: a lock file of Optuna's, a last line cut short.

    Args:
        path: the journal, such as `study/record.journal`; made if missing, its folder must exist.
        study: the study's name.

    Raises:
        RecordError: another process writes this record, the folder cannot be written, or the file
            is not a record.
    """

    def __init__(self, path: Path, study: str) -> None:
        self.path = Path(path).absolute()
        self.study = study
        self._lock = _lock(self.path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def add(self, candidate: Candidate) -> None:
        """Adds a candidate; it is on the disk when this returns.

        Raises:
            DuplicateCandidate: its strategy, seed and index are in the record already.
            RecordError: it could not be written, say because the disk is full. The record is as it
                was before and stays readable; the candidate can be added again.
            ValueError: what is known of it cannot be written as JSON.
        """
        if self._lock.closed:
            raise RecordError(f"the record {self.path} has been closed: open it again")
        if self._storage is None:  # what an earlier failure left could not be removed then
            self._open()
        if candidate.id in self._ids:
            raise DuplicateCandidate(f"candidate {candidate.id} is in {self.path} already")
        trial = _to_trial(candidate)
        size = None
        try:
            size = self.path.stat().st_size
            self._arm(candidate.strategy, candidate.seed).add_trial(trial)
        except BaseException as error:
            # Also when interrupted: the next line must not be glued to half of this one.
            self._undo(size)
            if isinstance(error, OSError | RuntimeError):  # Runtime: Optuna's lock was not freed
                raise RecordError(
                    f"candidate {candidate.id} could not be written to {self.path}: {error}. The "
                    f"candidates before it are safe: free space on that disk (or mend what is "
                    "named here) and resume the study"
                ) from error
            raise
        self._ids.add(candidate.id)

    def candidates(self, strategy: str | None = None, seed: int | None = None) -> list[Candidate]:
        """The candidates of a strategy and a seed (or of all), by strategy, seed and index."""
        storage = self._storage or _storage(self.path)
        return _candidates(storage, self.path, self.study, strategy, seed)

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
        except OSError as error:
            raise RecordError(f"the record {self.path} cannot be written: {error}") from error
        except ValueError as error:
            raise RecordError(f"{self.path} is not a record: {error}. Move it away") from error
        storage = _storage(self.path)
        self._ids = {candidate.id for candidate in _candidates(storage, self.path, self.study)}
        self._storage = storage

    def _undo(self, size: int | None) -> None:
        """Takes back what a failed write left behind, now or before the next candidate."""
        self._storage = None
        with suppress(OSError, RecordError):
            if size is not None:
                os.truncate(self.path, size)
            self._open()

    def _arm(self, strategy: str, seed: int) -> Study:
        key = (strategy, seed)
        if key not in self._arms:
            with _quiet():
                arm = optuna.create_study(
                    storage=self._storage,
                    study_name=f"{self.study}/{strategy}/{seed}",
                    directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE],
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
    """All candidates of a study, by strategy, seed and index.

    It writes nothing and takes no lock, so it works beside a running search and on a read-only
    folder; a candidate that is being written at that moment is left out.

    Raises:
        RecordError: there is no such file, it is not a record, or it is one of another version.
    """
    path = Path(path).absolute()
    if not path.is_file():  # Optuna would make it
        raise RecordError(f"there is no record at {path}: has the study been started?")
    return _candidates(_storage(path), path, study)


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


def _storage(path: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise RecordError(f"the record {path} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise RecordError(
            f"{path} is not a record, or it is damaged ({type(error).__name__}: {error}). Restore "
            "it from a copy, or move it away to begin the study anew"
        ) from error


def _candidates(
    storage: JournalStorage,
    path: Path,
    study: str,
    strategy: str | None = None,
    seed: int | None = None,
) -> list[Candidate]:
    found = []
    for arm in storage.get_all_studies():
        name, *key = arm.study_name.rsplit("/", 2)
        if name != study or len(key) != 2 or not key[1].removeprefix("-").isdigit():
            continue
        if strategy not in (None, key[0]) or seed not in (None, int(key[1])):
            continue
        trials = [
            trial
            for trial in storage.get_all_trials(arm._study_id, deepcopy=False)
            if "index" in trial.user_attrs  # other programs can add trials to an Optuna study
        ]
        if trials:  # a crash may come between an Optuna study and its version
            try:
                RECORD.check(arm.user_attrs.get(RECORD.name), path)
            except FormatError as error:
                raise RecordError(str(error)) from error
        found += [_to_candidate(trial, key[0], int(key[1])) for trial in trials]
    return sorted(found, key=lambda found: (found.strategy, found.seed, found.index))


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


def _to_candidate(trial: FrozenTrial, strategy: str, seed: int) -> Candidate:
    return from_attributes(
        trial.user_attrs, strategy=strategy, seed=seed, params=trial.params, scores=trial.values
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
