"""`apportion calibrate`: the proxy held against full training, on the cluster."""

from typing import Any

from search.arms import cluster_run
from search.calibration import measure_calibration, write_calibration
from search.commands.scores import NoScoresError
from search.config import ConfigError, StudyConfig
from search.study import Say, Study, check_inputs, check_strategies


def open_study(config: StudyConfig) -> Study:
    """The study of a config, its folder made if it is not there; nothing is computed.

    Raises:
        ValueError: Something in the config, the data or the folder cannot be used.
    """
    check_inputs(config)
    check_strategies(config)
    return Study.create(config, resume=(config.folder / "config.yaml").is_file())


def calibrate(study: Study | StudyConfig, *, say: Say = print) -> dict[str, Any]:
    """Hold the study's proxy against full training, on the cluster: can its scores be trusted?

    It takes hours; what was measured is kept, so it can be stopped and called again.

    Args:
        study: With candidates or without; or a config, whose study is made where it is not there.
        say: Called with one line per thing that was done.

    Returns:
        What was found: correlations with their intervals, and a verdict in words. It is written
        to the study's `calibration` folder, too.

    Raises:
        ValueError: Something in the config, the data or the folder cannot be used.
        NoScoresError: Every candidate failed.
    """
    if isinstance(study, StudyConfig):
        study = open_study(study)
    if study.config.methods:
        raise ConfigError(
            f"{study.config.name} has methods, which are trained in full: there is no proxy to "
            "hold against that"
        )
    results = measure_calibration(study, say=say, run=cluster_run(study.config))
    summary = write_calibration(study, results)
    if not summary["candidates"]:
        first = summary["failed"][0]["error"]
        raise NoScoresError(f"no candidate of {study.folder} could be measured; the first: {first}")
    return summary
