"""`apportion train`: a candidate trained in full, on the cluster."""

from search.arms import cluster_run
from search.study import Say, Study, TrainedPick


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
