"""A study's record and its mirror in MLflow while something runs that adds candidates."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from search.arms import WriterLostError, close_writer, start_writer
from search.commands.report import finish_mirror, make_tracker, write_report
from search.config import dump_config
from search.mirror import TrackingError
from search.study import Say, Study


@dataclass(kw_only=True)
class Recording:
    """What writes a study's record, and how it ends.

    Attributes:
        writer: The actor.
        status: Of the study's run in MLflow: KILLED until it is said otherwise.
        failure: Why MLflow lacks something, once all has ended.
    """

    writer: Any
    status: str = "KILLED"
    failure: str | None = None


@contextmanager
def recorded(study: Study) -> Iterator[Recording]:
    """Open the record, and close it and finish the mirror, however what is between ends.

    Args:
        study: Whose record no other process writes.

    Raises:
        RecordError: Another process writes this study's record.
    """
    recording = Recording(
        writer=start_writer(
            study.record_path.absolute(), study.name, make_tracker(study), dump_config(study.config)
        )
    )
    try:
        yield recording
    except Exception:
        recording.status = "FAILED"
        raise
    finally:
        status = recording.status
        finish = functools.partial(finish_mirror, study, status)
        try:
            recording.failure = close_writer(recording.writer, finish, at_once=status == "KILLED")
        except WriterLostError:
            recording.failure = _end_runs(study, status)


def tell_missed(study: Study, failure: str | None, say: Say) -> None:
    """Say what MLflow lacks, and write the report that it was to be told of."""
    if failure is None:
        return
    say(
        f"MLflow missed a part ({failure}); rebuild it from the record with "
        f"`apportion report {study.folder} --sync`"
    )
    write_report(study)  # of which MLflow is told: a full disk must not pass for its fault


def _end_runs(study: Study, status: str) -> str | None:
    """End the study's runs in MLflow from here; why they could not be ended, or None."""
    try:
        tracker = make_tracker(study)()
        tracker.start(dump_config(study.config))
        tracker.finish(status)
    except TrackingError as error:
        return str(error)
    return None
