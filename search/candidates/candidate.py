"""A candidate: one proposed vector and what came of it, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from partitioning import Masks

if TYPE_CHECKING:  # with it comes torch, which nothing here needs
    from trainers.cost import Costs

#: A square matrix as rows of numbers, which can be compared and written as they are.
Matrix = Sequence[Sequence[float]]


def rounded(matrices: Mapping[str, NDArray[np.float64]]) -> dict[str, Matrix]:
    """Matrices as the record writes them, with six digits behind the point."""
    return {
        name: tuple(tuple(round(float(entry), 6) for entry in row) for row in matrix)
        for name, matrix in matrices.items()
    }


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What a vector was decoded to: the masks of its R virtual networks, and how well they fit.

    Attributes:
        masks: The masks that the candidate is scored with.
        realised: The sharing matrix P, (R, R), that the masks have, by channel group.
        target: The P, (T, T), that was asked for, by channel group, and by "<group>.backward";
            like the next three empty or None where masks are not solved for.
        deviation: How far the masks are from the target, in channels, by the same names.
        bound: What no masks of these channels can deviate less than, by the same names.
        proven: Whether all deviations are proven to be the least there are.
        realisable: The vector, (D,), nearest to the candidate's that masks could realise; None
            where it was not looked for or not found.
    """

    masks: Masks
    realised: Mapping[str, Matrix]
    target: Mapping[str, Matrix] = field(default_factory=dict)
    deviation: Mapping[str, float] = field(default_factory=dict)
    bound: Mapping[str, float] = field(default_factory=dict)
    proven: bool | None = None
    realisable: tuple[float, ...] | None = None

    @classmethod
    def of(cls, masks: Masks) -> Decoding:
        """That of masks which were not solved for."""
        matrices = {group.name: masks.realised(group.name) for group in masks.groups}
        return cls(masks=masks, realised=rounded(matrices))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What scoring a candidate at one rung said of it.

    Attributes:
        steps: Steps of the scoring.
        fidelity: proxy (feature distillation) or full (training on the images), as in `Rung`.
        quality: Mean of the accuracy; None where the scoring failed.
        accuracy: Validation accuracy in [0, 1] by virtual network; empty where the scoring failed.
        distillation_loss: By virtual network; empty where the scoring has none.
        seconds: Device-seconds that it took; None where the scoring failed.
        quality_std: Standard deviation of the quality over repeats; None without repeats.
        error: Why the scoring failed; None if it did not.
        evaluator: Name of the evaluator; empty where it has none.
    """

    steps: int
    fidelity: str = "proxy"
    quality: float | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)
    distillation_loss: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    quality_std: float | None = None
    error: str | None = None
    evaluator: str = ""


#: What stands before a candidate's name where an evaluator's would: its scores were taken.
SCORED_AS = "as "
#: Label of the baseline in which every task uses every channel.
SHARE_ALL = "share_all"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One proposed vector and what came of it.

    Args:
        strategy: Name of the strategy that proposed it; without "/".
        seed: Seed of the arm.
        index: Position in the order of asking within its arm, from 0.
        vector: Entries in [0, 1], (D,).
        names: Unique, readable names of the entries, such as "use[cifar10]", (D,).
        label: Name of a fixed baseline, such as "share_all"; None of others.
        quality: At the highest rung that it reached; to be maximised; None or not finite in a
            failed candidate.
        cost: To be minimised; None or not finite in a failed candidate.
        error: Why the candidate failed; None if it did not.
        decoding: Its masks and how they came about; None where none were found.
        costs: What its masks cost, in all units; None before it was scored.
        rungs: What was measured at every rung that it reached, the lowest first.
        stopped: Whether its score is that of a lower rung, since others were more promising there.
        started: Unix time in seconds.
        finished: Unix time in seconds.

    Raises:
        ValueError: A value is outside these ranges.
    """

    strategy: str
    seed: int
    index: int
    vector: tuple[float, ...]
    names: tuple[str, ...]
    label: str | None = None
    quality: float | None = None
    cost: float | None = None
    error: str | None = None
    decoding: Decoding | None = None
    costs: Costs | None = None
    rungs: tuple[Measurement, ...] = ()
    stopped: bool = False
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
        if self.stopped and self.failed:
            raise ValueError(
                f"candidate {self.id}: only a candidate with a score can be stopped at a lower "
                f"rung, but this one failed: {self.reason}"
            )

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
    def is_repeat(self) -> bool:
        """Whether its scores are those of a candidate of the same design."""
        return bool(self.rungs) and self.rungs[0].evaluator.startswith(SCORED_AS)

    @property
    def reason(self) -> str | None:
        """Why it failed, in words; None if it did not."""
        if self.error is not None or not self.failed:
            return self.error
        return f"an objective is missing or not finite: quality {self.quality}, cost {self.cost}"

    @property
    def masks(self) -> Masks:
        """The masks that it was scored with.

        Raises:
            ValueError: It has none; the message says why.
        """
        if self.decoding is None:
            raise ValueError(f"candidate {self.id} has no masks: {self.reason or 'none were kept'}")
        return self.decoding.masks

    @property
    def measured(self) -> Measurement | None:
        """What the highest rung said at which its scoring did not fail; None if there is none."""
        return next((each for each in reversed(self.rungs) if each.quality is not None), None)

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Validation accuracy in [0, 1] by virtual network; empty where nothing was measured."""
        return self.measured.accuracy if self.measured else {}

    @property
    def seconds(self) -> float:
        """Device-seconds that scoring it took, over all rungs; 0 where nothing was measured."""
        return float(sum(each.seconds or 0.0 for each in self.rungs))

    @property
    def evaluator(self) -> str | None:
        """Name of the evaluator that scored it last; None where none did."""
        return self.rungs[-1].evaluator if self.rungs else None

    @property
    def use(self) -> Mapping[str, float]:
        """Share of the channels in [0, 1] by virtual network, in the order of the masks' rows."""
        return self.costs.use if self.costs else {}

    @property
    def shares(self) -> Mapping[str, float]:
        """All costs relative to sharing every channel, by the names of the config."""
        if self.costs is None:
            return {}
        latency = self.costs.relative_latency
        return {
            "macs": self.costs.relative_macs,
            "parameters": self.costs.relative_parameters,
            "union": self.costs.relative_union,
            "use": self.costs.mean_use,
            **({} if latency is None else {"latency": latency}),
        }

    def mean_sharing(self) -> tuple[list[str], NDArray[np.float64]] | None:
        """Names of the R virtual networks and their realised P, (R, R), averaged over the groups.

        None where no masks were made.
        """
        if self.decoding is None:
            return None
        realised_GRR = np.array(list(self.decoding.realised.values()), dtype=np.float64)
        return [str(network) for network in self.masks.networks], realised_GRR.mean(axis=0)
