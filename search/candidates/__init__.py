"""What a candidate is, and how candidates are compared: fronts, hypervolume, rungs, progress.

Nothing here knows where candidates come from or where they are kept.
"""

from search.candidates.candidate import (
    SCORED_AS,
    SHARE_ALL,
    Candidate,
    Decoding,
    Matrix,
    Measurement,
    rounded,
)
from search.candidates.pareto import (
    REFERENCE,
    best_first,
    crowding,
    hypervolume,
    ideal_area,
    knee,
    non_dominated,
)
from search.candidates.progress import (
    coordinates,
    front,
    history,
    picks_of,
    scored,
    study_hypervolume,
)
from search.candidates.rungs import Rung, ladder, promoted
from search.candidates.utilisation import Utilisation, describe, shares, total

__all__ = [
    "REFERENCE",
    "SCORED_AS",
    "SHARE_ALL",
    "Candidate",
    "Decoding",
    "Matrix",
    "Measurement",
    "Rung",
    "Utilisation",
    "best_first",
    "coordinates",
    "crowding",
    "describe",
    "front",
    "history",
    "hypervolume",
    "ideal_area",
    "knee",
    "ladder",
    "non_dominated",
    "picks_of",
    "promoted",
    "rounded",
    "scored",
    "shares",
    "study_hypervolume",
    "total",
]
