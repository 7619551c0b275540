"""Stochastic gradient descent for weights that several rows share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from partitioning.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    Unit,
    at_least,
    checked,
    each,
    interval,
    one_of,
)
from trainers.masking import RowNorm
from trainers.network import update_masks


@dataclass(frozen=True, kw_only=True)
@checked()
class SGDConfig:
    """One run of stochastic gradient descent.

    Attributes:
        steps: Number of updates.
        batch_size: Images per update.
        learning_rate: Peak learning rate.
        momentum: Momentum, kept apart for every row; 0 for none. Nesterov's form.
        weight_decay: L2 penalty on the weights that the row uses.
        schedule: How the learning rate falls: cosine (to zero), or step (times 0.1 at each of
            `drops`).
        drops: Of the schedule step: when, as fractions of `steps`. The paper drops at 2,000 of
            3,000.
        warmup: Fraction of `steps` over which the learning rate rises linearly from 0.
        label_smoothing: Share of the label's mass that is spread over all classes.
    """

    steps: Annotated[int, at_least(1)] = 1000
    batch_size: Annotated[int, at_least(1), Unit("images")] = 64
    learning_rate: Annotated[float, POSITIVE] = 0.05
    momentum: Annotated[float, interval("[0, 1)")] = 0.9
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-4
    schedule: Annotated[str, one_of(("cosine", "step"))] = "cosine"
    drops: Annotated[tuple[float, ...], each(interval("(0, 1)", "fractions of steps"))] = (0.75,)
    warmup: Annotated[float, interval("[0, 1)")] = 0.0
    label_smoothing: Annotated[float, interval("[0, 1)")] = 0.0


#: What SGD is used for, and where each use departs from the defaults of `SGDConfig`; calibration
#: without settings of its own takes those of train. The proxy is the paper's: a learning rate of 1,
#: a tenth of it after two thirds of the steps (Newell et al. 2019, A.2).
SGD: Mapping[str, SGDConfig] = {
    "trunk": SGDConfig(),
    "teachers": SGDConfig(),
    "proxy": SGDConfig(
        steps=3000,
        batch_size=4,
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=1e-5,
        schedule="step",
        drops=(2 / 3,),
    ),
    "train": SGDConfig(steps=10_000),
}


def learning_rate_at(config: SGDConfig, step: int) -> float:
    """The learning rate of update `step`, counted from 0.

    >>> learning_rate_at(SGD["proxy"], 1999), round(learning_rate_at(SGD["proxy"], 2000), 6)
    (1.0, 0.1)
    """
    warm = config.warmup * config.steps
    if step < warm:
        return config.learning_rate * (step + 1) / (warm + 1)
    if config.schedule == "step":
        drops = sum(step >= round(drop * config.steps) for drop in config.drops)
        return float(config.learning_rate * 0.1**drops)
    progress = (step - warm) / max(1.0, config.steps - warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class RowSGD:
    """SGD in which every row keeps momentum of its own for the weights that rows share.

    A step for one row leaves unchanged every weight that the row does not use or may not change:
    no gradient, no weight decay and no leftover momentum of another row reaches it (Newell et al.
    2019, A.2, "Momentum").

    Args:
        tail: The tail whose weights are shared.
        own: For every row, the parameters that belong to it alone.
        config: Learning rate, momentum and weight decay.
    """

    def __init__(
        self, tail: nn.Module, own: Sequence[Sequence[nn.Parameter]], config: SGDConfig
    ) -> None:
        self.config = config
        self._masks: list[list[tuple[nn.Parameter, Tensor]]] = []
        self._own = [list(parameters) for parameters in own]
        self._optimizers: list[torch.optim.SGD] = []
        for row, parameters in enumerate(self._own):
            masks = list(update_masks(tail, row))
            self._masks.append(masks)
            self._optimizers.append(
                torch.optim.SGD(
                    [*(weight for weight, _ in masks), *parameters],
                    lr=config.learning_rate,
                    momentum=config.momentum,
                    nesterov=config.momentum > 0,
                )
            )

    @torch.no_grad()
    def step(self, row: int, step: int) -> None:
        """Update with the gradients of a loss of `row`, then clear them."""
        optimizer = self._optimizers[row]
        decay = self.config.weight_decay
        if decay > 0:
            # SGD's own weight decay would also shrink the weights of other rows.
            for weight, mask in self._masks[row]:
                if weight.grad is not None:
                    weight.grad.addcmul_(weight, mask, value=decay)
            for parameter in self._own[row]:
                if parameter.grad is not None and parameter.ndim > 1:
                    parameter.grad.add_(parameter, alpha=decay)
        optimizer.param_groups[0]["lr"] = learning_rate_at(self.config, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def norm_parameters(module: nn.Module, row: int) -> list[nn.Parameter]:
    """The batch-norm weights and biases of one row anywhere in `module`."""
    return [
        parameter
        for child in module.modules()
        if isinstance(child, RowNorm)
        for parameter in child[row].parameters()
    ]
