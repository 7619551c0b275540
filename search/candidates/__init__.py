"""What a candidate is, and how candidates are compared: fronts, hypervolume, rungs, progress.

Nothing here knows where candidates come from or where they are kept.
"""

from search.candidates.candidate import OWN_KEYS, Candidate, short
from search.candidates.pareto import (
    REFERENCE,
    best_first,
    crowding,
    hypervolume,
    knee,
    non_dominated,
)
from search.candidates.progress import coordinates, front, history, scored, study_hypervolume
from search.candidates.rungs import Rung, ladder, promoted

__all__ = [
    "OWN_KEYS",
    "REFERENCE",
    "Candidate",
    "Rung",
    "best_first",
    "coordinates",
    "crowding",
    "front",
    "history",
    "hypervolume",
    "knee",
    "ladder",
    "non_dominated",
    "promoted",
    "scored",
    "short",
    "study_hypervolume",
]
