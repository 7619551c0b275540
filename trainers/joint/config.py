"""How chosen masks are trained in full: settings, and recipes of them by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any

from partitioning.settings import Unit, above, at_least, checked, interval, one_of
from trainers.optim import SGD, SGDConfig


@dataclass(frozen=True, kw_only=True)
@checked("train.{field}")
class TrainConfig:
    """How chosen masks are trained in full.

    Attributes:
        sgd: Steps (over all tasks together), batch size and learning rate.
        temperature: Temperature of the curriculum: the chance of a task is proportional to
            (1 / its training accuracy)^(1 / temperature). 1 is inversely proportional, large is
            uniform.
        smoothing: Weight of the newest batch in a task's running training accuracy.
        initial: What heads and the divided part's norms begin with: those of the single-task
            teachers, of which a row takes the channels that it has; or of the trunk (then heads
            are drawn).
        distillation: Share of the loss that imitates the teacher's logits, in place of labels
            (Hinton et al. 2015).
        softness: Temperature that logits are divided by for it.
        ema: Decay a step of the running average of all weights, which is what is measured and
            kept; 0 keeps the weights themselves. It is lower in the first steps.
        evaluations: How often validation images are looked at, equally spaced, at last behind the
            last step; the weights that did best there, on average over virtual networks, are kept.
        patience: Evaluations without a new best after which training stops; 0 never stops it.
        accumulate: Batches, of one task, whose gradients make a step.
        randaugment: Magnitude, of 30, of two random changes of every training image (Cubuk et al.
            2020; needs torchvision); 0 for none.
        mixup: alpha of the mixing of images and labels (Zhang et al. 2018; needs torchvision); 0
            for none.
        thaw: Share of the steps after which a frozen trunk is trained, too; 1 for never.
    """

    sgd: SGDConfig = SGD["train"]
    temperature: Annotated[float, above(0)] = 1.0
    smoothing: Annotated[float, interval("(0, 1]")] = 0.05
    initial: Annotated[str, one_of(("teachers", "trunk"))] = "teachers"
    distillation: Annotated[float, interval("[0, 1]")] = 0.5
    softness: Annotated[float, interval("(0, 100]")] = 2.0
    ema: Annotated[float, interval("[0, 1)")] = 0.0
    evaluations: Annotated[int, at_least(1)] = 10
    patience: Annotated[int, at_least(0), Unit("evaluations")] = 0
    accumulate: Annotated[int, at_least(1), Unit("batches")] = 1
    randaugment: Annotated[int, interval("[0, 30]")] = 0
    mixup: Annotated[float, interval("[0, 10]")] = 0.0
    thaw: Annotated[float, interval("[0, 1]")] = 1.0

    def seen_once(self, sgd: SGDConfig) -> "TrainConfig":
        """The same with another SGD, looked at when it is done: the last step's weights."""
        return replace(self, sgd=sgd, evaluations=1, patience=0)

    def _check(self) -> None:
        if self.patience >= self.evaluations:
            raise ValueError(
                f"train.patience must be below train.evaluations, {self.evaluations}, or it never "
                f"stops a training; got {self.patience}"
            )


#: Raised by hand where the same settings train otherwise than before: studies whose scores are
#: short trainings do not go on then, and what is under way begins anew. 2 has recipes.
TRAINING_VERSION = 2

#: Where recipes depart from the defaults, by the name that `train.recipe` gives. The paper's is
#: that of Newell et al. 2019, A.2: labels alone, and the last step's weights.
RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "distilled": {},
        "paper": {"initial": "trunk", "distillation": 0.0, "evaluations": 1},
    }
)
