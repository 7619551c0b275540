"""Stochastic gradient descent: its settings, its steps, and what they leave behind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

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


@dataclass(frozen=True, kw_only=True)
@checked()
class SGDConfig:
    """One run of stochastic gradient descent.

    Attributes:
        steps: Number of updates.
        batch_size: Images per update.
        learning_rate: Peak learning rate.
        momentum: Momentum, kept apart for every row (methods: one for all that share weights); 0
            for none. Nesterov's form.
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


def sgd_step(
    optimizer: torch.optim.SGD, learning_rate: float, momentum: float, weight_decay: float
) -> None:
    """A step of SGD in Nesterov's form, after which gradients are cleared.

    Args:
        optimizer: Its groups say by "decays" whether weight decay pulls on them.
        learning_rate: Of the step.
        momentum: In [0, 1).
        weight_decay: Not negative.
    """
    for group in optimizer.param_groups:
        group["lr"], group["momentum"] = learning_rate, momentum
        group["nesterov"] = momentum > 0
        group["weight_decay"] = weight_decay if group["decays"] else 0.0
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def buffers_of(optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """The momentum of an optimiser's parameters, by their places."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    found = {str(n): optimizer.state[p].get("momentum_buffer") for n, p in enumerate(parameters)}
    return {name: buffer for name, buffer in found.items() if buffer is not None}


def load_buffers(optimizer: torch.optim.SGD, buffers: Mapping[str, Tensor]) -> None:
    """Take what `buffers_of` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, buffer in buffers.items():
        parameter = parameters[int(name)]
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
