"""The sections of a study's config that belong to the search; others are next to what they set."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from trainers.data import TaskConfig
from trainers.optim import SGDConfig


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """How the proxy is held against full training, by `apportion calibrate`.

    Attributes:
        candidates: How many are scored by the proxy and trained in full; at least 3.
        trained_twice: How many of them are trained with a second seed, for the noise of full
            training.
        sgd: Full training; None takes the study's own, `train.sgd`.
        multiples: Full training is also looked at after so many times the proxy's wall time.
        threshold: Mean over tasks of the Pearson correlation with full training that the proxy
            must reach to be trusted.
        seed: Draws candidates where the record has too few, and the bootstrap.
    """

    candidates: int = 32
    trained_twice: int = 4
    sgd: SGDConfig | None = None
    multiples: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    threshold: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.candidates < 3:
            raise ValueError(f"candidates must be at least 3, got {self.candidates}")
        if not 0 <= self.trained_twice <= self.candidates:
            raise ValueError(
                f"trained_twice must be from 0 to candidates, {self.candidates}, got "
                f"{self.trained_twice}"
            )
        increasing = sorted(set(self.multiples)) == list(self.multiples)
        if not increasing or not all(0 < m < math.inf for m in self.multiples):
            raise ValueError(f"multiples must increase from above 0, got {list(self.multiples)}")
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold must be a correlation, -1 to 1, got {self.threshold}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class CostKind:
    """What a candidate's cost may be.

    Attributes:
        attribute: Of `trainers.cost.Costs`; 1 for sharing every channel.
        words: For axes and captions.
    """

    attribute: str
    words: str


#: What may score candidates.
EVALUATORS = ("proxy", "simulated")

#: Costs by the name that the config uses.
COSTS: dict[str, CostKind] = {
    "use": CostKind(attribute="mean_use", words="mean share of channels in use"),
    "parameters": CostKind(
        attribute="relative_parameters", words="parameters per task, relative to sharing all"
    ),
    "macs": CostKind(
        attribute="relative_macs", words="multiply-accumulates per task, relative to sharing all"
    ),
    "union": CostKind(
        attribute="relative_union", words="parameters of all tasks, relative to sharing all"
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """Where the shared trunk comes from: exactly one of the two.

    Attributes:
        dataset: A dataset to pretrain on.
        checkpoint: A file of pretrained weights (safetensors, or a plain state dict).
        sgd: Pretraining settings.
        seed: Seeds pretraining.
    """

    dataset: TaskConfig | None = None
    checkpoint: str | None = None
    sgd: SGDConfig = field(default_factory=SGDConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.dataset is None) == (self.checkpoint is None):
            raise ValueError(
                "give either dataset (to pretrain on) or checkpoint (a file of weights), "
                f"got {'neither' if self.dataset is None else 'both'}"
            )


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """One strategy of a study.

    Attributes:
        kind: Key of `STRATEGIES`.
        settings: The strategy's own settings.
    """

    kind: str
    settings: Any


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The two sides of the front.

    Attributes:
        cost: use (mean channel use), parameters, macs or union, all relative to sharing everything.
        reference: The hypervolume's reference point, (quality, cost).
    """

    cost: str = "use"
    reference: tuple[float, float] = (0.0, 1.1)

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise ValueError(f"cost must be one of {', '.join(COSTS)}, got {self.cost!r}")
        if not all(map(math.isfinite, self.reference)):
            raise ValueError(f"reference must be two finite numbers, got {self.reference}")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How Ray runs the arms.

    Attributes:
        evaluators: Evaluators of each arm.
        cpus: CPUs of each evaluator.
        gpus: GPUs of each evaluator, fractions allowed; None takes one where the cluster has any.
        cohort: Candidates that an evaluator is handed at once; None takes 1 where there is no GPU
            and 64 on one, which trains as many of them side by side as fit into its memory.
        attempts: How often a candidate is tried before it is recorded as failed.
        arm_retries: How often an arm that died is started again, from its record.
        halve_arms: Candidates after which only the better half of the arms goes on, by hypervolume,
            and again after twice as many, and so on: to tune settings of strategies, not to compare
            strategies. None lets all arms finish.
        wait_for_nodes: Queue even if the cluster has too few GPUs now (an autoscaler adds nodes).
    """

    evaluators: int = 1
    cpus: float = 1.0
    gpus: float | None = None
    cohort: int | None = None
    attempts: int = 3
    arm_retries: int = 3
    halve_arms: int | None = None
    wait_for_nodes: bool = False

    def __post_init__(self) -> None:
        for name in ("evaluators", "cohort", "attempts", "halve_arms"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        gpus = 0.0 if self.gpus is None else self.gpus
        if self.arm_retries < 0 or not 0 < self.cpus < math.inf or not 0 <= gpus < math.inf:
            raise ValueError(
                "arm_retries and gpus must be at least 0 and cpus above 0, got "
                f"{self.arm_retries}, {self.gpus} and {self.cpus}"
            )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The MLflow mirror.

    Attributes:
        uri: Tracking URI; None keeps an SQLite store in the study's folder.
        experiment: Name of the MLflow experiment.
        candidates: Mirror every candidate as a run of its own; without it only the study's own run
            with its progress, which is what tens of thousands of simulated candidates need.
    """

    uri: str | None = None
    experiment: str = "apportion"
    candidates: bool = True


@dataclass(frozen=True, kw_only=True)
class FinishConfig:
    """What `apportion search` does with a finished front; off unless the config has this section.

    Attributes:
        pick: knee, best, or a candidate's name.
        seeds: Full trainings of the pick.
        export: Also export the first of them as one compact network per task.
    """

    pick: str = "knee"
    seeds: int = 1
    export: bool = True

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")
        if self.pick not in ("knee", "best") and not re.fullmatch(r".+-\d+-\d+", self.pick):
            raise ValueError(
                f"pick must be knee, best or a name such as es-0-17, got {self.pick!r}"
            )
