"""Trunk, teachers, features, proxy, full training and compact networks on small tasks."""

import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import bright_task, random_masks
from safetensors.torch import load_file, save_file

import trainers.proxy.proxy as proxy_module
from partitioning import Masks
from trainers.backbones import BACKBONES, BackboneConfig, channel_groups
from trainers.cost import costs
from trainers.data import Split, Task
from trainers.device import ComputeConfig, DeviceError, resolve_device
from trainers.export import export_networks
from trainers.export.compact import CompactNetwork, ExportError, check_export
from trainers.joint import TrainConfig, TrainResult, curriculum, train_jointly
from trainers.network import Network, accuracy, full_masks, load_norms, load_weights
from trainers.optim import RowSGD, SGDConfig, norm_parameters
from trainers.proxy import (
    DivergedError,
    Evaluation,
    FeatureCache,
    Proxy,
    ProxyConfig,
    build_cache,
    compute_features,
    distill,
    feature_bytes,
    load_features,
    save_features,
)
from trainers.proxy.features import as_tensor, state_tensors
from trainers.proxy.placement import PlacedFeatures
from trainers.teachers import (
    CheckpointError,
    TeacherConfig,
    Trained,
    load,
    load_checkpoint,
    pretrain_trunk,
    store,
    teacher_digest,
    train_teacher,
)

