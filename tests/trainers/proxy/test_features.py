"""Features of teachers: computed, saved, mapped, and what they score."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.small_networks import BUILT, candidate, score
from trainers.data import Task
from trainers.network import Whole, accuracy
from trainers.proxy import FeatureCache, feature_bytes, load_features, save_features
from trainers.proxy.features import as_tensor
from trainers.teachers import Trained


def test_cached_features_are_the_teachers(
    cache: FeatureCache, tasks: dict[str, Task], teachers: dict[str, Trained]
) -> None:
    for name, features in cache.tasks.items():
        teacher = Whole(BUILT, teachers[name].state, torch.device("cpu")).eval()
        with torch.no_grad():
            outputs, _ = teacher.tail(as_tensor(features.inputs).float())
            for target, block in zip(features.targets, outputs, strict=True):
                np.testing.assert_allclose(target, block.numpy(), rtol=1e-2, atol=1e-2)
            logits = teacher.head(teacher.tail(as_tensor(features.validation).float())[1])
        hits = (logits.argmax(1) == as_tensor(features.labels)).float().mean()
        assert float(hits) == pytest.approx(features.accuracy, abs=0.03)
        assert len(features.inputs) == 64
        assert accuracy(teacher, tasks[name], 16) == pytest.approx(features.accuracy)


def test_the_cache_has_what_students_begin_with(
    cache: FeatureCache, trunk: Trained, teachers: dict[str, Trained]
) -> None:
    of_tail = {n for n, v in BUILT.tail.state_dict().items() if v.is_floating_point()}
    assert cache.tail.keys() == of_tail
    assert all(np.array_equal(v, trunk.state[n].numpy()) for n, v in cache.tail.items())
    own = {n for n in of_tail if ".bn" in n}
    for name, features in cache.tasks.items():
        assert features.teacher.keys() == own | {"head.weight", "head.bias"}
        state = teachers[name].state
        assert all(np.array_equal(v, state[n].numpy()) for n, v in features.teacher.items())


def test_feature_bytes_are_what_the_cache_takes(cache: FeatureCache) -> None:
    need = feature_bytes(BUILT, train_images=128, validation_images=96)
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
