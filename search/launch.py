"""A whole search, from a config to a front, and on to an exported winner where the config asks."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from search import scheduler
from search.calibrate import calibrate as measure_calibration
from search.candidate import Candidate
from search.compare import Comparison, fixed_strategies, refuse_few, true_hypervolume
from search.compare import compare as compare_strategies
from search.comparison import fewest_seeds
from search.comparison_figure import comparison_figure
from search.comparison_tables import comparison_metrics, write_tables
from search.config import StudyConfig, dump_config
from search.config_sections import COSTS
from search.display import Display
from search.prepare import (
    Jobs,
    Run,
    Say,
    check,
    feature_cache,
    foundation,
    task_knowledge,
)
from search.progress import front
from search.report import front_figure, front_html, front_table
from search.study import Study, TrainedPick, check_strategies, require_writable
from search.tracking import Tracker, TrackingError
from search.trust import picture, read_trust, write_calibration
from trainers.compact import Check


class ArmsError(RuntimeError):
    """Some arms could not be brought to their end; the record keeps what was scored."""


def search(config: StudyConfig, *, resume: bool = False, console: Console | None = None) -> Study:
    """Run a study to its end.

    Args:
        config: The study.
        resume: Continue the study in its folder from its record.
        console: Where progress is shown; None is the standard output.

    Returns:
        The study, its front written to its folder and to MLflow.

    Raises:
        ValueError: Something in the config, the data or the folder cannot be used; raised before
            any compute starts.
        RecordError: Another process writes this study's record.
        ArmsError: Some arms broke down more often than `schedule.arm_retries` allows.
    """
    display = Display(console or Console())
    check(config)
    check_strategies(config)
    scheduler.connect()
    schedule = scheduler.settled(config).schedule
    study = Study.create(config, resume=resume)
    config = replace(study.config, schedule=schedule)
    trust = read_trust(study)
    if trust is not None and not trust["trusted"]:
        display.say(f"warning: {trust['verdict']}")
    writer = scheduler.start_writer(
        study.record_path.absolute(), study.name, make_tracker(study), dump_config(config)
    )
    status = "KILLED"
    try:
        run = scheduler.cluster_jobs(config.schedule)
        base = cache = None
        if config.evaluator == "simulated":
            knowledge = config.simulated.knowledge
        else:
            base = foundation(config, run, display.say)
            cache = feature_cache(config, base, run, display.say)
            knowledge = task_knowledge(config, base, run, display.say)
        broken = scheduler.run_arms(
            config, cache, base, knowledge, writer, display, study.folder.absolute()
        )
        status = "FAILED" if broken else "FINISHED"
    finally:
        display.close()
        finish = functools.partial(_finish_mirror, study, status)
        failure = scheduler.close_writer(writer, finish)
    if failure is not None:
        display.say(
            f"MLflow missed a part ({failure}); rebuild it from the record with "
            f"`apportion report {study.folder} --sync`"
        )
    if broken:
        raise ArmsError(
            f"{len(broken)} arms did not finish; what they scored is in the record, and "
            f"`--resume` goes on from there. First: {broken[0]}"
        )
    _say_front(study, display.say)
    if config.finish is not None:
        trained = study.train(
            config.finish.pick, seeds=config.finish.seeds, say=display.say, run=run, base=base
        )
        if config.finish.export:
            study.export(
                trained.candidate, study.folder / "exported" / trained.candidate,
                say=display.say, run=run, base=base,
            )  # fmt: skip
    return study


def train(study: Study, pick: str, *, seeds: int, say: Say) -> TrainedPick:
    """`Study.train` on the cluster, seeds side by side."""
    return study.train(pick, seeds=seeds, say=say, run=_cluster_run(study))


def export(study: Study, pick: str, out: str | Path, *, say: Say) -> dict[str, Check]:
    """`Study.export`, with what has to be trained first trained on the cluster."""
    return study.export(pick, out, say=say, run=_cluster_run(study))


def open_study(config: StudyConfig) -> Study:
    """The study of a config, its folder made if it is not there; nothing is computed.

    Raises:
        ValueError: Something in the config, the data or the folder cannot be used.
    """
    check(config)
    check_strategies(config)
    return Study.create(config, resume=(config.folder / "config.yaml").is_file())


def calibrate(study: Study, *, say: Say) -> dict[str, Any]:
    """Hold the study's proxy against full training, on the cluster.

    Args:
        study: With candidates or without.
        say: Called with one line per thing that was done.

    Returns:
        What `trust.summarise` found; it is written to the study's `calibration` folder, too.
    """
    results = measure_calibration(study, say=say, run=_cluster_run(study))
    return write_calibration(study, results)


def search_to_compare(config: StudyConfig, *, console: Console) -> Study:
    """Run a study whose strategies are to be compared, or go on with it, to its end.

    Raises:
        CompareError: The config has nothing to compare; raised before any compute starts.
        ValueError, RecordError, ArmsError: As `search`.
    """
    searching = config.strategies.keys() - set(fixed_strategies(config))
    refuse_few(config.seeds, searching)
    needed = fewest_seeds(len(searching))
    if len(config.seeds) < needed:
        console.print(
            f"warning: no difference between {len(searching)} strategies can be shown with "
            f"{len(config.seeds)} seeds; it takes {needed} or more",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    return search(config, resume=(config.folder / "config.yaml").is_file(), console=console)


def compare(study: Study, *, say: Say) -> Comparison:
    """Hold the strategies of a study against each other, from its record.

    Args:
        study: With two or more seeds and searching strategies; nothing is searched.
        say: Called where MLflow could not be reached.

    Returns:
        The comparison; it is written to the study's `compare` folder and to MLflow, too.

    Raises:
        CompareError: There is nothing to compare.
        StudyError: The folder cannot be written.
    """
    config, candidates = study.config, study.candidates()
    comparison = compare_strategies(
        candidates,
        strategies=list(config.strategies),
        fixed=fixed_strategies(config),
        budget=config.candidates,
        device_seconds=config.device_seconds,
        initial=config.initial,
        halved=min(config.halvings, default=None),
        reference=config.objective.reference,
        true_hypervolume=true_hypervolume(config),
    )
    folder = study.folder / "compare"
    require_writable(folder)
    files = write_tables(comparison, folder)
    picture = folder / "comparison.png"
    comparison_figure(comparison, picture, cost=COSTS[config.objective.cost].words)
    try:
        tracker = make_tracker(study)()
        tracker.start(dump_config(config))
        tracker.log_comparison(
            comparison_metrics(comparison),
            comparison.counted,
            max(candidate.finished for candidate in candidates),
            [*files, picture],
        )
        if tracker.before != "RUNNING":  # a search may be under way
            tracker.finish(tracker.before or "FINISHED")
    except TrackingError as error:
        say(f"MLflow missed the comparison; run it again to complete it: {error}")
    return comparison


def _cluster_run(study: Study) -> Run:
    """Starts Ray with the first job, so that what is trained already needs no cluster."""

    def run(function: Callable[..., Any], jobs: Jobs) -> Iterator[tuple[str, Any]]:
        if jobs:
            scheduler.connect()
            schedule = scheduler.settled(study.config).schedule
            yield from scheduler.cluster_jobs(schedule)(function, jobs)

    return run


def make_tracker(study: Study) -> Any:
    """A function that connects to the study's MLflow store, wherever it is called."""
    return functools.partial(
        Tracker,
        tracking_uri=study.store_uri,
        experiment=study.config.tracking.experiment,
        study=study.name,
        folder=study.folder.absolute(),
        every_candidate=study.config.tracking.candidates,
    )


