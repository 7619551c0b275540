"""The proxy: how well shared, masked layers imitate the single-task teachers.

Newell et al. 2019, section 4.2 and A.2: new shared layers learn by mean squared error to reproduce
each teacher's features, tasks alternating; then every task's accuracy is measured with the shared
layers in place of the teacher's.

Candidates are trained side by side from the same weights and the same mini-batches (see
`trainers.networks.stack`), and what does not depend on a candidate is read from a cache. Whatever
acts in training alone, as dropout, is left out.

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
from torch import Tensor

from partitioning import FloatArray, Masks
from partitioning.settings import Unit, at_least, checked
from trainers.cost import Costs, costs
from trainers.device import ComputeConfig, autocast, compute_type, resolve_device
from trainers.networks import Backbone, Output, Stack, build_backbone, make_stores
from trainers.optim import SGD, SGDConfig, learning_rate_at
from trainers.proxy.cohort import (
    alike,
    candidate_bytes,
    in_chunks,
    peak_bytes,
    room,
    start_measuring,
)
from trainers.proxy.features import FeatureCache, as_tensor, state_tensors
from trainers.proxy.placement import PlacedFeatures


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
#: training or by a simulated problem: studies that were scored before do not go on then. 2 computes
#: rows of any network.
SCORING_VERSION = 2


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
        self._backbone = build_backbone(cache.backbone, cache.input_size)
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
            self._backbone.kept(masks)
            for task in masks.tasks:
                if task not in self._cache.tasks:
                    raise ValueError(
                        f"masks name the task {task}, which is not among those whose features are "
                        f"cached: {', '.join(self._cache.tasks)}"
                    )
        scored: dict[int, Evaluation | DivergedError] = {}
        for positions in alike(cohort, padded=self._backbone.padded):
            rows = len(cohort[positions[0]].networks)
            scored |= in_chunks(
                positions,
                functools.partial(self._room, config, rows),
                lambda chunk: self._measured([cohort[i] for i in chunk], config),
            )
        return [scored[position] for position in range(len(cohort))]

    def _room(self, config: ProxyConfig, rows: int) -> int:
        """How many candidates to train side by side: by estimate, then by what they took."""
        if not self._backbone.stackable:
            return 1
        each = self._bytes_each.get((config.sgd.batch_size, config.norm_images, rows))
        if each is None:
            each = candidate_bytes(
                self._backbone,
                rows=rows,
                batch_size=config.sgd.batch_size,
                norm_images=config.norm_images,
            )
        return room(self._device, each, self._share)

    def _measured(
        self, cohort: Sequence[Masks], config: ProxyConfig
    ) -> list[Evaluation | DivergedError]:
        """Score a chunk, and note the memory that each of its candidates took."""
        before = start_measuring(self._device)
        results = self._score(cohort, config)
        peak = peak_bytes(self._device)
        if peak > before:
            kind = (config.sgd.batch_size, config.norm_images, len(cohort[0].networks))
            self._bytes_each[kind] = math.ceil((peak - before) / len(cohort))
        self.largest_cohort = max(self.largest_cohort, len(cohort))
        self.peak_bytes = max(self.peak_bytes, peak)
        return results

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
        bias = self._backbone.of_head[1]
        classes = [len(self._cache.tasks[network.task].teacher[bias]) for network in networks]
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
                    costs=costs(self._backbone, masks, classes),
                    seconds=seconds,
                    quality_std=float(quality_S.std(ddof=1)) if config.repeats > 1 else None,
                )
            )
        return results

    def _train(
        self, cohort: Sequence[Masks], config: ProxyConfig, repeat: int
    ) -> tuple[FloatArray, FloatArray]:
        """Accuracies and late losses (K, R) of one training."""
        tasks = [network.task for network in cohort[0].networks]
        rows, steps = len(tasks), config.sgd.steps
        students = self._students(cohort)
        rng = np.random.default_rng([config.seed, repeat] if repeat else config.seed)
        draws = []
        for step in range(steps):
            task = tasks[step % rows]
            count = len(self._cache.tasks[task].inputs)
            draws.append((task, rng.integers(count, size=config.sgd.batch_size)))
        recent: list[list[Tensor]] = [[] for _ in range(rows)]
        for step, (x, targets) in enumerate(self._features.stream(draws)):
            row = step % rows
            student = students[row]
            student.stack.gather()
            with autocast(self._device, self._precision):
                features, _ = student.stack(x)
            late = step >= 0.9 * steps - rows
            found = [
                _distillation(f, t, channels, want_loss=late)
                for f, t, channels in zip(features, targets, student.outputs, strict=True)
            ]
            torch.autograd.backward(features, [gradient for gradient, _ in found])
            if late:
                losses = [loss_K for _, loss_K in found if loss_K is not None]
                recent[row].append(torch.stack(losses).sum(dim=0))
            rate = learning_rate_at(config.sgd, step)
            student.stack.step(rate, config.sgd.momentum, config.sgd.weight_decay)
        accuracy_KR = torch.stack(
            [
                self._accuracy(student, task, config)
                for student, task in zip(students, tasks, strict=True)
            ],
            dim=1,
        )
        loss_KR = torch.stack([torch.stack(losses).mean(dim=0) for losses in recent], dim=1)
        return accuracy_KR.cpu().numpy().astype(float), loss_KR.cpu().numpy().astype(float)

    def _students(self, cohort: Sequence[Masks]) -> list["_Student"]:
        """For each row the students of all candidates, which share weights with other rows'."""
        backbone, kind = self._backbone, compute_type(self._precision)
        tail = state_tensors(self._cache.tail)
        stores = make_stores(
            backbone.tail, backbone.division, backbone.divided, tail, len(cohort), self._device
        )
        kept_KRU = np.stack([backbone.kept(masks) for masks in cohort])
        free_KRU = None
        if any(masks.backward is not None for masks in cohort):
            free_KRU = np.stack([backbone.kept(masks, "backward") for masks in cohort])
        students = []
        for row, network in enumerate(cohort[0].networks):
            teacher = state_tensors(self._cache.tasks[network.task].teacher)
            stack = Stack(
                backbone.tail,
                backbone.division,
                kept_KRU[:, row],
                stores,
                {**tail, **teacher},
                free_KU=None if free_KRU is None else free_KRU[:, row],
                kind=kind,
            )
            stack.imitate()
            students.append(_Student(stack, backbone, teacher, self._device))
        return students

    @torch.no_grad()
    def _accuracy(self, student: "_Student", task: str, config: ProxyConfig) -> Tensor:
        """(K,): validation accuracy of the teacher's head on the students' features.

        NaN where a student's features have grown beyond all numbers.
        """
        cached = self._cache.tasks[task]
        student.stack.gather()
        # Spread over the cache: datasets are often stored class by class.
        count = len(cached.inputs)
        evenly = np.linspace(0, count - 1, min(count, config.norm_images)).astype(int)
        labels = as_tensor(cached.labels).to(self._device)
        candidates = student.stack.candidates
        correct_K = torch.zeros(candidates, device=self._device)
        sound_K = torch.ones(candidates, dtype=torch.bool, device=self._device)
        batch = max(16, self._backbone.batch // candidates)
        with autocast(self._device, self._precision):
            student.stack.by_batch(training=True, remembered=True)
            student.stack(self._features.inputs(task, evenly))
            student.stack.by_batch(training=False)
            for start in range(0, len(labels), batch):
                images = slice(start, start + batch)
                _, features = student.stack(self._features.validation(task, images))
                logits_KBL = student.logits(features)
                guess_KB = logits_KBL.argmax(dim=2)
                correct_K += (guess_KB == labels[images]).sum(dim=1)
                sound_K &= logits_KBL.isfinite().flatten(1).all(dim=1)
        student.stack.by_batch(training=True)
        return torch.where(sound_K, correct_K / len(labels), torch.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Channels:
    """Which of the teacher's channels students have, of a block's output.

    Attributes:
        dim: Its dimension of channels, counted from that of images.
        index_KN: Positions.
        real_KN: 1.0 where there is a channel, 0.0 where there is padding.
        each_K: What one of a candidate's channels counts in a mean over them.
    """

    dim: int
    index_KN: Tensor
    real_KN: Tensor
    each_K: Tensor


class _Student:
    """A row of all candidates, and the teacher's head that reads it.

    Args:
        stack: The row.
        backbone: The network.
        teacher: The teacher's head, by name.
        device: Where both are.
    """

    def __init__(
        self, stack: Stack, backbone: Backbone, teacher: Mapping[str, Tensor], device: torch.device
    ) -> None:
        self.stack = stack
        self.outputs = [_channels(stack, output, device) for output in backbone.outputs]
        weight_LF, self._bias_L = (teacher[name].to(device) for name in backbone.of_head)
        owner = backbone.feature_owner
        places = None if owner is None else stack.places_of(owner)
        self._weight_KLF = weight_LF.expand(stack.candidates, *weight_LF.shape)
        if places is not None and not places.whole:
            index_KN = torch.from_numpy(places.index_KN).to(device)
            real_KN = torch.from_numpy(places.real_KN).float().to(device)
            index_KLN = index_KN[:, None].expand(-1, len(weight_LF), -1)
            self._weight_KLF = self._weight_KLF.gather(2, index_KLN) * real_KN[:, None]

    def logits(self, features: Tensor) -> Tensor:
        """(K, B, L): what the head makes of feature vectors, in single precision."""
        features = features.float()
        features_KBN = features if features.ndim == 3 else features[None]
        with torch.autocast(features.device.type, enabled=False):
            return torch.einsum("kbn,kln->kbl", features_KBN, self._weight_KLF) + self._bias_L


def _channels(stack: Stack, output: Output, device: torch.device) -> _Channels | None:
    """Which channels of a block's output students have; None if all do."""
    if output.dim is None or output.owner is None:
        return None
    places = stack.places_of(output.owner)
    if places.whole:
        return None
    return _Channels(
        dim=output.dim,
        index_KN=torch.from_numpy(places.index_KN).to(device),
        real_KN=torch.from_numpy(places.real_KN).float().to(device),
        each_K=torch.from_numpy(1 / np.maximum(places.real_KN.sum(axis=1), 1)).float().to(device),
    )


def _distillation(
    features: Tensor, target: Tensor, channels: _Channels | None, *, want_loss: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradient and value of the students' mean squared error, over images, places and channels.

    The gradient is written down instead of derived, which saves a tenth of a training's time.

    Args:
        features: (K, B, ...) of the students; without K of a single one.
        target: (B, ...) of the teacher.
        channels: Which of the teacher's channels the students have; None for all.
        want_loss: Whether the value is wanted, too.

    Returns:
        As `features`: the gradient by them of the sum over students, of their type; (K,): the
        error of each student, or None.
    """
    single = features.ndim == target.ndim
    students = features.detach()[None] if single else features.detach()
    count = target.numel()
    if channels is None:
        difference = torch.sub(students, target)  # of two types: in single precision
        each_K = torch.full((len(students),), 1 / count, device=features.device)
    else:
        dim = channels.dim
        wanted = target.float().expand(len(students), *target.shape)
        shape = [len(students), *(-1 if d == dim else 1 for d in range(target.ndim))]
        index = channels.index_KN.view(shape)
        wanted = wanted.gather(1 + dim, index.expand(students.shape))
        difference = torch.sub(students, wanted.mul_(channels.real_KN.view(shape)))
        each_K = channels.each_K * (target.shape[dim] / count)
    loss_K = difference.square().flatten(1).sum(dim=1) * each_K if want_loss else None
    gradient = difference.mul_(2 * each_K.view(-1, *[1] * target.ndim)).to(features.dtype)
    return gradient[0] if single else gradient, loss_K
