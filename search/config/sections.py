"""The sections of a study's config that belong to the search; others are next to what they set."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from partitioning.settings import (
    ASCENDING,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    Unit,
    at_least,
    between,
    checked,
    each,
    interval,
    one_of,
)
from search.config.secrets import refuse_password
from trainers.data import TaskConfig
from trainers.optim import SGD, SGDConfig


@dataclass(frozen=True, kw_only=True)
@checked()
class CalibrationConfig:
    """How the proxy is held against full training, by `apportion calibrate`.

    Attributes:
        candidates: How many are scored by the proxy and trained in full.
        trained_twice: How many of them are trained with a second seed, for the noise of full
            training.
        sgd: Full training; None takes the study's own, `train.sgd`.
        multiples: Full training is also looked at after so many times the proxy's wall time.
        threshold: What the lower ends of two 95 % intervals must reach for the proxy to be trusted:
            of its partial correlation with full training given use, of the mean accuracy and of
            the mean over tasks.
        seed: Draws candidates where the record has too few, and the bootstrap.
    """

    candidates: Annotated[int, at_least(3)] = 48
    trained_twice: Annotated[int, between(0, "candidates"), Unit("candidates")] = 4
    sgd: SGDConfig | None = None
    multiples: Annotated[tuple[float, ...], ASCENDING, each(POSITIVE)] = (1.0, 2.0, 5.0, 10.0)
    threshold: Annotated[float, interval("[-1, 1]")] = 0.0
    seed: Annotated[int, at_least(0)] = 0


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

#: Whether arms of different seeds share trunk, teachers and features.
FOUNDATIONS = ("shared", "per_seed")

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
    "latency": CostKind(
        attribute="relative_latency", words="latency per task, relative to sharing all"
    ),
}


@dataclass(frozen=True, kw_only=True)
@checked()
class TrunkConfig:
    """What the network is pretrained on, from the weights that it has, if any.

    Attributes:
        dataset: A dataset, described as a task is; None goes on with the network's own weights.
        sgd: Pretraining on the dataset.
        seed: Seeds pretraining and teachers.
    """

    dataset: TaskConfig | None = None
    sgd: SGDConfig = SGD["trunk"]
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EntryConfig:
    """One strategy or method of a study.

    Attributes:
        kind: Key of `STRATEGIES` or `METHODS`.
        settings: The kind's own settings.
    """

    kind: str
    settings: Any


WORSE_THAN_IDEAL = Rule(
    words="a quality below 1 and a cost above 0",
    holds=lambda point, own: all(map(math.isfinite, point)) and point[0] < 1 and point[1] > 0,
)


@dataclass(frozen=True, kw_only=True)
@checked()
class ObjectiveConfig:
    """The two sides of the front: quality, which is mean accuracy, and a cost.

    Attributes:
        cost: macs (multiply-accumulates of the whole network for an image), parameters, union
            (parameters of all tasks together), use (mean share of the divided channels) or latency
            (by a table of layers that is measured on this study's device before it begins), each
            relative to sharing everything.
        latency_batch: Images at a time that latency is of.
        reference: The point (quality, cost) that hypervolumes are seen from: what is no better
            counts for nothing. None is the accuracy of always answering a task's commonest class,
            the mean over tasks, and the cost of sharing every channel.
    """

    cost: Annotated[str, one_of(COSTS)] = "macs"
    latency_batch: Annotated[int, at_least(1), Unit("images")] = 1
    reference: Annotated[tuple[float, float] | None, WORSE_THAN_IDEAL] = None


@dataclass(frozen=True, kw_only=True)
@checked()
class ScheduleConfig:
    """How Ray runs the arms.

    Attributes:
        evaluators: Evaluators of each arm; None shares out as many as the cluster has room for.
        cpus: CPUs of each evaluator.
        gpus: GPUs of each evaluator, fractions allowed; None takes one where the cluster has any.
        cohort: Candidates that an evaluator is handed at once, at most: what a strategy proposes is
            divided over all evaluators first. None takes 1 where there is no GPU and 64 on one,
            which trains as many of them side by side as fit into its memory.
        attempts: How often a candidate is tried before it is recorded as failed.
        timeout: Seconds after which an evaluator that does not answer is taken for lost, and what
            it had is asked elsewhere; where the same rung took long before, ten times the longest.
        arm_retries: How often an arm that died is started again, from its record.
        halve_arms: Candidates after which only the better half of the arms goes on, by hypervolume,
            and again after twice as many, and so on: to tune settings of strategies, not to compare
            strategies. None lets all arms finish.
        wait_for_nodes: Queue even if the cluster has too few GPUs now (an autoscaler adds nodes).
    """

    evaluators: Annotated[int | None, at_least(1)] = None
    cpus: Annotated[float, POSITIVE] = 1.0
    gpus: Annotated[float | None, NOT_NEGATIVE] = None
    cohort: Annotated[int | None, at_least(1), Unit("candidates")] = None
    attempts: Annotated[int, at_least(1)] = 3
    timeout: Annotated[float, POSITIVE, Unit("seconds")] = 600.0
    arm_retries: Annotated[int, at_least(0)] = 3
    halve_arms: Annotated[int | None, at_least(1), Unit("candidates")] = None
    wait_for_nodes: bool = False


@dataclass(frozen=True, kw_only=True)
@checked()
class TrackingConfig:
    """The MLflow mirror.

    Attributes:
        uri: Tracking URI; None keeps an SQLite store in the study's folder. A password in it is
            refused; a variable such as $DB_PASSWORD may stand there, and is looked up only when
            MLflow is connected to.
        experiment: Name of the MLflow experiment.
        candidates: Mirror every candidate as a run of its own; without it only the study's own run
            with its progress, which is what tens of thousands of simulated candidates need.
    """

    uri: str | None = None
    experiment: str = "apportion"
    candidates: bool = True

    def _check(self) -> None:
        if self.uri is not None:
            refuse_password(self.uri)


PICK = Rule(
    words="knee, best, best@0.5 or a name such as es-0-17",
    holds=lambda pick, own: (
        re.fullmatch(rf"(knee|best)(@(({'|'.join(COSTS)})<=)?[\d.]+)?|.+-\d+-\d+", pick) is not None
    ),
)


@dataclass(frozen=True, kw_only=True)
@checked()
class FinishConfig:
    """What `apportion search` does with a finished front; off unless the config has this section.

    Attributes:
        pick: Which candidate is trained: knee (where the front bends most) or best (the highest
            quality), both also of what costs no more than a limit (best@0.5 by the study's own
            cost, best@parameters<=0.5 by another), or a candidate's name.
        seeds: Full trainings of the pick.
        export: Also export the first of them as one compact network per task.
    """

    pick: Annotated[str, PICK] = "knee"
    seeds: Annotated[int, at_least(1)] = 1
    export: bool = True