BACKBONE = BackboneConfig(family="resnet14", width=4)
COMPUTE = ComputeConfig(device="cpu")
SGD = SGDConfig(steps=30, batch_size=16, learning_rate=0.1)
PROXY = ProxyConfig(
    sgd=SGDConfig(steps=40, batch_size=8, learning_rate=0.5, momentum=0.0),
    images=64,
    norm_images=64,
)
NAMES = ("a", "b")


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {name: bright_task(name, seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def trunk() -> Trained:
    return pretrain_trunk(BACKBONE, bright_task("trunk", 9), SGD, seed=0, compute=COMPUTE)


@pytest.fixture(scope="module")
def teachers(tasks: dict[str, Task], trunk: Trained) -> dict[str, Trained]:
    config = TeacherConfig(sgd=SGD)
    return {
        name: train_teacher(BACKBONE, trunk, task, config, seed=0, compute=COMPUTE)
        for name, task in tasks.items()
    }


@pytest.fixture(scope="module")
def cache(tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]) -> FeatureCache:
    features = {
        name: compute_features(BACKBONE, teachers[name], task, images=64, seed=0, compute=COMPUTE)
        for name, task in tasks.items()
    }
    return build_cache(BACKBONE, trunk, features, input_size=8)


def candidate(seed: int, use: float = 0.6) -> Masks:
    return random_masks(channel_groups(BACKBONE), NAMES, seed, use=use)


def score(masks: Masks, cache: FeatureCache, config: ProxyConfig = PROXY) -> Evaluation:
    (result,) = distill([masks], cache, config, COMPUTE)
    assert isinstance(result, Evaluation)
    return result


def test_teachers_learn_and_leave_the_shared_trunk_alone(
    trunk: Trained, teachers: dict[str, Trained]
) -> None:
    for teacher in teachers.values():
        assert teacher.accuracy > 0.9
        for name, tensor in trunk.state.items():
            if name.startswith("trunk.") and name.endswith("weight") and tensor.ndim == 4:
                assert torch.equal(teacher.state[name], tensor)
        assert not torch.equal(teacher.state["trunk.bn.0.weight"], trunk.state["trunk.bn.0.weight"])
        assert not torch.equal(
            teacher.state["tail.blocks.0.conv1.weight"], trunk.state["tail.blocks.0.conv1.weight"]
        )


def test_teacher_with_a_frozen_trunk_keeps_its_norms(
    tasks: dict[str, Task], trunk: Trained
) -> None:
    config = TeacherConfig(sgd=replace(SGD, steps=3), adapt_norms=False)
    teacher = train_teacher(BACKBONE, trunk, tasks["a"], config, seed=0, compute=COMPUTE)
    for name, tensor in trunk.state.items():
        if name.startswith("trunk.") and tensor.is_floating_point():
            assert torch.equal(teacher.state[name], tensor), name


def test_digests_follow_what_determines_a_teacher(tasks: dict[str, Task], trunk: Trained) -> None:
    def digest(**changed: object) -> str:
        arguments: dict[str, object] = {
            "config": BACKBONE,
            "trunk": trunk,
            "task": tasks["a"],
            "teacher": TeacherConfig(sgd=SGD),
            "seed": 0,
            "precision": "fp32",
        }
        return teacher_digest(**(arguments | changed))  # type: ignore[arg-type]

    others = [
        digest(config=replace(BACKBONE, width=8)),
        digest(trunk=replace(trunk, digest="other")),
        digest(task=tasks["b"]),
        digest(teacher=TeacherConfig(sgd=replace(SGD, steps=31))),
        digest(seed=1),
        digest(precision="bf16"),
    ]
    assert digest() == digest()
    assert len({digest(), *others}) == len(others) + 1


def test_weights_survive_storing(tmp_path: Path, trunk: Trained) -> None:
    store(trunk, tmp_path / "new" / "trunk.safetensors")
    back = load(tmp_path / "new" / "trunk.safetensors")
    assert back.accuracy == trunk.accuracy
    assert back.digest == trunk.digest
    assert all(torch.equal(back.state[name], tensor) for name, tensor in trunk.state.items())
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["trunk.safetensors"]


def test_checkpoints(tmp_path: Path, trunk: Trained) -> None:
    good = tmp_path / "trunk.safetensors"
    save_file(dict(trunk.state), good)
    torch.save(dict(trunk.state), tmp_path / "trunk.pt")
    for path in (good, tmp_path / "trunk.pt"):
        loaded = load_checkpoint(BACKBONE, path)
        assert torch.equal(loaded.state["trunk.conv.weight"], trunk.state["trunk.conv.weight"])
    with pytest.raises(CheckpointError, match=r"another width.*backbone.width 8"):
        load_checkpoint(replace(BACKBONE, width=8), good)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(BACKBONE, tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(BACKBONE, tmp_path / "broken.safetensors")
    short = {k: v for k, v in trunk.state.items() if k != "trunk.conv.weight"}
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(CheckpointError, match=r"no tensor 'trunk\.conv\.weight'"):
        load_checkpoint(BACKBONE, tmp_path / "short.safetensors")


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_that_needs_unpickling_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Malicious(trap)))
    torch.save({"trunk.conv.weight": Malicious(trap)}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(CheckpointError, match="would have to be unpickled"):
            load_checkpoint(BACKBONE, tmp_path / name)
    assert not trap.exists()


def test_cached_features_are_the_teachers(
    cache: FeatureCache, tasks: dict[str, Task], teachers: dict[str, Trained]
) -> None:
    for name, features in cache.tasks.items():
        teacher = Network(BACKBONE, full_masks(BACKBONE, [name]), [2], generator=None)
        teacher.load_state_dict(dict(teachers[name].state))
        teacher.eval()
        with torch.no_grad():
            x = as_tensor(features.inputs).float()
            for target, block in zip(features.targets, teacher.tail(x, 0), strict=True):
                np.testing.assert_allclose(target, block.numpy(), rtol=1e-2, atol=1e-2)
            logits = teacher.head(teacher.tail(as_tensor(features.validation).float(), 0)[-1], 0)
        hits = (logits.argmax(1) == as_tensor(features.labels)).float().mean()
        assert float(hits) == pytest.approx(features.accuracy, abs=0.03)
        assert len(features.inputs) == 64
        assert accuracy(teacher, tasks[name], 0) == pytest.approx(features.accuracy)


def test_feature_bytes_are_what_the_cache_takes(cache: FeatureCache) -> None:
    need = feature_bytes(BACKBONE, input_size=8, train_images=128, validation_images=96)
    assert need == cache.nbytes


def test_features_survive_saving(tmp_path: Path, cache: FeatureCache) -> None:
    save_features(cache.tasks["a"], tmp_path / "a.safetensors")
    back = load_features(tmp_path / "a.safetensors")
    assert np.array_equal(back.inputs, cache.tasks["a"].inputs)
    assert all(map(np.array_equal, back.targets, cache.tasks["a"].targets))
    assert back.teacher.keys() == cache.tasks["a"].teacher.keys()
    assert back.accuracy == cache.tasks["a"].accuracy


def test_mapped_features_are_read_where_they_lie(tmp_path: Path, cache: FeatureCache) -> None:
    path = tmp_path / "a.safetensors"
    save_features(cache.tasks["a"], path)
    read, mapped = load_features(path), load_features(path, mapped=True)
    assert isinstance(mapped.inputs, np.memmap)
    assert np.array_equal(read.inputs, mapped.inputs)
    assert all(map(np.array_equal, read.targets, mapped.targets))
    assert np.array_equal(read.validation, mapped.validation)
    assert np.array_equal(read.labels, mapped.labels)
    assert read.teacher.keys() == mapped.teacher.keys()
    assert (read.accuracy, read.path, mapped.path) == (mapped.accuracy, None, path)
    # Another process is sent the path, not the features.
    sent = pickle.dumps(mapped)
    assert len(sent) < 1000 < len(pickle.dumps(read))
    again = pickle.loads(sent)
    assert isinstance(again.inputs, np.memmap)
    assert np.array_equal(again.inputs, read.inputs)
    assert np.array_equal(pickle.loads(pickle.dumps(read)).inputs, read.inputs)


def test_scores_from_mapped_features_are_the_same(tmp_path: Path, cache: FeatureCache) -> None:
    for name, features in cache.tasks.items():
        save_features(features, tmp_path / f"{name}.safetensors")
    mapped = replace(
        cache,
        tasks={n: load_features(tmp_path / f"{n}.safetensors", mapped=True) for n in cache.tasks},
    )
    first, second = score(candidate(0), cache), score(candidate(0), mapped)
    assert first.distillation_loss == second.distillation_loss
    assert first.accuracy == second.accuracy


def test_batches_are_streamed_in_order_whether_ahead_or_not(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = PlacedFeatures(cache, torch.device("cpu"), "fp32")
    assert not placed.on_device
    draws = [(name, np.array([i, 3])) for i in range(3) for name in NAMES]
    direct = list(placed.stream(draws))
    monkeypatch.setattr(placed, "_ahead", True)
    ahead = list(placed.stream(draws))
    assert len(direct) == len(ahead) == len(draws)
    for (name, index), (x, targets), (x_ahead, targets_ahead) in zip(
        draws, direct, ahead, strict=True
    ):
        assert np.array_equal(x.numpy(), cache.tasks[name].inputs[index].astype(np.float32))
        assert torch.equal(x, x_ahead)
        for k, (target, other) in enumerate(zip(targets, targets_ahead, strict=True)):
            expected = cache.tasks[name].targets[k][index].astype(np.float32)
            assert np.array_equal(target.numpy(), expected)
            assert torch.equal(target, other)


def test_an_error_while_reading_ahead_is_raised(cache: FeatureCache) -> None:
    placed = PlacedFeatures(cache, torch.device("cpu"), "fp32")
    placed._ahead = True
    with pytest.raises(IndexError):
        list(placed.stream([("a", np.array([10**6]))]))


def test_every_repeat_has_mini_batches_of_its_own(cache: FeatureCache) -> None:
    proxy = Proxy(cache, PROXY, COMPUTE)
    once, *_ = proxy.score([candidate(0)])
    losses = [proxy._train([candidate(0)], PROXY, repeat)[1][0] for repeat in range(3)]
    assert isinstance(once, Evaluation)
    # The first of them is the training that a single score is of.
    assert np.allclose(losses[0], list(once.distillation_loss.values()))
    assert not np.allclose(losses[0], losses[1])
    assert not np.allclose(losses[1], losses[2])
    assert once.quality_std is None


def test_a_score_of_repeats_is_their_mean_and_has_their_spread(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy_SKR = np.array([[[0.5, 0.7], [0.1, 0.1]], [[0.7, 0.9], [0.1, 0.1]]])
    loss_SKR = np.array([[[1.0, 2.0], [3.0, 3.0]], [[2.0, 4.0], [3.0, np.nan]]])
    monkeypatch.setattr(
        Proxy,
        "_train",
        lambda self, cohort, config, repeat: (accuracy_SKR[repeat], loss_SKR[repeat]),
    )
    cohort = [candidate(0, use=0.9), candidate(1, use=0.3)]  # as they are sorted
    first, second = distill(cohort, cache, replace(PROXY, repeats=2), COMPUTE)
    # A cohort is trained in chunks of one on a CPU: both get the first candidate's numbers.
    assert isinstance(first, Evaluation)
    assert list(first.accuracy.values()) == pytest.approx([0.6, 0.8])
    assert list(first.distillation_loss.values()) == pytest.approx([1.5, 3.0])
    assert first.quality == pytest.approx(0.7)
    assert first.quality_std == pytest.approx(np.std([0.6, 0.8], ddof=1))
    monkeypatch.setattr(proxy_module, "room", lambda device, each, share: 2)
    first, second = distill(cohort, cache, replace(PROXY, repeats=2), COMPUTE)
    assert isinstance(first, Evaluation)
    assert isinstance(second, DivergedError)
    assert "loss of b is not finite" in str(second)


def test_repeats_must_be_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"proxy\.repeats must be at least 1, got 0"):
        ProxyConfig(repeats=0)


def test_side_by_side_scores_are_those_of_each_alone(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = [candidate(seed, use=0.2 + 0.05 * seed) for seed in range(6)]
    few = replace(PROXY, sgd=replace(PROXY.sgd, steps=12, learning_rate=0.05))
    alone = [score(masks, cache, few) for masks in cohort]
    sizes = []
    monkeypatch.setattr(proxy_module, "room", lambda device, each, share: 4)
    original = Proxy._train

    def counted(self: Proxy, masks: Sequence[Masks], *rest: object) -> object:
        sizes.append(len(masks))
        return original(self, masks, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Proxy, "_train", counted)
    together = distill(cohort, cache, few, COMPUTE)
    assert sizes == [4, 2]
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, Evaluation)
        assert other.costs == one.costs
        for name in NAMES:
            assert other.distillation_loss[name] == pytest.approx(
                one.distillation_loss[name], rel=1e-3
            )
            assert other.accuracy[name] == pytest.approx(one.accuracy[name], abs=0.03)


def test_the_size_of_cohorts_follows_the_memory_that_they_took(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def room(device: torch.device, each: int, share: float) -> int:
        asked.append(each)
        return 2

    peaks = iter([1010, 510, 0])
    monkeypatch.setattr(proxy_module, "room", room)
    monkeypatch.setattr(proxy_module, "start_measuring", lambda device: 10)
    monkeypatch.setattr(proxy_module, "peak_bytes", lambda device: next(peaks))
    few = replace(PROXY, sgd=replace(PROXY.sgd, steps=2))
    proxy = Proxy(cache, few, COMPUTE)
    proxy.score([candidate(seed) for seed in range(5)])
    # First the estimate, then a half of what two candidates took; what cannot be is not believed.
    assert asked[1:] == [500, 250]
    assert asked[0] > 10_000
    assert proxy._room(few, len(NAMES)) == 2
    assert asked[-1] == 250
    assert (proxy.largest_cohort, proxy.peak_bytes) == (2, 1010)
    # It says nothing of other batch sizes.
    proxy._room(replace(few, norm_images=32), len(NAMES))
    assert asked[-1] > 10_000


def test_a_score_may_be_of_fewer_steps(cache: FeatureCache) -> None:
    proxy = Proxy(cache, PROXY, COMPUTE)
    few = replace(PROXY, sgd=replace(PROXY.sgd, steps=6))
    (short,), (long,) = proxy.score([candidate(0)], few), proxy.score([candidate(0)])
    assert isinstance(short, Evaluation)
    assert isinstance(long, Evaluation)
    assert short.distillation_loss == score(candidate(0), cache, few).distillation_loss
    assert long.distillation_loss == score(candidate(0), cache).distillation_loss
    assert long.distillation_loss != short.distillation_loss


def test_distillation_imitates_the_teachers(cache: FeatureCache) -> None:
    full = full_masks(BACKBONE, NAMES)
    short = score(full, cache, replace(PROXY, sgd=replace(PROXY.sgd, steps=2)))
    long = score(full, cache, replace(PROXY, sgd=replace(PROXY.sgd, steps=200)))
    assert sum(long.distillation_loss.values()) < 0.7 * sum(short.distillation_loss.values())
    assert long.quality > 0.9
    assert set(long.accuracy) == set(NAMES)


@pytest.mark.parametrize("by_class", [False, True])
def test_a_student_that_is_the_teacher_scores_as_the_teacher(
    cache: FeatureCache, teachers: dict[str, Trained], by_class: bool
) -> None:
    """Also where images are stored class by class: norms are measured over the whole cache."""
    features = cache.tasks["a"]
    # The cached images alternate between the classes.
    order = np.argsort(np.arange(64) % 2, kind="stable") if by_class else np.arange(64)
    reordered = replace(
        features,
        inputs=features.inputs[order],
        targets=tuple(target[order] for target in features.targets),
    )
    single = FeatureCache(
        backbone=BACKBONE,
        input_size=8,
        tasks={"a": reordered},
        tail={k: v for k, v in features.teacher.items() if k.startswith("tail.")},
    )
    config = replace(PROXY, sgd=replace(PROXY.sgd, steps=10, learning_rate=1e-6), norm_images=32)
    result = score(full_masks(BACKBONE, ["a"]), single, config)
    assert result.accuracy["a"] == pytest.approx(teachers["a"].accuracy, abs=0.03)


def test_every_network_needs_a_step(cache: FeatureCache) -> None:
    with pytest.raises(ValueError, match="at least the number of networks, 2"):
        score(candidate(0), cache, replace(PROXY, sgd=replace(PROXY.sgd, steps=1)))


def test_the_proxys_seed_decides_its_batches(cache: FeatureCache) -> None:
    first, again, other = (
        score(candidate(0), cache, replace(PROXY, seed=seed)).distillation_loss
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_scores_do_not_depend_on_the_cohort(cache: FeatureCache) -> None:
    cohort = [candidate(seed) for seed in range(3)]
    together = distill(cohort, cache, PROXY, COMPUTE)
    alone = score(cohort[1], cache)
    assert isinstance(together[1], Evaluation)
    assert together[1].accuracy == alone.accuracy
    assert together[1].distillation_loss == alone.distillation_loss
    assert score(cohort[0], cache).distillation_loss != alone.distillation_loss


def test_divergence_is_an_error_of_the_candidate(cache: FeatureCache) -> None:
    wild = replace(PROXY, sgd=replace(PROXY.sgd, learning_rate=1e6))
    for result in distill([candidate(0), candidate(1)], cache, wild, COMPUTE):
        assert isinstance(result, DivergedError)
        assert "lower proxy.sgd.learning_rate" in str(result)


def test_divergence_at_the_very_last_step_is_one_too(cache: FeatureCache) -> None:
    sgd = replace(PROXY.sgd, steps=len(NAMES), learning_rate=1e38)
    (result,) = distill([candidate(0)], cache, replace(PROXY, sgd=sgd), COMPUTE)
    assert isinstance(result, DivergedError)


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


def test_costs_count_what_compact_networks_have(tasks: dict[str, Task]) -> None:
    masks = candidate(3)
    network = Network(BACKBONE, masks, [2, 2], generator=torch.Generator().manual_seed(0))
    counted = costs(BACKBONE, masks, [2, 2], input_size=8)
    for row, name in enumerate(NAMES):
        compact = CompactNetwork(network, row, tasks[name])
        assert counted.parameters[name] == sum(p.numel() for p in compact.parameters())
        assert counted.use[name] == pytest.approx(masks.use()[row])
    full = costs(BACKBONE, full_masks(BACKBONE, NAMES), [2, 2], input_size=8)
    assert full.mean_use == full.relative_parameters == full.relative_macs == 1.0
    whole = Network(BACKBONE, full_masks(BACKBONE, NAMES), [2, 2], generator=None)
    assert full.union_parameters == sum(p.numel() for p in whole.parameters())
    assert counted.relative_union < 1.0


def test_the_union_of_disjoint_masks_counts_both() -> None:
    """Half of the hidden channels each: together all of them, shared weights once."""
    groups = channel_groups(BACKBONE)
    half = np.arange(16) < 8
    masks = Masks(
        networks=full_masks(BACKBONE, NAMES).networks,
        groups=groups,
        forward={g.name: np.stack([half, ~half]) for g in groups},
    )
    full = costs(BACKBONE, full_masks(BACKBONE, NAMES), [2, 2], input_size=8)
    split = costs(BACKBONE, masks, [2, 2], input_size=8)
    # Two blocks: half of the hidden norm (2 x 8 numbers) of either task is gone, weights stay.
    assert full.union_parameters - split.union_parameters == 2 * 2 * 2 * 8
    alone = Masks(
        networks=masks.networks,
        groups=groups,
        forward={g.name: np.stack([half] * 2) for g in groups},
    )
    weights = 9 * 8 * (8 + 16) + 9 * 8 * (16 + 16)  # of the other half, both blocks
    shared = costs(BACKBONE, alone, [2, 2], input_size=8)
    assert split.union_parameters - shared.union_parameters == weights


def test_macs_by_hand() -> None:
    """ResNet-14 of width 4 on 8 x 8 pixels: every convolution's k^2 I O H W, and the head."""
    full = costs(BACKBONE, full_masks(BACKBONE, ["a"]), [2], input_size=8)
    stem = 9 * 3 * 4 * 64
    first = 4 * 9 * 4 * 4 * 64
    second = 9 * (4 * 8 + 3 * 8 * 8) * 16
    third = 9 * (8 * 16 + 3 * 16 * 16) * 4
    assert full.macs["a"] == stem + first + second + third + 16 * 2


def fully_train(
    tasks: dict[str, Task],
    trunk: Trained,
    teachers: dict[str, Trained],
    *,
    seed: int = 0,
    config: TrainConfig | None = None,
) -> TrainResult:
    return train_jointly(
        candidate(1, use=0.7), tasks, trunk, teachers,
        config or TrainConfig(sgd=replace(SGD, steps=60)),
        backbone=BACKBONE, seed=seed, compute=COMPUTE,
    )  # fmt: skip


def test_full_training_learns_on_the_teachers_trunks(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    result = fully_train(tasks, trunk, teachers)
    assert sum(result.drawn.values()) == 60
    assert set(result.accuracy) == {"validation", "test"}
    assert min(result.accuracy["test"].values()) > 0.9
    state = result.network.state_dict()
    for row, name in enumerate(NAMES):
        for key, tensor in teachers[name].state.items():
            if key.startswith("trunk.") and tensor.is_floating_point():
                own = re.sub(r"(bn\d?)\.0\.", rf"\1.{row}.", key)
                assert torch.equal(state[own], tensor), (own, name)


def test_full_training_repeats_by_seed(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    first, again, other = (fully_train(tasks, trunk, teachers, seed=s) for s in (0, 0, 1))
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
    assert first.drawn == again.drawn
    key = "tail.blocks.0.conv1.weight"
    assert not torch.equal(first.network.state_dict()[key], other.network.state_dict()[key])


def test_the_curriculum_draws_the_lagging_task_more(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    """Labels without relation to the images stay at chance, so their task is drawn about 2:1."""
    rng = torch.Generator().manual_seed(0)
    train_split = tasks["b"].splits["train"]
    noise = Split(
        images=train_split.images,
        labels=torch.randint(0, 2, train_split.labels.shape, generator=rng),
    )
    hopeless = replace(tasks["b"], splits={**tasks["b"].splits, "train": noise})
    config = TrainConfig(sgd=replace(SGD, steps=200), smoothing=0.2)
    drawn = fully_train(tasks | {"b": hopeless}, trunk, teachers, config=config).drawn
    assert drawn["b"] > 1.3 * drawn["a"]
    uniform = replace(config, temperature=1e6)
    drawn = fully_train(tasks | {"b": hopeless}, trunk, teachers, config=uniform).drawn
    assert 0.75 < drawn["b"] / drawn["a"] < 1.33  # 4 standard deviations of 200 fair draws


def test_training_stops_at_a_loss_that_is_not_finite(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    wild = TrainConfig(sgd=replace(SGD, learning_rate=1e30))
    with pytest.raises(FloatingPointError, match=r"task \w is not finite at step"):
        fully_train(tasks, trunk, teachers, config=wild)
    with pytest.raises(FloatingPointError, match=r"the loss of trunk is not finite"):
        pretrain_trunk(
            BACKBONE, bright_task("trunk", 9), replace(SGD, learning_rate=1e30),
            seed=0, compute=COMPUTE,
        )  # fmt: skip


def test_curriculum() -> None:
    accuracy_R = np.array([0.1, 0.5, 1.0])
    assert curriculum(accuracy_R, 1e9) == pytest.approx([1 / 3] * 3)
    assert curriculum(accuracy_R, 0.001) == pytest.approx([1, 0, 0])
    assert curriculum(accuracy_R, 1.0) == pytest.approx(np.array([10, 2, 1]) / 13)
    sharp = curriculum(accuracy_R, 0.25)
    assert sharp[0] > 0.99


def test_export_writes_checked_networks_that_need_only_torch(
    tmp_path: Path, tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    result = train_jointly(
        candidate(1), tasks, trunk, teachers, TrainConfig(sgd=SGD),
        backbone=BACKBONE, seed=0, compute=COMPUTE,
    )  # fmt: skip
    checks = export_networks(result.network, tasks, tmp_path)
    assert set(checks) == set(NAMES)
    for row, name in enumerate(NAMES):
        program = torch.export.load(tmp_path / name / "network.pt2").module()
        images = tasks[name].splits["test"].images
        predicted = program(images).argmax(1)
        hits = float((predicted == tasks[name].splits["test"].labels).float().mean())
        assert hits == checks[name].accuracy == result.accuracy["test"][name]
        assert program(images[:1]).shape == (1, 2)
        description = json.loads((tmp_path / name / "network.json").read_text())
        assert description["classes"] == ["left", "right"]
        assert description["accuracy"] == hits
        weights = load_file(tmp_path / name / "weights.safetensors")
        used = result.network.masks.forward["stage3.block0.hidden"][row].sum()
        assert weights["tail.0.conv1.weight"].shape[0] == used


def test_a_wrong_compact_network_is_not_exported(tasks: dict[str, Task], trunk: Trained) -> None:
    network = Network(
        BACKBONE, candidate(0), [2, 2], generator=torch.Generator().manual_seed(0)
    ).eval()
    compact = CompactNetwork(network, 0, tasks["a"]).eval()
    assert check_export(compact, network, 0, tasks["a"], "test").max_difference < 1e-4
    with torch.no_grad():
        compact.head.weight.add_(0.05)
    with pytest.raises(ExportError, match="task a differs"):
        check_export(compact, network, 0, tasks["a"], "test")
    with torch.no_grad():
        compact.head.weight.fill_(float("nan"))
    with pytest.raises(ExportError, match="not finite"):
        check_export(compact, network, 0, tasks["a"], "test")


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="torch sees 0 CUDA devices"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"
