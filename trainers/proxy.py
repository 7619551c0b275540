"""The proxy: how well shared, masked layers imitate the single-task teachers.

Newell et al. 2019, section 4.2 and A.2: new shared layers learn by mean squared error to reproduce
each teacher's features, tasks alternating; then every task's accuracy is measured with the shared
layers in place of the teacher's.

Differs from the paper: the batch norms' statistics are measured on one large batch per task after
training, since a running average over its mini-batches of 4 is noise; scores are of one training,
not the mean of three.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from partitioning import Masks
from trainers.backbones import BACKBONES
from trainers.cost import Costs, costs
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.features import FeatureCache, as_tensor, state_tensors
from trainers.network import EVALUATION_BATCH, load_norms, load_weights, place, to_channels_last
from trainers.optim import RowSGD, SGDConfig, norm_parameters


def _paper_sgd() -> SGDConfig:
    return SGDConfig(
        steps=3000,
        batch_size=4,
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=1e-5,
        schedule="step",
        drops=(2 / 3,),
    )


@dataclass(frozen=True, kw_only=True)
class ProxyConfig:
    """How a candidate is scored.

    Attributes:
        sgd: Training of the shared layers. The defaults are the paper's: 3,000 steps of 4 images,
            learning rate 1, a tenth of it from step 2,000.
        images: Training images cached per task.
        calibration: Cached images per task over which the batch norms' statistics are measured
            after training (a running average over mini-batches of 4 is noise).
        seed: Seeds initial weights and mini-batches. All candidates of a study share it, so that
            they differ by their masks alone.
    """

    sgd: SGDConfig = field(default_factory=_paper_sgd)
    images: int = 2048
    calibration: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1 or self.calibration < 2:
            raise ValueError(
                "proxy.images must be at least 1 and proxy.calibration at least 2, "
                f"got {self.images} and {self.calibration}"
            )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the proxy measured of one candidate.

    Attributes:
        accuracy: Validation accuracy in [0, 1] by virtual network.
        distillation_loss: Mean squared error over the last tenth of a network's own steps, summed
            over blocks, by virtual network.
        costs: Use, parameters and MACs.
        seconds: Wall time.
    """

    accuracy: Mapping[str, float]
    distillation_loss: Mapping[str, float]
    costs: Costs
    seconds: float

    @property
    def quality(self) -> float:
        """Mean validation accuracy over virtual networks (tasks, with one level each)."""
        return float(np.mean(list(self.accuracy.values())))


class DivergedError(RuntimeError):
    """The shared layers' loss became infinite or NaN."""


def distill(
    cohort: Sequence[Masks], cache: FeatureCache, config: ProxyConfig, compute: ComputeConfig
) -> list[Evaluation | DivergedError]:
    """Score a cohort of candidates.

    Args:
        cohort: Masks over the tail's groups; every task named is in the cache.
        cache: Trunk and teacher features.
        config: Steps, batch size, learning rate and seed.
        compute: Device and precision.

    Returns:
        An evaluation per candidate, in order, or the error that it ended with. A candidate's
        evaluation does not depend on the others in its cohort.
    """
    student = _Loader(cache, config, compute)
    results: list[Evaluation | DivergedError] = []
    for masks in cohort:
        try:
            results.append(_distill(masks, student))
        except DivergedError as error:
            results.append(error)
    return results


class _Loader:
    """Batches of cached features on the device."""

    def __init__(self, cache: FeatureCache, config: ProxyConfig, compute: ComputeConfig) -> None:
        self.cache = cache
        self.config = config
        self.precision = compute.precision
        self.device = resolve_device(compute.device)

    def _batch(self, array: np.ndarray, index: np.ndarray | slice) -> Tensor:
        batch = as_tensor(array)[index].to(self.device, non_blocking=True)
        return to_channels_last(batch.float())

    def inputs(self, task: str, index: np.ndarray | slice) -> Tensor:
        """Trunk features of cached training images, (B, C, H, W)."""
        return self._batch(self.cache.tasks[task].inputs, index)

    def targets(self, task: str, index: np.ndarray) -> list[Tensor]:
        """The teacher's block outputs for the same images."""
        return [self._batch(target, index) for target in self.cache.tasks[task].targets]

    def validation(self, task: str, index: slice) -> Tensor:
        """Trunk features of validation images."""
        return self._batch(self.cache.tasks[task].validation, index)


