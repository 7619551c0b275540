"""Images as tensors: moments, augmentation, batches and fingerprints."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.parquet_tasks import SIZE, load, write_task
from trainers.data import (
    DataConfig,
    Split,
    Task,
    TaskConfig,
    augment,
    draw_batch,
    load_tasks,
    normalise,
)


def noise_task(count: int = 64, size: int = 9, **fields: object) -> Task:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(count) % 2)
    mean, std = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.3, 0.2])
    settings = {"name": "noise", "classes": ("a", "b"), "mean": mean, "std": std}
    return Task(splits={"train": split, "validation": split}, **settings | fields)


def test_normalised_training_images_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    write_task(tmp_path, train=[0, 1] * 100, validation=[0, 1])
    task = load(tmp_path)
    images = normalise(task.splits["train"].images, task)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    deviation = images.square().mean(dim=(0, 2, 3)).sqrt()
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-4, rtol=0)


def test_moments_do_not_depend_on_chunks_and_a_constant_image_stays_finite(tmp_path: Path) -> None:
    train = np.full((1500, 8, 8), 51, np.uint8)
    train[0, 0, 0] = 52  # a task whose images are all alike is refused
    np.savez(
        tmp_path / "animals.npz",
        train_images=train,
        train_labels=np.arange(1500) % 2,
        val_images=np.stack([np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)]),
        val_labels=np.arange(2),
    )
    task = load(tmp_path, source="npz")
    torch.testing.assert_close(task.mean, torch.full((3,), 0.2), atol=1e-6, rtol=0)
    assert normalise(task.splits["train"].images[1:], task).abs().max() < 1e-2
    assert normalise(task.splits["validation"].images, task).isfinite().all()


def one_by_one(image: torch.Tensor, mirrored: bool, down: int, right: int) -> torch.Tensor:
    """What augmenting does to one normalised image (3, S, S), pixel by pixel."""
    image = image.flip(2) if mirrored else image
    moved = torch.zeros_like(image)
    size = image.shape[1]
    for row in range(size):
        for column in range(size):
            if 0 <= row - down < size and 0 <= column - right < size:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


@pytest.mark.parametrize(("flip", "shift"), [(False, 0), (True, 0), (False, 1), (True, 1)])
def test_augment_draws_every_variant_of_each_image_and_nothing_else(flip: bool, shift: int) -> None:
    task = noise_task(count=6, flip=flip, shift=shift)
    images = task.splits["train"].images
    plain = normalise(images, task)
    generator = torch.Generator().manual_seed(1)
    steps = range(-shift, shift + 1)
    variants = [
        torch.stack([one_by_one(image, mirrored, down, right) for image in plain])
        for mirrored in ([False, True] if flip else [False])
        for down in steps
        for right in steps
    ]
    seen, alike = torch.zeros(len(variants)), 0
    for _ in range(60):
        out = augment(images, task, generator)
        assert out.dtype == torch.float32
        same = torch.stack([(out == variant).flatten(1).all(dim=1) for variant in variants])
        assert (same.sum(dim=0) == 1).all()  # each image is just one of its own variants
        seen += same.sum(dim=1)
        alike += int(same.all(dim=1).any())
    # 360 draws over at most 18 variants: 20 each, deviation below 4.4 (50 % +- 9.5 for two).
    expected = 360 / len(variants)
    deviation = (expected * (1 - 1 / len(variants))) ** 0.5
    assert ((seen - expected).abs() <= 4.5 * deviation).all()
    # Six coins fall alike in 2 batches of 60; that images are varied each by itself, not together.
    assert len(variants) == 1 or alike < 15


def test_augment_follows_its_generator_and_leaves_the_images_alone() -> None:
    task = noise_task(flip=True, shift=2)
    images = task.splits["train"].images
    before = images.clone()
    first, again, other = (
        augment(images, task, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
    state = torch.random.get_rng_state()
    augment(images, task, torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_batches_are_uniform_and_keep_images_with_their_labels() -> None:
    task = noise_task(count=5)
    split = Split(images=task.splits["train"].images, labels=torch.arange(5))
    images, labels = draw_batch(split, 1000, torch.Generator().manual_seed(0))
    assert torch.equal(images, split.images[labels])
    assert (labels.bincount() - 200).abs().max() < 4.5 * (1000 * 0.2 * 0.8) ** 0.5
    again = draw_batch(split, 1000, torch.Generator().manual_seed(0))[1]
    assert torch.equal(labels, again)


def test_to_moves_every_tensor() -> None:
    task = noise_task().to("meta")
    tensors = [task.mean, task.std]
    for split in task.splits.values():
        tensors += [split.images, split.labels]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.gpu
def test_batches_are_drawn_and_augmented_on_the_device() -> None:
    task = noise_task(flip=True, shift=2).to("cuda")
    images, labels = draw_batch(task.splits["train"], 16, torch.Generator("cuda").manual_seed(0))
    assert images.is_cuda
    assert labels.is_cuda
    out = augment(images, task, torch.Generator("cuda").manual_seed(0))
    assert out.is_cuda
    assert out.shape == images.shape
    assert task.fingerprint() == task.to("cpu").fingerprint()


def test_fingerprint_changes_with_all_that_matters_and_nothing_else() -> None:
    task = noise_task()
    train = task.splits["train"]
    images, labels = train.images.clone(), train.labels.clone()
    images[3, 2, 1, 0] += 1
    labels[5] = 1 - labels[5]
    changed = [
        task,
        dataclasses.replace(task, name="other"),
        dataclasses.replace(task, classes=("a", "c")),
        dataclasses.replace(task, flip=True),
        dataclasses.replace(task, shift=1),
        dataclasses.replace(task, splits={"train": train}),
        dataclasses.replace(task, splits=task.splits | {"test": train}),
        dataclasses.replace(
            task, splits=task.splits | {"train": Split(images=images, labels=train.labels)}
        ),
        dataclasses.replace(
            task, splits=task.splits | {"train": Split(images=train.images, labels=labels)}
        ),
    ]
    assert len({one.fingerprint() for one in changed}) == len(changed)
    assert noise_task().fingerprint() == task.fingerprint()
    strided = Split(images=train.images.flip(0).flip(0).mT.contiguous().mT, labels=train.labels)
    reordered = {"validation": task.splits["validation"], "train": strided}
    assert dataclasses.replace(task, splits=reordered).fingerprint() == task.fingerprint()


def test_tasks_keep_their_order_and_do_not_depend_on_each_other(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_task(tmp_path, name=name, train=[0, 1] * 50, validation=[0, 1])
    tasks = tuple(TaskConfig(name=name, test=None, limit=30) for name in ("b", "a"))
    both = load_tasks(DataConfig(tasks=tasks, root=str(tmp_path), input_size=SIZE))
    assert list(both) == ["b", "a"]
    alone = load_tasks(DataConfig(tasks=tasks[1:], root=str(tmp_path), input_size=SIZE))
    assert alone["a"].fingerprint() == both["a"].fingerprint()
