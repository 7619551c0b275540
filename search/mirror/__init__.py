"""The MLflow mirror of a study, for people to look at.

Everything that knows MLflow is here; the record stays the truth.
"""

import os
from typing import TYPE_CHECKING, Any

# MLflow reads the first when it is imported; the next two keep a line per run and a bar per file
# off the screen, the one after keeps eight processes for jobs that are none of ours from a server.
# By the last two it gives up within a minute: it is tried again later.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from search.mirror.server import free_port, mlflow_page
from search.mirror.shown import safe
from search.mirror.store import TrackingError, default_uri, set_aside_damaged

if TYPE_CHECKING:
    from search.mirror.tracker import Tracker

__all__ = [
    "Tracker",
    "TrackingError",
    "default_uri",
    "free_port",
    "mlflow_page",
    "safe",
    "set_aside_damaged",
]


def __getattr__(name: str) -> Any:
    """Load `Tracker` when it is first used, since MLflow takes a second."""
    if name != "Tracker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from search.mirror.tracker import Tracker

    return Tracker
