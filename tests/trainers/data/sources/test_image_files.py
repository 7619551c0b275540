"""Images in folders and in arrays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.sources import (
    NAMES,
    SIZE,
    SPLITS,
    config_of,
    load,
    make_folder,
    make_npz,
    pictures,
    refused,
)
from trainers.data import TaskConfig, check_tasks, load_task
from trainers.data.sources import DataError


def test_folder_takes_images_only(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    train = tmp_path / "animals" / "train"
    (train / "cat" / "notes.txt").write_text("not an image")
    (train / "empty").mkdir()
    (train / ".thumbnails").mkdir()
    (train / ".thumbnails" / "0.png").write_bytes(b"not an image")
    Image.fromarray(pictures("train")[0][0]).save(train / "cat" / "9.JPEG")
    loaded = load(task, tmp_path)
    assert loaded.classes == NAMES
    assert len(loaded.splits["train"]) == SPLITS["train"] + 1


def test_folder_class_unknown_to_training_is_refused(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    (tmp_path / "animals" / "validation" / "cat").rename(
        tmp_path / "animals" / "validation" / "cats"
    )
    message = refused(task, tmp_path)
    assert "cats does not; its classes are bird, cat" in message


def test_folder_names_the_file_that_cannot_be_decoded(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    (tmp_path / "animals" / "train" / "cat" / "001.png").write_bytes(b"no image")
    check_tasks(config_of(task, tmp_path))
    with pytest.raises(DataError, match=r"'animals': .*cat/001\.png cannot be decoded"):
        load_task(task, config_of(task, tmp_path))


@pytest.mark.parametrize("channels", [(), (1,)])
def test_npz_gray_images_become_rgb(channels: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("val", "train"):
        gray = rng.integers(0, 256, (4, SIZE, SIZE)).astype(np.uint8)
        arrays[f"{split}_images"] = gray.reshape(*gray.shape, *channels)
        arrays[f"{split}_labels"] = np.array([0, 1, 1, 0])
    np.savez(tmp_path / "gray.npz", **arrays)
    task = load(TaskConfig(name="g", source="npz", path="gray.npz", test=None), tmp_path)
    expected = torch.from_numpy(gray)[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(task.splits["train"].images, expected)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("train_images", np.zeros((6, 8, 8), np.complex64), "must be numbers"),
        ("train_images", np.zeros((6, 8, 8, 4), np.uint8), r"\(6, 8, 8, 4\)"),
        ("train_images", np.zeros((5, 8, 8), np.uint8), "each of the 5 images"),
        ("train_labels", np.zeros((6, 14), np.int64), r"\(6, 14\)"),
        ("train_labels", np.full(6, 0.5), "row 0 has 0.5 .float64"),
        ("train_labels", np.array([{}] * 6), "cannot be read as plain arrays"),
    ],
)
def test_npz_arrays_of_another_kind_are_refused(
    key: str, array: np.ndarray, message: str, tmp_path: Path
) -> None:
    task = make_npz(tmp_path)
    with np.load(tmp_path / "animals.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "animals.npz", **arrays | {key: array})
    with pytest.raises(DataError, match=message):
        raise DataError(refused(task, tmp_path))


def test_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    task = make_npz(tmp_path)
    whole = (tmp_path / "animals.npz").read_bytes()
    with (tmp_path / "animals.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert "must be an npz file" in refused(task, tmp_path)
    damaged = whole.replace(b"NUMPY", b"NUMBY")
    (tmp_path / "animals.npz").write_bytes(damaged)
    assert "cannot be read as plain arrays" in refused(task, tmp_path)
