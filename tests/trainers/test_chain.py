"""From given weights to exported networks, on networks of other libraries and without a trunk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.foreign import with_operators
from tests.helpers.masks import random_masks
from tests.helpers.small_networks import COMPUTE, NAMES, PROXY, SGD
from tests.helpers.tasks import bright_task
from trainers.cost import costs
from trainers.data import Task, normalise
from trainers.export import ExportConfig, export_networks, read_export
from trainers.joint import TrainConfig, train_jointly, trained_network
from trainers.networks import BackboneConfig, build_backbone, build_model
from trainers.proxy import Evaluation, FeatureCache, build_cache, compute_features, distill
from trainers.similarity import linear_cka, probe_images, teacher_features
from trainers.teachers import (
    TeacherConfig,
    Trained,
    given_weights,
    pretrain_trunk,
    train_teacher,
)


class Chain:
    """All that a study does with a backbone, in few steps.

    Args:
        config: The backbone.
        size: Height and width of its images.
        rate: Learning rate of everything.
    """

    def __init__(self, config: BackboneConfig, size: int, rate: float) -> None:
        self.config, self.backbone = config, build_backbone(config, size)
        self.tasks = {n: bright_task(n, seed, size=size) for seed, n in enumerate(NAMES)}
        self.sgd = replace(SGD, steps=12, learning_rate=rate)
        start = given_weights(config, input_size=size) if config.pretrained else None
        self.start = start
        self.trunk = pretrain_trunk(
            config, bright_task("trunk", 9, size=size), self.sgd,
            seed=0, compute=COMPUTE, start=start,
        )  # fmt: skip
        self.teachers = {name: self.teacher(task) for name, task in self.tasks.items()}
        self.cache = self.features(size)
        self.cohort = [random_masks(self.backbone.groups, NAMES, s, use=0.6) for s in range(2)]

    def teacher(self, task: Task) -> Trained:
        teacher = TeacherConfig(sgd=self.sgd)
        return train_teacher(self.config, self.trunk, task, teacher, seed=0, compute=COMPUTE)

    def features(self, size: int) -> FeatureCache:
        found = {
            name: compute_features(
                self.config, self.teachers[name], task, images=48, seed=0, compute=COMPUTE
            )
            for name, task in self.tasks.items()
        }
        return build_cache(self.config, self.trunk, found, input_size=size)

    def holds(self, folder: Path, proxy_rate: float) -> None:
        """Proxy, training and export go through, and agree with each other."""
        sgd = replace(PROXY.sgd, steps=30, learning_rate=proxy_rate)
        config = replace(PROXY, sgd=sgd)
        early = replace(config, sgd=replace(sgd, steps=len(NAMES)))
        for masks, scored in zip(
            self.cohort, distill(self.cohort, self.cache, config, COMPUTE), strict=True
        ):
            (first,) = distill([masks], self.cache, early, COMPUTE)
            assert isinstance(scored, Evaluation)
            assert isinstance(first, Evaluation)
            for name in NAMES:
                assert scored.distillation_loss[name] < 0.9 * first.distillation_loss[name]
            assert scored.costs == costs(self.backbone, masks, [2, 2])
        masks = self.cohort[0]
        result = train_jointly(
            masks, self.tasks, self.trunk, self.teachers, TrainConfig(sgd=self.sgd),
            backbone=self.config, seed=0, compute=COMPUTE,
        )  # fmt: skip
        network = trained_network(
            result.state, masks, self.tasks, self.trunk, self.teachers, self.backbone
        )
        config = ExportConfig(formats=("pt2", "safetensors"))
        checks = export_networks(network, self.tasks, folder, config).checks
        for name in NAMES:
            assert checks[name]["network.pt2"].accuracy == result.accuracy["test"][name]
            described = read_export(folder / name)
            assert described["parameters"] == costs(self.backbone, masks, [2, 2]).parameters[name]
            weights = load_file(folder / name / "weights.safetensors")
            statistics = ("mean", "std", "running_mean", "running_var", "num_batches_tracked")
            counted = [t.numel() for n, t in weights.items() if not n.endswith(statistics)]
            assert sum(counted) == described["parameters"]
            whole = costs(
                self.backbone, random_masks(self.backbone.groups, NAMES, 0, use=1.1), [2, 2]
            )
            assert described["macs"] < whole.macs[name]


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vision transformer as the hub has them."""
    with_operators()
    import transformers

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96,
        image_size=32, patch_size=8, num_labels=7,
        initializer_range=0.1,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


def test_a_transformer_from_a_folder(vit_folder: Path, tmp_path: Path) -> None:
    config = BackboneConfig(model=f"transformers:{vit_folder}")
    chain = Chain(config, 32, 0.02)
    found = chain.backbone
    assert config.pretrained
    assert chain.start is not None
    saved = build_model(config.model).state_dict()
    for name, value in chain.start.state.items():
        assert name.startswith(f"{found.head}.") or torch.equal(value, saved[name]), name
    assert {group.kind for group in found.groups} == {"heads", "hidden"}
    assert found.boundary == (17, 48)
    assert chain.cache.tasks["a"].inputs.shape == (48, 17, 48)
    for teacher in chain.teachers.values():
        moved = {n for n, v in teacher.state.items() if not torch.equal(v, chain.trunk.state[n])}
        of_trunk = {n for n, _ in found.trunk.named_parameters()}
        assert of_trunk & moved == of_trunk & found.own
        assert moved >= {n for n, _ in found.tail.named_parameters()} - {
            n
            for n in found.tail.state_dict()
            if n.endswith("k_proj.bias")  # which softmax ignores
        }
    chain.holds(tmp_path, 0.5)


def test_everything_of_the_built_in_network(tmp_path: Path) -> None:
    config = BackboneConfig(
        model="resnet14", args={"width": 4}, trunk="train", stream=True, partition=("*",)
    )
    chain = Chain(config, 8, 0.05)
    assert chain.start is None
    for name, task in chain.tasks.items():
        features = chain.cache.tasks[name]
        images, _ = task.splits["validation"].batch(0, 48)
        wanted = normalise(images, task).half().numpy()
        assert np.array_equal(features.validation, wanted), "the boundary is the images"
        assert [target.shape[1:] for target in features.targets] == [
            output.shape for output in chain.backbone.outputs
        ]
        assert not torch.equal(
            chain.teachers[name].state["conv.weight"], chain.trunk.state["conv.weight"]
        )
    images = probe_images(list(chain.tasks.values()))
    found = [
        teacher_features(config, chain.teachers[n], task, images, COMPUTE)
        for n, task in chain.tasks.items()
    ]
    assert found[0].shape == (len(images), chain.backbone.features)
    assert 0 < linear_cka(found)[0, 1] < 1
    chain.holds(tmp_path, 0.2)
