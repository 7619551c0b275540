"""A study's page: what is shown of it is gathered, and kept fresh while a search runs."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from partitioning import DamagedFileError, read_json, write_atomically
from search.calibration import picture, read_trust
from search.candidates import Candidate
from search.config import COSTS, yaml_text
from search.record import is_written
from search.report import (
    Exporting,
    LayerTimes,
    Shown,
    Training,
    Trial,
    by_level,
    write_page,
)
from search.study import (
    KeptTraining,
    Study,
    kept_latency,
    kept_trainings,
    method_points,
    read_exports,
    tried_by_settings,
)

#: Of the page, in a study's folder.
PAGE = "front.html"
#: Seconds between two writings of a running search's page, at least; and how many times as long as
#: the last one took they are apart, so that the search hardly notices.
EVERY, SPARING = 60.0, 20.0

logger = logging.getLogger(__name__)


def write_study_page(
    study: Study, candidates: Sequence[Candidate], *, is_running: bool = False
) -> Path:
    """Write a study's page into its folder; returns its path.

    Args:
        study: The study.
        candidates: All that the record has.
        is_running: Whether more come: then the page looks for a newer one of itself.
    """
    path = study.folder / PAGE
    shown = gathered(study, candidates, is_running=is_running)
    with write_atomically(path) as partial:
        write_page(shown, partial)
    return path


def refresh_page(study: Study) -> None:
    """Write a study's page anew where there is one; where that cannot be, it stays as it is."""
    if (study.folder / PAGE).is_file():
        running = is_written(study.record_path.absolute())
        try:
            write_study_page(study, study.candidates(), is_running=running)
        except OSError as error:
            logger.info("the study's page is not written: %s", error)


@contextmanager
def page_kept_fresh(study: Study, every: float = EVERY) -> Iterator[None]:
    """Write a study's page now and then while what is within adds candidates.

    Args:
        study: The study.
        every: Seconds between two writings, at least.
    """
    ended = threading.Event()

    def keep() -> None:
        pause = every
        while not ended.wait(pause):
            begun = time.monotonic()
            try:
                write_study_page(study, study.candidates(), is_running=True)
            except Exception as error:  # a search does not end for its page
                logger.info("the study's page is not written: %s", error)
            pause = max(every, SPARING * (time.monotonic() - begun))

    keeper = threading.Thread(target=keep, name="page", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


def gathered(study: Study, candidates: Sequence[Candidate], *, is_running: bool = False) -> Shown:
    """All that a study's page shows of it."""
    config = study.config
    trust = read_trust(study)
    is_calibrated = trust is not None and picture(study).is_file()
    trainings = _trainings(study, candidates)
    methods = None
    if config.methods:
        points = method_points(study, logger.info)
        methods = [] if points.empty else by_level(points).to_dict("records")
    names = [
        name
        for name in COSTS
        if name == config.objective.cost or any(name in c.shares for c in candidates)
    ]
    return Shown(
        name=config.name,
        folder=str(study.folder.absolute()),
        candidates=candidates,
        reference=study.reference(),
        objective=config.objective.cost,
        costs={name: COSTS[name].words for name in names},
        tasks=study.knowledge().tasks,
        foundations={c.id: study.foundation_of(c) for c in candidates},
        trainings=[
            Training(
                candidate=one.candidate,
                seed=one.seed,
                settings=one.settings,
                accuracy=one.accuracy,
                points=one.points,
            )
            for one in trainings
        ],
        trials=_trials(study, candidates, trainings),
        settings={one.settings: yaml_text(dict(one.described)) for one in trainings},
        exports=[_export(entry) for entry in read_exports(study.folder, logger.warning)],
        calibration=(trust["verdict"], picture(study)) if trust and is_calibrated else None,
        methods=methods,
        layers=_layers(study),
        config=(study.folder / "config.yaml").read_text(encoding="utf-8"),
        written=time.time(),
        is_running=is_running,
        is_simulated=config.evaluator == "simulated",
    )


def _trainings(study: Study, candidates: Sequence[Candidate]) -> list[KeptTraining]:
    """Those of candidates: others, such as a table's random masks, have no place on the page."""
    known = {candidate.id for candidate in candidates}
    return [one for one in kept_trainings(study.folder / "trained") if one.candidate in known]


def _trials(
    study: Study, candidates: Sequence[Candidate], trainings: Sequence[KeptTraining]
) -> list[Trial]:
    by_id = {candidate.id: candidate for candidate in candidates}
    found = tried_by_settings(
        trainings, lambda names: study.held_against([by_id[name] for name in names])
    )
    return [
        Trial(
            candidate=one.candidate,
            settings=settings,
            seeds=one.seeds,
            split=one.split,
            mean=one.mean,
            std=one.std,
            difference=one.difference,
            p=one.p_adjusted,
        )
        for settings, own in found.items()
        for one in own
    ]


def _export(entry: dict[str, Any]) -> Exporting:
    folder = Path(entry["path"])
    return Exporting(**entry, is_there=folder.is_dir(), latencies=_latencies(folder))


def _latencies(export: Path) -> list[dict[str, Any]]:
    """What an export's own files say of how fast it is."""
    found = []
    for path in sorted(export.glob("*/network.json")):
        try:
            files = read_json(path)["files"]
            found += [
                {
                    "network": path.parent.name,
                    "file": name,
                    "ms": about["latency_ms"]["batch_1"],
                    "undivided_ms": about["latency_ms"]["undivided_batch_1"],
                }
                for name, about in files.items()
                if "latency_ms" in about
            ]
        except (DamagedFileError, OSError, KeyError, TypeError) as error:
            logger.info("the times of %s are not shown: %s", path, error)
    return found


def _layers(study: Study) -> LayerTimes | None:
    table = kept_latency(study.folder)
    if table is None:
        return None
    return LayerTimes(
        device=table.device,
        batch=table.batch,
        threads=table.threads,
        error=table.error,
        milliseconds={name: times[-1][-1] for name, times in table.milliseconds.items()},
    )