def write_report(study: Study) -> list[Path]:
    """Write the front as a table, a picture and a page; the paths, with a calibration's picture."""
    return _write(study, study.candidates())[1]


def sync(study: Study) -> None:
    """Rebuild the study's MLflow mirror from its record, without duplicates."""
    tracker = make_tracker(study)()
    tracker.start(dump_config(study.config))
    candidates = study.candidates()
    tracker.sync(candidates)
    _finish_mirror(study, "FINISHED", tracker, candidates)
    if (study.folder / "compare").is_dir():
        compare(study, say=print)


def _finish_mirror(study: Study, status: str, tracker: Any, candidates: list[Candidate]) -> None:
    tracker.set_front([candidate.id for candidate in front(candidates)])
    tracker.log_progress(candidates, study.config.objective.reference)
    table, files = _write(study, candidates)
    tracker.log_front(table, files)
    tracker.finish(status)


def _write(study: Study, candidates: list[Candidate]) -> tuple[pd.DataFrame, list[Path]]:
    reference = study.config.objective.reference
    table = front_table(candidates, reference)
    paths = [study.folder / name for name in ("front.csv", "front.png", "front.html")]
    table.to_csv(paths[0], index=False)
    words = COSTS[study.config.objective.cost].words
    front_figure(candidates, paths[1], reference, cost=words)
    trust = read_trust(study)
    if trust is None or not picture(study).is_file():
        front_html(candidates, paths[2], reference, cost=words)
    else:
        shown = (trust["verdict"], picture(study))
        front_html(candidates, paths[2], reference, cost=words, calibration=shown)
        paths.append(picture(study))
    return table, paths


def _say_front(study: Study, say: Say) -> None:
    summary: Mapping[str, Any] = study.summary()
    stopped = f", {summary['stopped']} stopped at a lower rung" if summary["stopped"] else ""
    say(
        f"{summary['candidates']} candidates ({summary['failed']} failed{stopped}), "
        f"{len(summary['front'])} on the front, hypervolume {summary['hypervolume']:.4f}"
    )
    say(f"front: apportion front {study.folder}; MLflow: apportion ui {study.folder}")


__all__ = [
    "ArmsError", "calibrate", "compare", "export", "open_study", "search", "search_to_compare",
    "sync", "train", "write_report",
]  # fmt: skip
