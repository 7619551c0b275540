"""`apportion train`: a candidate trained in full, or all methods of a study, on the cluster."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from partitioning import DamagedFileError, read_json
from search.arms import begin_arms, cluster_jobs, cluster_run, record
from search.candidates import Candidate, scored
from search.commands.recorded import begin_study, recorded, tell_missed
from search.commands.scores import require_scores
from search.config import ConfigError, StudyConfig
from search.record import require_no_writer
from search.strategies import TaskKnowledge
from search.study import (
    Failure,
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
    refresh_masks,
)
from trainers.methods import METHODS

#: Seconds between two lines about the same training, and between two looks at how far it is.
SAID_EVERY, LOOKED_EVERY = 30.0, 1.0


class MethodsError(RuntimeError):
    """Trainings of methods were cut short: of memory, a device or a disk; the rest is kept."""


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


def train_methods(config: StudyConfig, wanted: Sequence[str] = (), *, say: Say = print) -> Study:
    """Train methods of a study, every one with every seed, as many at once as there is room for.

    What is done already is not repeated, and what was cut off goes on where it was.

    Args:
        config: With methods.
        wanted: Names of those to train; all of the config's if there are none.
        say: Called with one line per thing that was done.

    Returns:
        The study; a level of a method with a seed is a candidate, in its record and in MLflow.

    Raises:
        ValueError: Something in the config, the data or the folder cannot be used; raised before
            any compute starts.
        RecordError: Another process writes this study's record.
        MethodsError: A training was cut short: of memory, a device or a disk.
        NoScoresError: Every training failed.
    """
    if missing := [name for name in wanted if name not in config.methods]:
        known = ", ".join(config.methods) or "none"
        raise ConfigError(f"methods: there is no {', '.join(missing)}; there are {known}")
    if not config.methods:
        raise ConfigError(
            f"{config.name} has no methods to train: name some ({', '.join(METHODS)}), or give a "
            "study's folder and --pick to train what a search has found"
        )
    arms = [(name, seed) for seed in config.seeds for name in wanted or config.methods]
    require_no_writer(config.folder / "record.journal")
    known_before = (config.folder / "config.yaml").is_file()
    candidates: list[Candidate] = []
    if known_before:  # it keeps the methods that it has
        before = Study(config.folder)
        config = replace(config, methods={**before.config.methods, **config.methods})
        candidates = before.candidates()
    check_inputs(config)
    for name in config.methods.keys() - {candidate.strategy for candidate in candidates}:
        refresh_masks(config, name)
    failed = {(c.strategy, c.seed): c.reason for c in candidates if c.failed}
    check_methods(config)
    study, config = begin_study(config, resume=known_before, say=say)
    cut_short: list[str] = []
    with recorded(study, config) as recording:
        scored_on = dict(study.basis)
        check = study.check(scored_on)
        tasks = read_tasks(config, say)
        check(data_basis(tasks))
        begin_arms(recording.writer, arms, scored_on)
        study.keep_facts(TaskKnowledge(tasks=facts_of(tasks)))
        for (name, seed), reason in failed.items():
            if (name, seed) in arms:
                say(f"{name}, seed {seed}, has failed before (a change needs a new name): {reason}")
        jobs, done = method_jobs(study, [arm for arm in arms if arm not in failed], tasks, say)
        classes = {name: task.num_classes for name, task in tasks.items()}
        started = time.time()
        for training in done:  # recorded but for those that a kill came before
            record(recording.writer, method_candidates(config, training, classes, started))
        say(f"training {len(jobs)} of {len(arms)} (a method with a seed each)")
        with _watched({key: job["progress"] for key, job in jobs.items()}, say):
            for key, result in cluster_jobs(config.schedule)(attempt_method, jobs):
                name, _, number = key.rpartition("-")
                seed = int(number)
                if isinstance(result, Failure):
                    jobs[key]["progress"].unlink(missing_ok=True)
                    say(f"{name}, seed {seed}, failed: {result.reason}")
                    if result.final:
                        record(recording.writer, [_failed(name, seed, result.reason, started)])
                    else:
                        cut_short.append(f"{name}, seed {seed}: {result.reason}")
                    continue
                kept = keep_training(study, name, seed, jobs[key], result)
                levels = method_candidates(config, kept, classes, started)
                record(recording.writer, levels)
                shown = ", ".join(f"{level.quality:.3f}" for level in levels)
                say(f"trained {name}, seed {seed}: {shown} mean validation accuracy")
        complete = not cut_short and scored(study.candidates())
        recording.status = "FINISHED" if complete else "FAILED"
    if cut_short:
        raise MethodsError(f"{cut_short[0]} (run it again to go on)")
    tell_missed(study, recording.failure, say)
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
