"""`apportion search`: from a config to a front, and on to an exported winner if it asks."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from rich.console import Console

from search.arms import (
    Display,
    begin_arms,
    cluster_jobs,
    run_arms,
)
from search.calibration import read_trust
from search.candidates import scored
from search.commands.closing import print_closing
from search.commands.fronts import say_fixed
from search.commands.page import page_kept_fresh, write_study_page
from search.commands.recorded import begin_study, recorded, tell_missed
from search.commands.scores import require_scores
from search.commands.watching import Curves
from search.config import ConfigError, FinishConfig, StudyConfig, parse_config
from search.record import require_no_writer
from search.study import (
    Run,
    Say,
    Study,
    Supplies,
    check_inputs,
    check_strategies,
    supplies_by_seed,
)


class ArmsError(RuntimeError):
    """Some arms could not be brought to their end; the record keeps what was scored."""


def search(
    config: StudyConfig | Mapping[str, Any],
    *,
    resume: bool = False,
    console: Console | None = None,
    quiet: bool = False,
    closing: bool = True,
) -> Study:
    """Run a study to its end.

    Args:
        config: The study, or its keys and values as a YAML file has them.
        resume: Continue the study in its folder from its record.
        console: Where progress is shown; None is the standard output.
        quiet: Say only warnings on the way.
        closing: Show at the end the front, where everything lies and what to do next.

    Returns:
        The study, its front written to its folder and to MLflow.

    Raises:
        ValueError: Something in the config, the data or the folder cannot be used; raised before
            any compute starts.
        RecordError: Another process writes this study's record.
        NoScoresError: Every candidate failed.
        ArmsError: Some arms broke down more often than `schedule.arm_retries` allows.
    """
    if not isinstance(config, StudyConfig):
        config = parse_config(config)
    if config.methods:
        raise ConfigError(f"{config.name} has methods: train them with `apportion train`")
    display = Display(console or Console(), quiet=quiet)
    require_no_writer(config.folder / "record.journal")
    check_inputs(config)
    check_strategies(config)
    study, config = begin_study(config, resume=resume, say=display.say)
    trust = read_trust(study)
    if trust is not None and not trust["trusted"]:
        display.say(f"warning: {trust['verdict']}")
    with recorded(study, config) as recording:
        try:
            run = cluster_jobs(config.schedule)
            scored_on = dict(study.basis)
            supplies = supplies_by_seed(config, run, display.say, study.check(scored_on))
            begin_arms(recording.writer, product(config.strategies, config.seeds), scored_on)
            study.keep_facts(supplies[min(supplies)].knowledge)
            objective = replace(config.objective, reference=study.reference())
            config = replace(config, objective=objective)
            with page_kept_fresh(study):
                broken = run_arms(config, supplies, recording.writer, display)
            complete = not broken and scored(study.candidates())
            recording.status = "FINISHED" if complete else "FAILED"
        finally:
            display.close()
    if broken:
        raise ArmsError(
            f"{broken[0]} (the search did not finish; what was scored is in the record, and "
            "`--resume` goes on from there)"
        )
    tell_missed(study, recording.failure, display.say)
    require_scores(study)
    _say_front(study, display.say)
    if config.finish is not None:
        _train_and_export(study, config.finish, run, supplies, display.say)
        write_study_page(study, study.candidates())
    if closing:
        print_closing(study, display.console)
    return study


def _train_and_export(
    study: Study, finish: FinishConfig, run: Run, supplies: Mapping[int, Supplies], say: Say
) -> None:
    """What the config wants of a finished front."""
    given = supplies.get(study.pick(finish.pick).seed)
    base = given.base if given else None  # of a seed that this search does not have any more
    say_fixed(study, [finish.pick], say)
    curves = Curves(study, say)
    try:
        (trained,) = study.train_all(
            [finish.pick], seeds=finish.seeds, say=say, run=run, base=base, watch=curves
        )
    finally:
        curves.finish()
    if finish.export:
        out = study.folder / "exported" / trained.candidate
        study.export(trained.candidate, out, replace=True, say=say, run=run, base=base)


def _say_front(study: Study, say: Say) -> None:
    summary: Mapping[str, Any] = study.summary()
    stopped = f", {summary['stopped']} stopped at a lower rung" if summary["stopped"] else ""
    if summary["repeated"]:
        stopped += f", {summary['repeated']} of a design that was scored already"
    say(
        f"{summary['candidates']} candidates ({summary['failed']} failed{stopped}), "
        f"{len(summary['front'])} on the front, hypervolume {summary['hypervolume']:.4f}"
    )
    if summary["failed"]:
        first = next(candidate for candidate in study.candidates() if candidate.failed)
        say(f"the first that failed, {first.id}: {first.reason}")
