"""`apportion train`: a candidate trained in full, or all methods of a study, on the cluster."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from search.arms import begin_arms, cluster_jobs, cluster_run, record
from search.candidates import Candidate, scored
from search.commands.page import refresh_page
from search.commands.recorded import begin_study, recorded, tell_missed
from search.commands.scores import require_scores
from search.commands.watching import Curves, watched
from search.config import ConfigError, StudyConfig, load_config, settings_of
from search.record import require_no_writer
from search.strategies import TaskKnowledge
from search.study import (
    Failure,
    Say,
    Study,
    TrainedPick,
    TrainingsError,
    attempt,
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
from trainers.joint import require_library
from trainers.methods import METHODS, train_method

#: Sections of a config that say how a candidate is trained in full.
HOW = ("train", "compute", "schedule")


def train(
    study: Study,
    picks: Sequence[str],
    *,
    seeds: int = 1,
    settings: StudyConfig | None = None,
    say: Say = print,
) -> list[TrainedPick]:
    """Train candidates in full on the cluster, all with all seeds side by side.

    Trainings that are in the study's folder already are not repeated, and those that were cut off
    go on where they were. Each is a run in MLflow, under its candidate, with curves as it runs.

    Args:
        study: With scored candidates.
        picks: "knee" (the front's bend), "best" (the highest quality) or candidates' names.
        seeds: Number of trainings of each, with seeds 0 to seeds - 1.
        settings: How they are trained, as `training_settings` gives it; None for the study's own.
        say: Called with one line per thing that was done.

    Returns:
        For each pick accuracies by seed, split and task, and their means.

    Raises:
        StudyError: There is no such candidate.
        FloatingPointError: A training diverged; the others have ended.
        TrainingsError: One was cut short: of memory, a device or a disk; likewise.
    """
    config = settings or study.config
    chosen = [one.id for one in study.picks(picks)]
    curves = Curves(study, say)
    try:
        return study.train_all(
            chosen, seeds=seeds, settings=config, say=say, run=cluster_run(config), watch=curves
        )
    finally:
        curves.finish()
        refresh_page(study)


def training_settings(study: Study, overrides: Sequence[str]) -> StudyConfig:
    """A study's config with another way to train its candidates in full.

    Args:
        study: The study.
        overrides: `key=value` or `@FILE`, of the sections train, compute and schedule.

    Raises:
        ConfigError: A value is refused, or something else would change.
        BackboneError: Batches are too small for the network's norms.
        MissingLibraryError: The settings need a library that is not installed.
    """
    for key in (key.strip() for override in overrides for key in settings_of(override)):
        if key.partition(".")[0] not in HOW:
            raise ConfigError(
                f"--set with --pick is for {', '.join(HOW[:-1])} and {HOW[-1]}, which say how a "
                f"candidate is trained in full; {key} is what a study is made of"
            )
    config = load_config(study.folder / "config.yaml", overrides)
    own = replace(study.config, **{name: getattr(config, name) for name in HOW})
    if own.evaluator != "simulated":
        own.network.check_batches({"train.sgd.batch_size": own.train.sgd.batch_size})
        require_library(own.train)
    return own


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
        TrainingsError: A training was cut short: of memory, a device or a disk.
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
        with watched({key: job["progress"] for key, job in jobs.items()}, say):
            for key, result in cluster_jobs(config.schedule)(partial(attempt, train_method), jobs):
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
        raise TrainingsError(f"{cut_short[0]} (run it again to go on)")
    tell_missed(study, recording.failure, say)
    require_scores(study)
    return study


def _failed(name: str, seed: int, error: str, started: float) -> Candidate:
    return Candidate(
        strategy=name, seed=seed, index=0, vector=(), names=(), error=error,
        started=started, finished=time.time(),
    )  # fmt: skip
