"""Every toy task: seeded, balanced, without leaks, and learnable from more than raw pixels."""

import time

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from torch import nn

from trainers.data import DataConfig, TaskConfig, check_tasks, load_tasks
from trainers.data.sources import DataError
from trainers.data.toy import SPLITS, TOYS, draw_images, draw_labels

DRAWN = [name for name, toy in TOYS.items() if toy.draw is not None]


def split_bytes(name: str, split: str, *, seed: int = 0, size: int = 16) -> list[bytes]:
    return [image.tobytes() for image in draw_images(name, split, seed=seed, size=size)]


def test_there_are_enough_tasks_and_one_is_of_real_images() -> None:
    assert len(TOYS) >= 6
    assert set(TOYS) - set(DRAWN) == {"digits"}
    assert all(6 <= len(toy.classes) <= 10 for toy in TOYS.values())
    assert all(len(set(toy.classes)) == len(toy.classes) for toy in TOYS.values())


@pytest.mark.parametrize("name", TOYS)
def test_the_same_seed_draws_the_same_bytes(name: str) -> None:
    first, again, other = (split_bytes(name, "validation", seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert np.array_equal(
        draw_labels(name, "validation", seed=0), draw_labels(name, "validation", seed=0)
    )
    if name in DRAWN:
        assert not set(first) & set(other)
    else:
        assert first == other  # real images are what they are


@pytest.mark.parametrize("name", TOYS)
def test_no_image_is_in_two_splits(name: str) -> None:
    images = [image for split in SPLITS for image in split_bytes(name, split)]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("name", TOYS)
def test_labels_are_balanced_and_shuffled(name: str) -> None:
    for split, size in SPLITS.items():
        labels = draw_labels(name, split, seed=0)
        counts = np.bincount(labels)
        assert len(counts) == len(TOYS[name].classes)
        if name in DRAWN:
            assert len(labels) == size
            assert counts.max() - counts.min() <= 1
        assert np.abs(np.diff(labels)).mean() > 1  # neither sorted nor cyclic
        assert len(set(np.diff(labels).tolist())) > 3


def test_digits_are_cut_into_all_1797() -> None:
    sizes = {split: len(draw_labels("digits", split, seed=0)) for split in SPLITS}
    assert sizes == {"train": 1100, "validation": 350, "test": 347}
    images, labels = load_digits(return_X_y=True)
    cut = [draw_images("digits", split, seed=0, size=8)[..., 0] for split in SPLITS]
    np.testing.assert_array_equal(
        np.concatenate(cut), (images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    )
    cut = [draw_labels("digits", split, seed=0) for split in SPLITS]
    np.testing.assert_array_equal(np.concatenate(cut), labels)


@pytest.mark.parametrize("size", [8, 17, 40])
@pytest.mark.parametrize("name", TOYS)
def test_any_size_can_be_drawn(name: str, size: int) -> None:
    images = draw_images(name, "test", seed=0, size=size)
    assert images.shape[1:] == (size, size, 3)
    assert images.dtype == np.uint8
    assert images.std(axis=(1, 2)).mean() > 5


def test_drawing_is_quick() -> None:
    for name in TOYS:
        start = time.process_time()
        draw_images(name, "train", seed=0, size=32)
        # About 0.3 s at most on one core; the rest is for busy machines.
        assert time.process_time() - start < 3, name


def random_features(images: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) -> energies (N, 512) of random filters, in each quarter of the image."""
    filters = torch.randn(32, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    filters = nn.functional.avg_pool2d(filters, 3, 1, 1)
    filters -= filters.mean(dim=(2, 3), keepdim=True)
    # (N, 3, S, S)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    response = nn.functional.conv2d(pixels - pixels.mean(dim=(2, 3), keepdim=True), filters)
    response = torch.cat([response.relu(), (-response).relu()], dim=1)
    pooled = [nn.functional.adaptive_avg_pool2d(x, 2) for x in (response, response.square())]
    return torch.cat(pooled, dim=1).sqrt().flatten(1).numpy()


def probe(name: str) -> tuple[float, float]:
    """Validation accuracy of a linear classifier on pixels, and on random filters' energies."""
    images = {split: draw_images(name, split, seed=0, size=32) for split in ("train", "validation")}
    labels = {split: draw_labels(name, split, seed=0) for split in images}
    accuracies = []
    for features in (lambda x: x[:, ::2, ::2].reshape(len(x), -1) / 255, random_features):
        values = {split: features(x) for split, x in images.items()}
        mean, std = values["train"].mean(axis=0), values["train"].std(axis=0) + 1e-6
        linear = RidgeClassifier(alpha=100).fit((values["train"] - mean) / std, labels["train"])
        score = linear.score((values["validation"] - mean) / std, labels["validation"])
        accuracies.append(float(score))
    return accuracies[0], accuracies[1]


# With 400 validation images and 8 classes chance is .125 +- .017: .25 is beyond any luck.
@pytest.mark.parametrize("name", TOYS)
def test_labels_can_be_told_from_the_images_but_not_by_colour_and_place_alone(name: str) -> None:
    pixels, energies = probe(name)
    assert energies > 0.25
    if name not in ("digits", "colours", "glyphs"):
        assert pixels < energies
    assert pixels < 0.97


def test_toys_load_as_tasks() -> None:
    tasks = (TaskConfig(name="writing", source="toy", path="glyphs", limit=100),)
    tasks += tuple(TaskConfig(name=name, source="toy") for name in ("colours", "digits"))
    config = DataConfig(tasks=tasks, input_size=16)
    check_tasks(config)
    loaded = load_tasks(config)
    assert loaded["writing"].classes == TOYS["glyphs"].classes
    assert len(loaded["writing"].splits["train"]) == 100
    colours = loaded["colours"]
    expected = draw_images("colours", "test", seed=0, size=16).transpose(0, 3, 1, 2)
    assert np.array_equal(colours.splits["test"].images.numpy(), expected)
    assert np.array_equal(
        colours.splits["test"].labels.numpy(), draw_labels("colours", "test", seed=0)
    )
    other = load_tasks(DataConfig(tasks=tasks, input_size=16, seed=1))
    assert other["colours"].fingerprint() != colours.fingerprint()


def test_unknown_toys_and_splits_are_refused() -> None:
    def check(**fields: str) -> None:
        check_tasks(DataConfig(tasks=(TaskConfig(source="toy", **fields),)))

    with pytest.raises(DataError, match=r"'shape': .* got 'shape'; did you mean 'shapes'"):
        check(name="shape")
    with pytest.raises(DataError, match=r"'shapes': .* train, validation, test, got 'val'"):
        check(name="shapes", validation="val")
