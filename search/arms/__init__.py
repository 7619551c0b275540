"""An arm's loop, the pools of evaluators it scores with, and arms as Ray Tune trials on a cluster.

Everything that knows Ray is here; the loop itself does not.
"""

import os
from typing import TYPE_CHECKING, Any

# Ray and Tune read these when they are imported, here and in every worker.
# Tune's older output takes a reporter of our own; its newer one prints a fixed table.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Tune would take Ctrl-C for the end of the search and return as if the arms were done.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from search.arms.cluster import (
    WriterLostError,
    begin_arms,
    close_writer,
    cluster_jobs,
    cluster_run,
    record,
    resolve_schedule,
    start_writer,
)
from search.arms.connection import connect
from search.arms.display import Display

if TYPE_CHECKING:
    from search.arms.trials import run_arms

__all__ = [
    "Display",
    "WriterLostError",
    "begin_arms",
    "close_writer",
    "cluster_jobs",
    "cluster_run",
    "connect",
    "record",
    "resolve_schedule",
    "run_arms",
    "start_writer",
]


def __getattr__(name: str) -> Any:
    """Load `run_arms` when it is first used: Tune takes a second, and evaluators do without."""
    if name != "run_arms":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from search.arms.trials import run_arms

    return run_arms
