"""The whole of the proxy against a plain loop over masked modules."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import trainers.proxy.proxy as proxy_module
from partitioning import Masks
from tests.helpers.foreign import BACKBONES, backbone
from tests.helpers.masked import MaskedRow
from tests.helpers.masks import random_masks
from tests.helpers.small_networks import COMPUTE, NAMES, PROXY
from tests.helpers.small_networks import SGD as TRAINING
from tests.helpers.tasks import bright_task
from trainers.networks import Backbone, own_tensors
from trainers.networks.division import used_by
from trainers.optim import SGDConfig, learning_rate_at
from trainers.proxy import (
    Evaluation,
    FeatureCache,
    ProxyConfig,
    build_cache,
    compute_features,
    distill,
)
from trainers.proxy.features import state_tensors
from trainers.teachers import TeacherConfig, pretrain_trunk, train_teacher

SGD = SGDConfig(
    steps=24, batch_size=8, learning_rate=0.1, momentum=0.5, weight_decay=0.05,
    schedule="step", drops=(0.5,),
)  # fmt: skip


def made(name: str) -> FeatureCache:
    """Features of two tasks by a backbone with short trainings."""
    config, size = BACKBONES[name]
    backbone(name)
    sgd = replace(TRAINING, steps=6)
    trunk = pretrain_trunk(config, bright_task("trunk", 9, size=size), sgd, seed=0, compute=COMPUTE)
    features = {}
    for seed, task_name in enumerate(NAMES):
        task = bright_task(task_name, seed, size=size)
        teacher = train_teacher(
            config, trunk, task, TeacherConfig(sgd=sgd), seed=0, compute=COMPUTE
        )
        features[task_name] = compute_features(
            config, teacher, task, images=32, seed=0, compute=COMPUTE
        )
    return build_cache(config, trunk, features, input_size=size)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", ["resnet14 with streams", "vit", "convnext with streams"])
def test_scores_are_those_of_masked_modules_trained_one_at_a_time(
    name: str, backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates, decay, momentum, late losses, norms, heads: of each of several side by side."""
    cache, found = made(name), backbone(name)
    cohort = [
        random_masks(found.groups, NAMES, seed, use=0.3 + 0.2 * seed, backward=backward)
        for seed in range(3)
    ]
    config = replace(PROXY, sgd=SGD, norm_images=20)
    monkeypatch.setattr(proxy_module, "room", lambda device, each, share: 3)
    results = distill(cohort, cache, config, COMPUTE)
    for masks, result in zip(cohort, results, strict=True):
        assert isinstance(result, Evaluation)
        losses, accuracies = plain_proxy(found, masks, cache, config)
        assert list(result.distillation_loss.values()) == pytest.approx(losses, rel=1e-3)
        assert list(result.accuracy.values()) == pytest.approx(accuracies, abs=0.021)
    assert len({tuple(r.distillation_loss.values()) for r in results}) == 3  # type: ignore[union-attr]


def plain_proxy(
    found: Backbone, masks: Masks, cache: FeatureCache, config: ProxyConfig
) -> tuple[list[float], list[float]]:
    """Losses and accuracies by row."""
    kept_RU, tail = found.kept(masks), state_tensors(cache.tail)
    free_RU = found.kept(masks, "backward")
    learned = {n for n, _ in found.tail.named_parameters()} - own_tensors(found.tail)
    shared = {n: tail[n].clone() for n in learned}
    buffers = {n: v for n, v in found.tail.named_buffers() if not v.is_floating_point()}
    heads = [state_tensors(cache.tasks[task].teacher) for task in NAMES]
    rows = [
        MaskedRow(found, kept_RU[row], shared, {**buffers, **heads[row]}, free_RU[row])
        for row in range(len(NAMES))
    ]
    rng = np.random.default_rng(config.seed)
    late: list[list[float]] = [[] for _ in NAMES]
    for step in range(config.sgd.steps):
        row = step % len(NAMES)
        task = cache.tasks[NAMES[row]]
        index = rng.integers(len(task.inputs), size=config.sgd.batch_size)
        outputs, _ = rows[row](torch.tensor(task.inputs[index]).float())
        targets = [torch.tensor(target[index]).float() for target in task.targets]
        loss = imitation(found, kept_RU[row], outputs, targets)
        loss.backward()
        rows[row].step(learning_rate_at(config.sgd, step), config.sgd.momentum, SGD.weight_decay)
        if step >= 0.9 * config.sgd.steps - len(NAMES):
            late[row].append(float(loss.detach()))
    accuracies = []
    with torch.no_grad():
        for row, name in enumerate(NAMES):
            task, trained = cache.tasks[name], rows[row]
            evenly = np.linspace(0, len(task.inputs) - 1, config.norm_images).astype(int)
            trained.by_batch(training=True)
            trained(torch.tensor(task.inputs[evenly]).float())
            trained.by_batch(training=False)
            _, features = trained(torch.tensor(task.validation).float())
            weight, bias = (heads[row][each] for each in found.of_head)
            owner = found.division.axes.get(found.of_head[0], {}).get(1)
            if owner is not None:
                weight = weight[:, torch.from_numpy(used_by(owner, kept_RU[row]))]
            guess = (features @ weight.T + bias).argmax(dim=1)
            accuracies.append(float((guess == torch.tensor(task.labels)).float().mean()))
    return [float(np.mean(losses)) for losses in late], accuracies


def imitation(
    found: Backbone, kept: np.ndarray, outputs: Sequence[Tensor], targets: Sequence[Tensor]
) -> Tensor:
    losses = []
    for out, target, output in zip(outputs, targets, found.outputs, strict=True):
        if output.dim is not None and output.owner is not None:
            used = np.flatnonzero(used_by(output.owner, kept))
            target = target.index_select(output.dim, torch.from_numpy(used))
        losses.append(F.mse_loss(out, target) if out.numel() else out.sum())
    return torch.stack(losses).sum()
