"""What trains on images and measures by them does the same where they are mapped from files."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from search.calibration.images import for_training
from tests.helpers.small_networks import BACKBONE, BUILT, COMPUTE, SGD
from tests.test_layers import FILES
from trainers.data import Task, normalise
from trainers.data.split import mapped_split
from trainers.network import Whole, accuracy
from trainers.proxy import compute_features
from trainers.similarity import probe_images
from trainers.teachers import TeacherConfig, Trained, train_teacher


@pytest.fixture
def mapped(tasks: dict[str, Task], tmp_path: Path) -> Task:
    """The first task, its images in files."""
    task = tasks["a"]
    return replace(
        task,
        splits={
            name: mapped_split(
                tmp_path / f"{name}.npy",
                split.labels,
                8,
                lambda put, s=split: put(s.images.numpy()),
            )
            for name, split in task.splits.items()
        },
    )


def test_teachers_features_and_measurements_are_the_same(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained], mapped: Task
) -> None:
    task, teacher = tasks["a"], teachers["a"]
    again = train_teacher(BACKBONE, trunk, mapped, TeacherConfig(sgd=SGD), seed=0, compute=COMPUTE)
    assert again.accuracy == teacher.accuracy
    assert all(torch.equal(again.state[name], value) for name, value in teacher.state.items())
    network = Whole(BUILT, teacher.state, torch.device("cpu")).eval()
    for split in ("validation", "test"):
        assert accuracy(network, mapped, 16, split) == accuracy(network, task, 16, split)
    found, wanted = (
        compute_features(BACKBONE, teacher, each, images=50, seed=1, compute=COMPUTE)
        for each in (mapped, task)
    )
    assert np.array_equal(found.inputs, wanted.inputs)
    assert np.array_equal(found.validation, wanted.validation)
    assert all(map(np.array_equal, found.targets, wanted.targets))
    assert torch.equal(probe_images([mapped]), probe_images([task]))
    halves = [for_training({"a": each})["a"].splits["validation"] for each in (mapped, task)]
    assert halves[0].path is not None
    assert torch.equal(halves[0].images, halves[1].images)
    assert torch.equal(halves[0].labels, halves[1].labels)


def test_accuracy_is_that_of_every_image_once(mapped: Task) -> None:
    network = Whole(BUILT, BUILT.initial(2, 3), torch.device("cpu")).eval()
    split = mapped.splits["validation"]
    labels = network(normalise(split.images, mapped)).argmax(dim=1)
    odd = replace(split, labels=torch.where(torch.arange(len(split)) % 3 == 1, 1 - labels, labels))
    wrong = replace(mapped, splits={"validation": odd})
    assert accuracy(network, wrong, 7) == pytest.approx(2 / 3)


def test_images_are_had_from_their_split() -> None:
    """A row of mapped images is not where its label is: `Split.batch` and `take` bring it there."""
    for name, tree in FILES.items():
        if name.startswith("trainers/data/"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) or (
                isinstance(node, ast.Attribute) and node.attr in ("to", "cpu", "cuda")
            ):
                inner = node.value
                past = isinstance(inner, ast.Attribute) and inner.attr == "images"
                assert not past, f"{name}, line {node.lineno}"
