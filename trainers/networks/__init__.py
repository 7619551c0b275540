"""Networks of any kind: what of them can be divided, and the smaller ones that rows are."""

from trainers.networks.counting import Counter, Counts
from trainers.networks.cutting import Cut, CutError, cut
from trainers.networks.division import Divisible, Division, UntraceableError, find_division
from trainers.networks.preprocessing import own_inputs
from trainers.networks.recording import RecordingError
from trainers.networks.row import Row
from trainers.networks.sources import SOURCES, ModelError, build_model

__all__ = [
    "SOURCES",
    "Counter",
    "Counts",
    "Cut",
    "CutError",
    "Divisible",
    "Division",
    "ModelError",
    "RecordingError",
    "Row",
    "UntraceableError",
    "build_model",
    "cut",
    "find_division",
    "own_inputs",
]
