"""`apportion export`: a trained candidate as one small network per task."""

from pathlib import Path

from search.arms import cluster_run
from search.study import (
    Say,
    Study,
)
from trainers.export import ExportCheck


def export(study: Study, pick: str, out: str | Path, *, say: Say) -> dict[str, ExportCheck]:
    """`Study.export`, with what has to be trained first trained on the cluster."""
    return study.export(pick, out, say=say, run=cluster_run(study.config))
