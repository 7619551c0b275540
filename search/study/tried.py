"""Every candidate that was trained in full, held against sharing every channel.

To train a few and report the best makes its lead partly chance. So all that were trained are
listed, and corrected for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.stats import holm, welch
from search.study.training import TrainedPick


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A trained candidate.

    Attributes:
        candidate: Its name.
        seeds: Number of trainings.
        split: Whose accuracy is compared: test, or validation where a task has no test images.
        mean: Mean accuracy over networks and seeds.
        std: Standard deviation over seeds (ddof 1); NaN for one seed.
        difference: Mean less that of sharing every channel; NaN where that was not trained.
        p: Of Welch's t-test over seeds, two-sided; NaN with fewer than two seeds of either.
        p_adjusted: The same after Holm's correction over all that were trained.
    """

    candidate: str
    seeds: int
    split: str
    mean: float
    std: float
    difference: float
    p: float
    p_adjusted: float


def tried(trained: Sequence[TrainedPick], share_all: str | None) -> list[Tried]:
    """All trained candidates, the most accurate first.

    Args:
        trained: With the same settings; each with a seed or more.
        share_all: Name of the one that shares every channel; None where none does.
    """
    common = set.intersection(*(set(pick.mean) for pick in trained)) if trained else set()
    split = "test" if "test" in common else "validation"
    runs = {pick.candidate: np.array(pick.by_split()[split]) for pick in trained}
    base = runs.get(share_all or "", np.empty(0))
    p = {name: welch(run, base) for name, run in runs.items() if name != share_all}
    known = {name: value for name, value in p.items() if np.isfinite(value)}
    adjusted = dict(zip(known, holm(np.array(list(known.values()))), strict=True))
    found = [
        Tried(
            candidate=pick.candidate,
            seeds=len(pick.accuracy),
            split=split,
            mean=pick.mean[split],
            std=pick.std[split],
            difference=pick.mean[split] - float(base.mean()) if len(base) else float("nan"),
            p=p.get(pick.candidate, float("nan")),
            p_adjusted=float(adjusted.get(pick.candidate, np.nan)),
        )
        for pick in trained
    ]
    return sorted(found, key=lambda entry: -entry.mean)