def _distill(masks: Masks, loader: _Loader) -> Evaluation:
    started = time.perf_counter()
    config, cache, device = loader.config, loader.cache, loader.device
    names = [str(network) for network in masks.networks]
    tasks = [network.task for network in masks.networks]
    if config.sgd.steps < len(names):
        raise ValueError(
            f"proxy.sgd.steps must be at least the number of networks, {len(names)}, since they "
            f"take turns; got {config.sgd.steps}"
        )
    generator = torch.Generator().manual_seed(config.seed)
    tail = BACKBONES[cache.backbone.family].tail(cache.backbone, masks, generator=generator)
    load_weights(tail, state_tensors(cache.tail), "tail.")
    for row, task in enumerate(tasks):
        load_norms(tail, row, state_tensors(cache.tasks[task].teacher), "tail.")
    place(tail, device)
    tail.train()
    rows = len(tasks)
    optimizer = RowSGD(tail, [norm_parameters(tail, row) for row in range(rows)], config.sgd)
    rng = np.random.default_rng(config.seed)
    recent: list[list[float]] = [[] for _ in range(rows)]
    for step in range(config.sgd.steps):
        row = step % rows
        index = rng.integers(len(cache.tasks[tasks[row]].inputs), size=config.sgd.batch_size)
        x = loader.inputs(tasks[row], index)
        targets = loader.targets(tasks[row], index)
        with autocast(device, loader.precision):
            features = tail(x, row)
        channels = tail.outputs[row]
        loss = torch.stack(
            [
                F.mse_loss(f.float(), channels.take(t, 1))
                for f, t in zip(features, targets, strict=True)
            ]
        ).sum()
        loss.backward()
        optimizer.step(row, step)
        if step >= 0.9 * config.sgd.steps - rows:
            recent[row].append(float(loss.detach()))
    _calibrate(tail, tasks, loader)
    accuracy = {name: _accuracy(tail, row, tasks[row], loader) for row, name in enumerate(names)}
    losses = {name: float(np.mean(values)) for name, values in zip(names, recent, strict=True)}
    broken = [name for name, loss in losses.items() if not np.isfinite(loss)]
    if broken:
        raise DivergedError(
            f"the distillation loss of {', '.join(broken)} is not finite after "
            f"{config.sgd.steps} steps; lower proxy.sgd.learning_rate ({config.sgd.learning_rate})"
        )
    classes = [len(cache.tasks[task].teacher["heads.0.bias"]) for task in tasks]
    return Evaluation(
        accuracy=accuracy,
        distillation_loss=losses,
        costs=costs(cache.backbone, masks, classes, input_size=cache.input_size),
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def _calibrate(tail: Any, tasks: Sequence[str], loader: _Loader) -> None:
    """Set every norm's statistics to those of one large batch under the final weights."""
    for child in tail.modules():
        if isinstance(child, torch.nn.BatchNorm2d):
            child.momentum = 1.0
    tail.train()
    for row, task in enumerate(tasks):
        with autocast(loader.device, loader.precision):
            # Spread over the cache: datasets are often stored class by class.
            count = len(loader.cache.tasks[task].inputs)
            spread = np.linspace(0, count - 1, min(count, loader.config.calibration))
            tail(loader.inputs(task, spread.astype(int)), row)


@torch.no_grad()
def _accuracy(tail: Any, row: int, task: str, loader: _Loader) -> float:
    """Validation accuracy of the teacher's head on the student's features."""
    tail.eval()
    cached = loader.cache.tasks[task]
    channels = tail.outputs[row]
    weight = channels.take(as_tensor(cached.teacher["heads.0.weight"]).to(loader.device), 1)
    bias = as_tensor(cached.teacher["heads.0.bias"]).to(loader.device)
    labels = as_tensor(cached.labels)
    correct = 0
    for start in range(0, len(labels), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        with autocast(loader.device, loader.precision):
            features = tail(loader.validation(task, part), row)[-1]
        logits = F.linear(features.float().mean(dim=(2, 3)), weight, bias)
        correct += int((logits.argmax(dim=1).cpu() == labels[part]).sum())
    return correct / len(labels)
