"""Every candidate that was trained in full, held against sharing every channel.

To train a few and report the best makes its lead partly chance. So all that were trained are
listed, and corrected for each other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np

from search.stats import holm, welch
from search.study.training_files import KeptTraining, TrainedPick


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A trained candidate.

    Attributes:
        candidate: Its name.
        seeds: Number of trainings.
        split: Whose accuracy is compared: test, or validation where a task has no test images.
        mean: Mean accuracy over networks and seeds.
        std: Standard deviation over seeds (ddof 1); NaN for one seed.
        difference: Mean less that of sharing every channel on the same foundation; NaN where that
            was not trained.
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


def tried(trained: Sequence[TrainedPick], share_all: Mapping[str, str]) -> list[Tried]:
    """All trained candidates, the most accurate first.

    Args:
        trained: With the same settings; each with a seed or more.
        share_all: By candidate, the name of the one that shares every channel on its foundation,
            itself for such a one; without those on whose foundation none was trained.
    """
    common = set.intersection(*(set(pick.mean) for pick in trained)) if trained else set()
    split = "test" if "test" in common else "validation"
    runs = {pick.candidate: np.array(pick.by_split()[split]) for pick in trained}
    p = {
        name: welch(run, runs[share_all[name]])
        for name, run in runs.items()
        if share_all.get(name, name) != name
    }
    known = {name: value for name, value in p.items() if np.isfinite(value)}
    adjusted = dict(zip(known, holm(np.array(list(known.values()))), strict=True))

    def difference(name: str) -> float:
        return float(runs[name].mean() - runs[share_all[name]].mean()) if name in share_all else nan

    found = [
        Tried(
            candidate=pick.candidate,
            seeds=len(pick.accuracy),
            split=split,
            mean=pick.mean[split],
            std=pick.std[split],
            difference=difference(pick.candidate),
            p=p.get(pick.candidate, nan),
            p_adjusted=float(adjusted.get(pick.candidate, nan)),
        )
        for pick in trained
    ]
    return sorted(found, key=lambda entry: -entry.mean)


def tried_by_settings(
    trainings: Sequence[KeptTraining],
    held_against: Callable[[Sequence[str]], Mapping[str, str]],
) -> dict[str, list[Tried]]:
    """All trained candidates, by the short name of how they were trained.

    Args:
        trainings: Of any settings.
        held_against: Of candidates that were trained alike, `share_all` of `tried`.
    """
    found: dict[str, dict[str, dict[int, KeptTraining]]] = {}
    for one in trainings:
        found.setdefault(one.settings, {}).setdefault(one.candidate, {})[one.seed] = one
    return {
        settings: tried(
            [
                TrainedPick(
                    candidate=name,
                    folder=Path(),
                    accuracy={seed: one.accuracy for seed, one in by_seed.items()},
                )
                for name, by_seed in own.items()
            ],
            held_against(list(own)),
        )
        for settings, own in found.items()
    }
