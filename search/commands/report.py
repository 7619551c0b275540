"""`apportion report`: the front as a table, a picture and a page; and what MLflow shows of it."""

import functools
from pathlib import Path
from typing import Any

import pandas as pd

from partitioning import write_atomically
from search.calibration import picture, read_trust
from search.candidates import Candidate, front
from search.commands.page import write_study_page
from search.config import COSTS, reveal
from search.record import is_written
from search.report import (
    chosen_images_figure,
    front_figure,
    front_table,
    methods_figure,
    selection_figure,
)
from search.study import Study, chosen_points, method_curves, method_points, read_tasks


def make_tracker(study: Study) -> Any:
    """A function that connects to the study's MLflow store, wherever it is called.

    Raises:
        ValueError: A variable that stands for the store's password is not set.
    """
    uri = study.config.tracking.uri
    revealed, hidden = (study.store_uri, ()) if uri is None else reveal(uri)
    return functools.partial(
        _tracker,
        tracking_uri=revealed,
        hidden=hidden,
        experiment=study.config.tracking.experiment,
        study=study.name,
        folder=study.folder.absolute(),
        every_candidate=study.config.tracking.candidates,
        reference=study.reference,
    )


def _tracker(**settings: Any) -> Any:
    from search.mirror import Tracker  # loads MLflow, which takes seconds

    return Tracker(**settings)


def write_report(study: Study) -> list[Path]:
    """Write a study's front into its folder: as a table, a picture and a page.

    Returns:
        The paths: front.csv, front.png and front.html, the study page; the picture of a calibration
        if there is one, which the page shows, too; of methods methods.csv and methods.png, and
        where networks are chosen per image selection.csv, selection.png and, unless the images are
        there no more, chosen_images.png.
    """
    is_running = is_written(study.record_path.absolute())
    return _write(study, study.candidates(), is_running=is_running)[1]


def finish_mirror(study: Study, status: str, tracker: Any, candidates: list[Candidate]) -> None:
    """Bring the front and the progress in MLflow up to date, and end the study's runs.

    Of a search that was stopped only the latter: the rest follows when it goes on.

    Args:
        study: The study.
        status: FINISHED, FAILED or KILLED.
        tracker: Of the study, started.
        candidates: All that the record has.
    """
    if status != "KILLED":  # whoever ends a search does not wait for pictures
        tracker.set_front([candidate.id for candidate in front(candidates)])
        tracker.log_progress(candidates)
        finished = max((candidate.finished for candidate in candidates), default=0.0)
        tracker.log_utilisation(study.utilisation(), finished)
        table, files = _write(study, candidates)
        tracker.log_front(table, files)
        if study.config.methods:
            times = {candidate.id: candidate.finished for candidate in candidates}
            for name, points in method_curves(study).items():
                tracker.log_curve(name, points, times.get(name, finished))
    tracker.finish(status)


def _write(
    study: Study, candidates: list[Candidate], *, is_running: bool = False
) -> tuple[pd.DataFrame, list[Path]]:
    reference = study.reference()
    table = front_table(candidates, reference)
    paths = [study.folder / name for name in ("front.csv", "front.png")]
    words = COSTS[study.config.objective.cost].words
    with write_atomically(paths[0]) as partial:
        table.to_csv(partial, index=False)
    with write_atomically(paths[1]) as partial:
        front_figure(candidates, partial, reference, cost=words)
    paths.append(write_study_page(study, candidates, is_running=is_running))
    if read_trust(study) is not None and picture(study).is_file():
        paths.append(picture(study))
    if study.config.methods and not (points := method_points(study)).empty:
        paths += [study.folder / name for name in ("methods.csv", "methods.png")]
        with write_atomically(paths[-2]) as partial:
            points.to_csv(partial, index=False)
        with write_atomically(paths[-1]) as partial:
            methods_figure(points, partial)
        if not (chosen := chosen_points(study)).empty:
            paths += _write_chosen(study, chosen)
    return table, paths


def _write_chosen(study: Study, chosen: pd.DataFrame) -> list[Path]:
    """Write what selectors choose, and for which images, where it is not written yet."""
    names = ("selection.csv", "selection.png", "chosen_images.png")
    paths = [study.folder / name for name in names]
    text = chosen.to_csv(index=False)
    is_new = not paths[0].is_file() or paths[0].read_text() != text
    if is_new or not paths[1].is_file():
        with write_atomically(paths[1]) as partial:
            selection_figure(chosen, partial)
    if is_new or not paths[2].is_file():
        try:
            tasks = read_tasks(study.config, say=lambda line: None)
        except ValueError:
            paths.pop().unlink(missing_ok=True)
        else:
            with write_atomically(paths[2]) as partial:
                chosen_images_figure(chosen, tasks, partial)
    if is_new:  # when the pictures are: they are made again after a kill
        with write_atomically(paths[0]) as partial:
            partial.write_text(text)
    return paths
