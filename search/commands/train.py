"""`apportion train`: a candidate trained in full, on the cluster."""

from search.arms import cluster_run
from search.study import (
    Say,
    Study,
    TrainedPick,
)


def train(study: Study, pick: str, *, seeds: int, say: Say) -> TrainedPick:
    """`Study.train` on the cluster, seeds side by side."""
    return study.train(pick, seeds=seeds, say=say, run=cluster_run(study.config))
