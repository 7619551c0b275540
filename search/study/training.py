"""What full training of a pick reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class TrainedPick:
    """A fully trained candidate.

    Attributes:
        candidate: Its name.
        folder: Where its files are.
        accuracy: By seed, then split, then virtual network.
        mean: By split: mean accuracy over networks and seeds.
        std: By split: standard deviation over seeds of the mean over networks (ddof 1; NaN
            for one seed).
    """

    candidate: str
    folder: Path
    accuracy: Mapping[int, Mapping[str, Mapping[str, float]]]

    @property
    def mean(self) -> dict[str, float]:
        """By split: the mean over seeds of the mean accuracy over networks."""
        return {split: float(np.mean(values)) for split, values in self._by_split().items()}

    @property
    def std(self) -> dict[str, float]:
        """By split: the standard deviation over seeds (ddof 1); NaN for one seed."""
        return {
            split: float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            for split, values in self._by_split().items()
        }

    def _by_split(self) -> dict[str, list[float]]:
        runs = list(self.accuracy.values())
        return {split: [float(np.mean(list(r[split].values()))) for r in runs] for split in runs[0]}
