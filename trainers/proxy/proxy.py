"""The proxy: how well shared, masked layers imitate the single-task teachers.

Newell et al. 2019, section 4.2 and A.2: new shared layers learn by mean squared error to reproduce
each teacher's features, tasks alternating; then every task's accuracy is measured with the shared
layers in place of the teacher's.

Candidates are trained side by side from the same weights and the same mini-batches (see
`trainers.stacked`), and what does not depend on a candidate is read from a cache.

Differs from the paper: the batch norms' statistics are measured on one large batch per task after
training, since a running average over its mini-batches of 4 is noise; scores are of one training
by default, where the paper averages three (`repeats`).
"""

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from partitioning import FloatArray, Masks
from partitioning.settings import Unit, at_least, checked
from trainers.backbones import BackboneConfig, check_masks
from trainers.cost import Costs, costs
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import EVALUATION_BATCH
from trainers.optim import SGD, SGDConfig, learning_rate_at
from trainers.proxy.cohort import (
    alike,
    candidate_bytes,
    fastest_convolution,
    in_chunks,
    peak_bytes,
    room,
    start_measuring,
)
from trainers.proxy.features import FeatureCache, as_tensor, state_tensors
from trainers.proxy.placement import PlacedFeatures
from trainers.proxy.stacked import Convolve, StackedTail, Used


@dataclass(frozen=True, kw_only=True)
@checked("proxy.{field}")
class ProxyConfig:
    """How a candidate is scored.

    Attributes:
        sgd: Training of the shared layers. The defaults are the paper's: 3,000 steps of 4 images,
            learning rate 1, a tenth of it from step 2,000.
        images: Training images cached per task.
        norm_images: Cached images per task over which the batch norms' statistics are measured
            after training (a running average over mini-batches of 4 is noise).
        seed: Seeds the mini-batches. All candidates of a study share it, so that they differ by
            their masks alone.
        repeats: How many trainings a score is the mean of, each with mini-batches of its own. The
            paper averages 3.
    """

    sgd: SGDConfig = SGD["proxy"]
    images: Annotated[int, at_least(1), Unit("images")] = 2048
    norm_images: Annotated[int, at_least(2), Unit("images")] = 256
    seed: int = 0
    repeats: Annotated[int, at_least(1)] = 1


#: Raised by hand where the same masks get other scores than before, by the proxy, by a short
#: training or by a simulated problem: studies that were scored before do not go on then.
SCORING_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the proxy measured of one candidate.

    Attributes:
        accuracy: Validation accuracy in [0, 1] by virtual network.
        distillation_loss: Mean squared error over the last tenth of a network's own steps, summed
            over blocks, by virtual network.
        costs: Use, parameters and MACs.
        seconds: Wall time, a candidate's share of its cohort's.
        quality_std: Standard deviation of the quality over repeats (ddof 1); None of one.
    """

    accuracy: Mapping[str, float]
    distillation_loss: Mapping[str, float]
    costs: Costs
    seconds: float
    quality_std: float | None = None

    @property
    def quality(self) -> float:
        """Mean validation accuracy over virtual networks (tasks, with one level each)."""
        return float(np.mean(list(self.accuracy.values())))


def check_images(config: ProxyConfig, backbone: BackboneConfig, input_size: int) -> None:
    """Refuse what would leave a batch norm a single number per channel to normalise by.

    Args:
        config: The proxy.
        backbone: The network.
        input_size: Height and width of images, in pixels.

    Raises:
        ValueError: Batches or cached images are too few for maps as small as these.
    """
    size = backbone.smallest_map(input_size)
    for name, count in (("sgd.batch_size", config.sgd.batch_size), ("images", config.images)):
        if count * size * size < 2:
            raise ValueError(
                f"proxy.{name} must be at least 2 with maps of {size} x {size} pixels, which "
                f"batch norms cannot normalise one image of; got {count}"
            )


class DivergedError(RuntimeError):
    """The shared layers' loss became infinite or NaN."""


