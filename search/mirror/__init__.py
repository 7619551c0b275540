"""The MLflow mirror of a study, for people to look at.

Everything that knows MLflow is here; the record stays the truth.
"""

import os

# MLflow reads the first when it is imported; the second keeps a line per run off the screen; by
# the third it gives up within seconds, as it is tried again later.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

from search.mirror.shown import safe
from search.mirror.store import TrackingError, default_uri, set_aside_damaged
from search.mirror.tracker import Tracker

__all__ = ["Tracker", "TrackingError", "default_uri", "safe", "set_aside_damaged"]
