"""A candidate: one proposed vector and what came of it, as the record keeps it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What the record keeps of a candidate beside its evaluation; an evaluation uses other keys.
OWN_KEYS = ("index", "error", "started", "finished", "unscored", "odd")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One proposed vector and what came of it.

    Args:
        strategy: name of the strategy that proposed it; without "/".
        seed: seed of the arm.
        index: position in the order of asking within its arm, from 0.
        vector: (D,) entries in [0, 1].
        names: (D,) unique, readable names of the entries, such as "use[cifar10]".
        quality: at the highest rung that it reached; to be maximised; None or not finite in a
            failed candidate.
        cost: to be minimised; None or not finite in a failed candidate.
        error: why the candidate failed; None if it did not.
        evaluation: whatever is known of it, as JSON: accuracy {task: share}, costs (in them use
            {network: share}), realised {group: (R, R)}, and so on; "label" names a baseline;
            "rungs" lists what was measured rung by rung, "rung" is the index of the last of them,
            and "final" says whether that was the last there is.
        started: unix time in seconds.
        finished: unix time in seconds.

    Raises:
        ValueError: a value is outside these ranges.
    """

    strategy: str
    seed: int
    index: int
    vector: tuple[float, ...]
    names: tuple[str, ...]
    quality: float | None = None
    cost: float | None = None
    error: str | None = None
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0

    def __post_init__(self) -> None:
        if not self.strategy or "/" in self.strategy:
            raise ValueError(f"a strategy's name must not be empty or hold '/': {self.strategy!r}")
        if self.index < 0:
            raise ValueError(f"{self.strategy}-{self.seed}: index must be >= 0, got {self.index}")
        if len(self.vector) != len(self.names) or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"candidate {self.id}: every entry of the vector needs one name of its own, "
                f"got {len(self.vector)} entries and {len(set(self.names))} different names"
            )
        for name, value in zip(self.names, self.vector, strict=True):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"candidate {self.id}: {name} must be in [0, 1], got {value}")
        if taken := sorted(set(OWN_KEYS) & set(self.evaluation)):
            raise ValueError(f"candidate {self.id}: an evaluation must not use the keys {taken}")

    @property
    def id(self) -> str:
        """`<strategy>-<seed>-<index>`, unique within the study."""
        return f"{self.strategy}-{self.seed}-{self.index}"

    @property
    def failed(self) -> bool:
        """Whether it has no score: an error, or an objective that is missing or not finite."""
        if self.error is not None or self.quality is None or self.cost is None:
            return True
        return not (math.isfinite(self.quality) and math.isfinite(self.cost))

    @property
    def rungs(self) -> Sequence[Mapping[str, Any]]:
        """What was measured at every rung that it reached, the lowest first."""
        return self.evaluation.get("rungs") or ()

    @property
    def stopped(self) -> bool:
        """Whether its score is that of a lower rung, since others were more promising there."""
        return not self.failed and not self.evaluation.get("final", True)

    @property
    def reason(self) -> str | None:
        """Why it failed, in words; None if it did not."""
        if self.error is not None or not self.failed:
            return self.error
        return f"an objective is missing or not finite: quality {self.quality}, cost {self.cost}"

    @property
    def label(self) -> str | None:
        """Name of a fixed baseline, such as "share_all"; None of others."""
        label = self.evaluation.get("label")
        return None if label is None else str(label)

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Validation accuracy in [0, 1] by task; empty where nothing was measured."""
        return self.evaluation.get("accuracy") or {}

    @property
    def seconds(self) -> float:
        """Device-seconds that scoring it took, over all rungs; 0 where nothing was measured."""
        measured = self.rungs or [self.evaluation]
        return float(sum(entry.get("seconds") or 0.0 for entry in measured))

    @property
    def use(self) -> Mapping[str, float]:
        """Share of the channels in [0, 1] by virtual network, in the order of the masks' rows."""
        costs = self.evaluation.get("costs") or {}
        use = self.evaluation.get("use") or costs.get("use") or {}
        return {short(network): share for network, share in use.items()}

    def mean_sharing(self) -> tuple[list[str], NDArray[np.float64]] | None:
        """Names of the R virtual networks and their realised P, (R, R), averaged over the groups.

        None where no masks were made.
        """
        realised = list((self.evaluation.get("realised") or {}).values())
        if not realised:
            return None
        mean_RR = np.mean(np.array(realised, dtype=np.float64), axis=0)
        for names in (list(self.use), list(self.accuracy)):
            if len(names) == len(mean_RR):
                return names, mean_RR
        return [str(row) for row in range(len(mean_RR))], mean_RR


def short(network: str) -> str:
    """Name of a virtual network; the task alone where it is the task's first or only level."""
    return network.removesuffix(" (level 0)")
