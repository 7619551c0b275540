"""What a study keeps of its calibration, and whether it may be read as the study is now."""

import logging
from pathlib import Path
from typing import Any

from partitioning import DamagedFileError, read_json, write_atomically, write_json
from search.calibration.results import calibration_folder, settings_digest
from search.calibration.scatter import scatter_figure
from search.calibration.summary import Results, calibration_table, summarise
from search.calibration.verdict import judged
from search.study import Study

logger = logging.getLogger(__name__)


def write_calibration(study: Study, results: Results) -> dict[str, Any]:
    """Write calibration.json, .csv and .png to a study's calibration; returns the summary."""
    folder = calibration_folder(study)
    summary = summarise(results, study.config)
    table = calibration_table(results)
    with write_atomically(folder / "calibration.csv") as partial:
        table.to_csv(partial, index=False)
    with write_atomically(folder / "calibration.png") as partial:
        scatter_figure(table, summary, partial)
    write_json(folder / "calibration.json", summary, sealed=True)
    return summary


def read_trust(study: Study) -> dict[str, Any] | None:
    """The summary of a study's calibration, judged by the study's threshold.

    None where there is none, or one of other settings than the study's own.
    """
    path = calibration_folder(study) / "calibration.json"
    if not path.is_file():
        return None
    try:
        kept = read_json(path)
    except DamagedFileError as error:
        logger.warning("warning: %s. `apportion calibrate` writes it anew", error)
        return None
    if kept.get("settings") != settings_digest(study.config):
        return None
    return judged(kept, study.config.calibration.threshold)


def picture(study: Study) -> Path:
    """Where the scatter picture of a calibration is."""
    return calibration_folder(study) / "calibration.png"
