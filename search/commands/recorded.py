"""A study's record and its mirror in MLflow while something runs that adds candidates."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from search.arms import WriterLostError, close_writer, connect, resolve_schedule, start_writer
from search.commands.report import finish_mirror, make_tracker, write_report
from search.config import StudyConfig, dump_config, reveal
from search.mirror import TrackingError
from search.study import Say, Study
from trainers.device import slow_precision


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


def begin_study(config: StudyConfig, *, resume: bool, say: Say) -> tuple[Study, StudyConfig]:
    """Connect to a cluster, and make a study's folder or continue in it.

    Args:
        config: The study, checked.
        resume: Continue in its folder.
        say: Called where its precision is slow on this machine.

    Returns:
        The study, and its config with what the cluster has.
    """
    reveal(config.tracking.uri or "")
    connect()
    schedule = resolve_schedule(config).schedule
    study = Study.create(config, resume=resume)
    slow = slow_precision(config.compute.precision, torch.backends.cpu.get_cpu_capability())
    if slow and not schedule.gpus and config.evaluator != "simulated":
        say(f"warning: {slow}")
    return study, replace(study.config, schedule=schedule)


@contextmanager
def recorded(study: Study, config: StudyConfig) -> Iterator[Recording]:
    """Open the record, and close it and finish the mirror, however what is between ends.

    Args:
        study: Whose record no other process writes.
        config: As it is run, which MLflow shows.

    Raises:
        RecordError: Another process writes this study's record.
    """
    study.say_ended(None)
    recording = Recording(
        writer=start_writer(
            study.record_path.absolute(), study.name, make_tracker(study), dump_config(config)
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
        study.say_ended(status)


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
