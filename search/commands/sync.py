"""`apportion report --sync`: the MLflow mirror, made anew from the record."""

from search.candidates import scored
from search.commands.compare import compare
from search.commands.report import finish_mirror, make_tracker
from search.config import dump_config
from search.study import Study


def sync(study: Study) -> None:
    """Rebuild the study's MLflow mirror from its record, without duplicates.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    tracker = make_tracker(study)()
    tracker.start(dump_config(study.config))
    candidates = study.candidates()
    tracker.sync(candidates)
    finish_mirror(study, "FINISHED" if scored(candidates) else "FAILED", tracker, candidates)
    if (study.folder / "compare").is_dir():
        compare(study)