def distill(
    cohort: Sequence[Masks], cache: FeatureCache, config: ProxyConfig, compute: ComputeConfig
) -> list[Evaluation | DivergedError]:
    """Score a cohort of candidates; see `Proxy`, which keeps what can be used again."""
    return Proxy(cache, config, compute).score(cohort)


class Proxy:
    """Scores candidates, with the features where the device reads them.

    Args:
        cache: Trunk and teacher features.
        config: Steps, batch size, learning rate and seed.
        compute: Device and precision.
        share: Share of a GPU's memory that cohorts may take, in (0, 1]: of several proxies on one
            GPU each has its own.

    Attributes:
        largest_cohort: The most candidates that have trained side by side.
        peak_bytes: The most memory of a GPU that was in use meanwhile; 0 on a CPU.
    """

    def __init__(
        self,
        cache: FeatureCache,
        config: ProxyConfig,
        compute: ComputeConfig,
        share: float = 1.0,
    ) -> None:
        self._cache, self._config, self._share = cache, config, share
        self._device, self._precision = resolve_device(compute.device), compute.precision
        self._features = PlacedFeatures(cache, self._device, compute.precision)
        self._convolve: Convolve | None = None
        # By batch size, norm images and number of networks.
        self._bytes_each: dict[tuple[int, int, int], int] = {}
        self.largest_cohort = 0
        self.peak_bytes = 0

    def score(
        self, cohort: Sequence[Masks], config: ProxyConfig | None = None
    ) -> list[Evaluation | DivergedError]:
        """Score a cohort.

        Args:
            cohort: Masks over the tail's groups; every task named is in the cache.
            config: Other settings than those of the proxy, such as fewer steps.

        Returns:
            An evaluation per candidate, in order, or the error that it ended with. A candidate's
            evaluation does not depend on the others in its cohort, but for rounding.

        Raises:
            ValueError: Fewer steps than virtual networks, masks that do not fit the backbone, or a
                task that is not in the cache.
            MemoryError: A candidate alone does not fit into memory.
        """
        config = config or self._config
        for masks in cohort:
            if config.sgd.steps < len(masks.networks):
                raise ValueError(
                    f"proxy.sgd.steps must be at least the number of networks, "
                    f"{len(masks.networks)}, since they take turns; got {config.sgd.steps}"
                )
            check_masks(self._cache.backbone, masks)
            for task in masks.tasks:
                if task not in self._cache.tasks:
                    raise ValueError(
                        f"masks name the task {task}, which is not among those whose features are "
                        f"cached: {', '.join(self._cache.tasks)}"
                    )
        scored: dict[int, Evaluation | DivergedError] = {}
        for positions in alike(cohort):
            rows = len(cohort[positions[0]].networks)
            scored |= in_chunks(
                positions,
                functools.partial(self._room, config, rows),
                lambda chunk: self._measured([cohort[i] for i in chunk], config),
            )
        return [scored[position] for position in range(len(cohort))]

    def _room(self, config: ProxyConfig, rows: int) -> int:
        """How many candidates to train side by side: by estimate, then by what they took."""
        each = self._bytes_each.get((config.sgd.batch_size, config.norm_images, rows))
        if each is None:
            each = candidate_bytes(
                self._cache.backbone,
                rows=rows,
                batch_size=config.sgd.batch_size,
                norm_images=config.norm_images,
                map_size=self._map_size,
            )
        return room(self._device, each, self._share)

    def _measured(
        self, cohort: Sequence[Masks], config: ProxyConfig
    ) -> list[Evaluation | DivergedError]:
        """Score a chunk, and note the memory that each of its candidates took."""
        if self._convolve is None:
            self._convolve = fastest_convolution(
                self._cache.backbone, self._device, self._precision, len(cohort)
            )
        before = start_measuring(self._device)
        results = self._score(cohort, config)
        peak = peak_bytes(self._device)
        if peak > before:
            kind = (config.sgd.batch_size, config.norm_images, len(cohort[0].networks))
            self._bytes_each[kind] = math.ceil((peak - before) / len(cohort))
        self.largest_cohort = max(self.largest_cohort, len(cohort))
        self.peak_bytes = max(self.peak_bytes, peak)
        return results

    @property
    def _map_size(self) -> int:
        return int(next(iter(self._cache.tasks.values())).inputs.shape[-1])

    def _score(
        self, cohort: Sequence[Masks], config: ProxyConfig
    ) -> list[Evaluation | DivergedError]:
        """Train and measure candidates side by side, once per repeat."""
        started = time.perf_counter()
        networks = cohort[0].networks
        names = [str(network) for network in networks]
        runs = [self._train(cohort, config, repeat) for repeat in range(config.repeats)]
        accuracy_SKR = np.stack([accuracy for accuracy, _ in runs])
        loss_SKR = np.stack([loss for _, loss in runs])
        seconds = (time.perf_counter() - started) / len(cohort)
        heads = [self._cache.tasks[network.task].teacher["heads.0.bias"] for network in networks]
        results: list[Evaluation | DivergedError] = []
        for k, masks in enumerate(cohort):
            loss_R = loss_SKR[:, k].mean(axis=0)
            sound_R = np.isfinite(loss_R) & np.isfinite(accuracy_SKR[:, k]).all(axis=0)
            if not sound_R.all():
                broken = [n for n, sound in zip(names, sound_R, strict=True) if not sound]
                results.append(
                    DivergedError(
                        f"the distillation loss of {', '.join(broken)} is not finite after "
                        f"{config.sgd.steps} steps; lower proxy.sgd.learning_rate "
                        f"({config.sgd.learning_rate})"
                    )
                )
                continue
            quality_S = accuracy_SKR[:, k].mean(axis=1)
            results.append(
                Evaluation(
                    accuracy=dict(
                        zip(names, accuracy_SKR[:, k].mean(axis=0).tolist(), strict=True)
                    ),
                    distillation_loss=dict(zip(names, loss_R.tolist(), strict=True)),
                    costs=costs(
                        self._cache.backbone,
                        masks,
                        [len(bias) for bias in heads],
                        input_size=self._cache.input_size,
                    ),
                    seconds=seconds,
                    quality_std=float(quality_S.std(ddof=1)) if config.repeats > 1 else None,
                )
            )
        return results

    def _train(
        self, cohort: Sequence[Masks], config: ProxyConfig, repeat: int
    ) -> tuple[FloatArray, FloatArray]:
        """Accuracies and late losses (K, R) of one training."""
        assert self._convolve is not None
        tasks = [network.task for network in cohort[0].networks]
        rows, steps = len(tasks), config.sgd.steps
        tail = StackedTail(
            self._cache.backbone, cohort, self._device, self._convolve, self._precision
        )
        tail.load(
            state_tensors(self._cache.tail),
            [state_tensors(self._cache.tasks[task].teacher) for task in tasks],
        )
        rng = np.random.default_rng([config.seed, repeat] if repeat else config.seed)
        draws = []
        for step in range(steps):
            task = tasks[step % rows]
            count = len(self._cache.tasks[task].inputs)
            draws.append((task, rng.integers(count, size=config.sgd.batch_size)))
        recent: list[list[Tensor]] = [[] for _ in range(rows)]
        for step, (x, targets) in enumerate(self._features.stream(draws)):
            row = step % rows
            parts = tail.parts(row)
            for part in parts:
                part.gather()
            with autocast(self._device, self._precision):
                features = tail.forward(x, row)
            late = step >= 0.9 * steps - rows
            found = [
                _distillation(f, t, used, want_loss=late)
                for f, t, used in zip(features, targets, tail.outputs(row), strict=True)
            ]
            torch.autograd.backward(features, [gradient for gradient, _ in found])
            if late:
                losses = [loss_K for _, loss_K in found if loss_K is not None]
                recent[row].append(torch.stack(losses).sum(dim=0))
            rate = learning_rate_at(config.sgd, step)
            for part in parts:
                part.step(rate, config.sgd.momentum, config.sgd.weight_decay)
        accuracy_KR = torch.stack(
            [self._accuracy(tail, row, task, config) for row, task in enumerate(tasks)], dim=1
        )
        loss_KR = torch.stack([torch.stack(losses).mean(dim=0) for losses in recent], dim=1)
        return accuracy_KR.cpu().numpy().astype(float), loss_KR.cpu().numpy().astype(float)

    @torch.no_grad()
    def _accuracy(self, tail: StackedTail, row: int, task: str, config: ProxyConfig) -> Tensor:
        """(K,): validation accuracy of the teacher's head on the students' features.

        NaN where a student's features have grown beyond all numbers.
        """
        cached = self._cache.tasks[task]
        for part in tail.parts(row):
            part.gather()
        # Spread over the cache: datasets are often stored class by class.
        count = len(cached.inputs)
        evenly = np.linspace(0, count - 1, min(count, config.norm_images)).astype(int)
        used = tail.outputs(row)[-1]
        weight, bias = (as_tensor(cached.teacher[f"heads.0.{n}"]) for n in ("weight", "bias"))
        weight_KLN = F.pad(weight.to(self._device), (0, 1))[:, used.index_KN].transpose(0, 1)
        labels = as_tensor(cached.labels).to(self._device)
        bias_L = bias.to(self._device)
        correct_K = torch.zeros(tail.num_candidates, device=self._device)
        sound_K = torch.ones(tail.num_candidates, dtype=torch.bool, device=self._device)
        batch = max(16, EVALUATION_BATCH // tail.num_candidates)
        with autocast(self._device, self._precision):
            tail.forward(self._features.inputs(task, evenly), row, "measure")
            for start in range(0, len(labels), batch):
                images = slice(start, start + batch)
                features = tail.forward(self._features.validation(task, images), row, "evaluate")
                pooled_BKN = features[-1].float().mean(dim=(2, 3)).unflatten(1, used.index_KN.shape)
                with torch.autocast(self._device.type, enabled=False):
                    logits_BKL = torch.einsum("bkn,kln->bkl", pooled_BKN, weight_KLN)
                guess_BK = (logits_BKL + bias_L).argmax(dim=2)
                correct_K += (guess_BK == labels[images, None]).sum(dim=0)
                sound_K &= logits_BKL.isfinite().all(dim=2).all(dim=0)
        return torch.where(sound_K, correct_K / len(labels), torch.nan)


def _distillation(
    features: Tensor, target: Tensor, used: Used, *, want_loss: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradient and value of the students' mean squared error, over images, pixels and channels.

    The gradient is written down instead of derived, which saves a tenth of a training's time.

    Args:
        features: (B, K N, H, W) of the students.
        target: (B, C, H, W) of the teacher.
        used: Which of the teacher's channels the students have.
        want_loss: Whether the value is wanted, too.

    Returns:
        (B, K N, H, W): the gradient by the features of the sum over students, of the features'
        type; (K,): the error of each student, or None.
    """
    batch, _, height, width = features.shape
    # Channels last as they lie in memory, a row per pixel: (B H W, K, N) against (B H W, 1, C).
    students = features.detach().permute(0, 2, 3, 1).flatten(0, 2)
    difference = students.unflatten(1, used.index_KN.shape).to(torch.float32, copy=True)
    teacher = target.permute(0, 2, 3, 1).flatten(0, 2)
    if used.full:
        teacher = teacher.unsqueeze(1)
    else:
        # In single precision, since a CPU takes five times as long to select half ones.
        teacher = F.pad(teacher.float(), (0, 1)).index_select(1, used.index_KN.flatten())
        teacher = teacher.unflatten(1, used.index_KN.shape)
    difference.sub_(teacher)
    each_K = used.each_K / len(students)
    loss_K = difference.square().sum(dim=(0, 2)) * each_K if want_loss else None
    gradient = difference.mul_(2 * each_K[:, None]).to(features.dtype)
    return gradient.flatten(1).unflatten(0, (batch, height, width)).permute(0, 3, 1, 2), loss_K
