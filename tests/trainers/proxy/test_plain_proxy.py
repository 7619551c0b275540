"""The whole of the proxy against a plain loop over masked modules."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import trainers.proxy.proxy as proxy_module
from partitioning import Masks
from tests.helpers.masks import random_masks
from tests.helpers.small_networks import BACKBONE, COMPUTE, NAMES, PROXY
from trainers.backbones import BACKBONES, channel_groups
from trainers.network import load_norms, load_weights
from trainers.optim import RowSGD, SGDConfig, norm_parameters
from trainers.proxy import Evaluation, FeatureCache, ProxyConfig, distill
from trainers.proxy.features import state_tensors


def test_scores_are_those_of_masked_modules_trained_one_at_a_time(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of the proxy against a plain loop: rates, decay, late losses, norms, heads."""
    groups = channel_groups(BACKBONE, stream=True)
    cohort = [random_masks(groups, NAMES, seed, use=0.3 + 0.2 * seed) for seed in range(3)]
    for masks in cohort:
        for name, mask in masks.forward.items():
            assert mask.any(axis=1).all() or "stream" not in name
    sgd = SGDConfig(
        steps=24, batch_size=8, learning_rate=0.1, momentum=0.0, weight_decay=0.05,
        schedule="step", drops=(0.5,),
    )  # fmt: skip
    config = replace(PROXY, sgd=sgd, norm_images=20)
    monkeypatch.setattr(proxy_module, "room", lambda device, each, share: 3)
    results = distill(cohort, cache, config, COMPUTE)
    for masks, result in zip(cohort, results, strict=True):
        assert isinstance(result, Evaluation)
        losses, accuracies = plain_proxy(masks, cache, config)
        assert list(result.distillation_loss.values()) == pytest.approx(losses, rel=2e-3)
        assert list(result.accuracy.values()) == pytest.approx(accuracies, abs=0.02)


def plain_proxy(
    masks: Masks, cache: FeatureCache, config: ProxyConfig
) -> tuple[list[float], list[float]]:
    tail = BACKBONES[BACKBONE.family].tail(BACKBONE, masks, generator=torch.Generator())
    load_weights(tail, state_tensors(cache.tail), "tail.")
    states = [state_tensors(cache.tasks[name].teacher) for name in NAMES]
    for row, state in enumerate(states):
        load_norms(tail, row, state, "tail.")
    tail.train()
    own = [norm_parameters(tail, row) for row in range(len(NAMES))]
    optimizer = RowSGD(tail, own, config.sgd)
    rng = np.random.default_rng(config.seed)
    late: list[list[float]] = [[] for _ in NAMES]
    used = [
        [masks.forward[plan.outputs][row] for plan in BACKBONES[BACKBONE.family].plan(BACKBONE)]
        for row in range(len(NAMES))
    ]
    for step in range(config.sgd.steps):
        row = step % len(NAMES)
        task = cache.tasks[NAMES[row]]
        index = rng.integers(len(task.inputs), size=config.sgd.batch_size)
        features = tail(torch.tensor(task.inputs[index]).float(), row)
        loss = torch.stack(
            [
                torch.nn.functional.mse_loss(f, torch.tensor(t[index][:, mask]).float())
                for f, t, mask in zip(features, task.targets, used[row], strict=True)
            ]
        ).sum()
        loss.backward()
        optimizer.step(row, step)
        if step >= 0.9 * config.sgd.steps - len(NAMES):
            late[row].append(float(loss.detach()))
    for child in tail.modules():
        if isinstance(child, torch.nn.BatchNorm2d):
            child.momentum = 1.0
    accuracies = []
    with torch.no_grad():
        for row, name in enumerate(NAMES):
            task = cache.tasks[name]
            evenly = np.linspace(0, len(task.inputs) - 1, config.norm_images).astype(int)
            tail.train()
            tail(torch.tensor(task.inputs[evenly]).float(), row)
            tail.eval()
            pooled = tail(torch.tensor(task.validation).float(), row)[-1].mean(dim=(2, 3))
            weight = states[row]["heads.0.weight"][:, torch.tensor(used[row][-1])]
            guess = (pooled @ weight.T + states[row]["heads.0.bias"]).argmax(dim=1)
            accuracies.append(float((guess == torch.tensor(task.labels)).float().mean()))
    return [float(np.mean(losses)) for losses in late], accuracies
