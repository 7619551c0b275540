"""`apportion report --sync`: the MLflow mirror, made anew from the record."""

from search.candidates import scored
from search.commands.compare import compare
from search.commands.report import finish_mirror, make_tracker
from search.commands.watching import mirror_trainings
from search.config import dump_config
from search.mirror import set_aside_damaged
from search.study import Say, Study


def sync(study: Study, *, say: Say = print) -> None:
    """Rebuild the study's MLflow mirror from its record, without duplicates.

    Args:
        study: The study.
        say: Called where its store was damaged.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    if aside := set_aside_damaged(study.folder / "mlflow.db"):
        say(f"mlflow.db was damaged and is kept as {aside.name}; it is made anew from the record")
    tracker = make_tracker(study)()
    tracker.start(dump_config(study.config))
    candidates = study.candidates()
    tracker.sync(candidates)
    mirror_trainings(study, tracker)
    finish_mirror(study, "FINISHED" if scored(candidates) else "FAILED", tracker, candidates)
    if (study.folder / "compare").is_dir():
        compare(study)
