"""`apportion train`: a candidate trained in full, or all methods of a study, on the cluster."""

import functools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from partitioning import DamagedFileError, read_json
from search.arms import (
    WriterLostError,
    begin_arms,
    close_writer,
    cluster_jobs,
    cluster_run,
    connect,
    record,
    resolve_schedule,
    start_writer,
)
from search.candidates import Candidate
from search.commands.report import finish_mirror, make_tracker, write_report
from search.commands.scores import require_scores
from search.config import ConfigError, MethodConfig, StudyConfig, dump_config, reveal
from search.record import require_no_writer
from search.strategies import TaskKnowledge
from search.study import (
    Say,
    Study,
    TrainedPick,
    attempt_method,
    check_inputs,
    check_methods,
    data_basis,
    facts_of,
    keep_training,
    method_candidates,
    method_jobs,
    read_tasks,
)
from trainers.methods import METHODS

#: Seconds between two lines about the same training, and between two looks at how far it is.
SAID_EVERY, LOOKED_EVERY = 30.0, 1.0


def train(study: Study, pick: str, *, seeds: int = 1, say: Say = print) -> TrainedPick:
    """Train a candidate in full on the cluster, seeds side by side.

    Trainings that are in the study's folder already are not repeated.

    Args:
        study: With scored candidates.
        pick: "knee" (the front's bend), "best" (the highest quality) or a candidate's name.
        seeds: Number of trainings, with seeds 0 to seeds - 1.
        say: Called with one line per thing that was done.

    Returns:
        Accuracies by seed, split and task, and their means.

    Raises:
        StudyError: There is no such candidate.
    """
    return study.train(pick, seeds=seeds, say=say, run=cluster_run(study.config))


def with_methods(config: StudyConfig, wanted: Sequence[str]) -> StudyConfig:
    """A config with methods by name: those that it has, or such a kind with its defaults.

    Args:
        config: Of a study of methods, or of tasks and a network alone.
        wanted: Names; all of the config's if there are none.

    Raises:
        ConfigError: There is no such method.
    """
    methods = dict(config.methods)
    for name in wanted:
        if name not in methods and name not in METHODS:
            known = ", ".join(dict.fromkeys([*methods, *METHODS]))
            raise ConfigError(f"--method {name}: there is no such method; there are {known}")
        if name not in methods:
            methods[name] = MethodConfig(kind=name, settings=METHODS[name].settings())
    return replace(config, methods=methods)


def train_methods(config: StudyConfig, wanted: Sequence[str] = (), *, say: Say = print) -> Study:
    """Train methods of a study, every one with every seed, as many at once as there is room for.

    What is done already is not repeated, and what was cut off goes on where it was.

    Args:
        config: With methods.
        wanted: Names of those to train; all if there are none.
        say: Called with one line per thing that was done.

    Returns:
        The study; a level of a method with a seed is a candidate, in its record and in MLflow.

    Raises:
        ValueError: Something in the config, the data or the folder cannot be used; raised before
            any compute starts.
        RecordError: Another process writes this study's record.
        NoScoresError: Every training failed.
    """
    config = with_methods(config, wanted)
    if not config.methods:
        raise ConfigError(f"methods must name at least one of {', '.join(METHODS)}")
    require_no_writer(config.folder / "record.journal")
    check_inputs(config)
    check_methods(config)
    reveal(config.tracking.uri or "")
    connect()
    schedule = resolve_schedule(config).schedule
    known = (config.folder / "config.yaml").is_file()
    study = Study.create(config, resume=known)
    config = replace(study.config, schedule=schedule)
    arms = [(name, seed) for seed in config.seeds for name in wanted or config.methods]
    tracker = make_tracker(study)
    writer = start_writer(
        study.record_path.absolute(), study.name, tracker, dump_config(study.config)
    )
    status = "KILLED"
    try:
        scored_on = dict(study.basis)
        check = study.check(scored_on)
        tasks = read_tasks(config, say)
        check(data_basis(tasks))
        begin_arms(writer, arms, scored_on)
        study.keep_facts(TaskKnowledge(tasks=facts_of(tasks)))
        jobs, done = method_jobs(study, arms, tasks, say)
        classes = {name: task.num_classes for name, task in tasks.items()}
        started = time.time()
        for training in done:  # recorded but for those that a kill came before
            record(writer, method_candidates(config, training, classes, started))
        say(f"training {len(jobs)} of {len(arms)} (a method with a seed each)")
        with _watched({key: job["progress"] for key, job in jobs.items()}, say):
            for key, result in cluster_jobs(schedule)(attempt_method, jobs):
                name, _, seed = key.rpartition("-")
                if isinstance(result, str):
                    say(f"{name}, seed {seed}, failed: {result}")
                    record(writer, [_failed(name, int(seed), result, started)])
                    continue
                kept = keep_training(study, name, int(seed), jobs[key], result)
                levels = method_candidates(config, kept, classes, started)
                record(writer, levels)
                shown = ", ".join(f"{level.quality:.3f}" for level in levels)
                say(f"trained {name}, seed {seed}: {shown} mean validation accuracy")
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        finish = functools.partial(finish_mirror, study, status)
        try:
            failure = close_writer(writer, finish, at_once=status == "KILLED")
        except WriterLostError as error:
            failure = str(error)
    if failure is not None:
        say(
            f"MLflow missed a part ({failure}); rebuild it from the record with "
            f"`apportion report {study.folder} --sync`"
        )
        write_report(study)
    require_scores(study)
    return study


def _failed(name: str, seed: int, error: str, started: float) -> Candidate:
    return Candidate(
        strategy=name, seed=seed, index=0, vector=(), names=(), error=error,
        started=started, finished=time.time(),
    )  # fmt: skip


@contextmanager
def _watched(files: Mapping[str, Path], say: Say) -> Iterator[None]:
    """Say from time to time how far trainings are, by the files in which they tell."""
    ended = threading.Event()
    said: dict[str, tuple[float, int]] = {}

    def look() -> None:
        while not ended.wait(LOOKED_EVERY):
            for key, file in files.items():
                try:
                    found = read_json(file)
                except (OSError, DamagedFileError):
                    continue
                at, step = said.get(key, (0.0, -1))
                if found["step"] != step and time.monotonic() - at >= SAID_EVERY:
                    say(
                        f"{key}: step {found['step']} of {found['steps']}, loss {found['loss']:.3f}"
                    )
                    said[key] = time.monotonic(), found["step"]

    watcher = threading.Thread(target=look, daemon=True, name="progress")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
