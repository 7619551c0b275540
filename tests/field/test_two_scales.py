"""Images on two scales in one dataset came out black where they had the smaller one, unsaid."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.sources import SIZE
from trainers.data import DataConfig, Task, TaskConfig, load_task

#: Of every class in every split.
EACH = 8


def load(top: Path, kind: str, tops: dict[str, np.ndarray], **fields: object) -> Task:
    """A task of two classes in turns, images of noise whose brightest pixels are given."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, highs in tops.items():
        noise = rng.random((len(highs), SIZE, SIZE))
        noise /= noise.max(axis=(1, 2), keepdims=True)
        values = noise * np.reshape(highs, (-1, 1, 1))
        arrays[f"{split}_images"] = values.astype(kind)
        arrays[f"{split}_labels"] = np.array(["a", "b"])[np.arange(len(highs)) % 2]
    np.savez(top / "t.npz", **arrays)
    task = TaskConfig(name="t", source="npz", test=None, **fields)  # type: ignore[arg-type]
    return load_task(task, DataConfig(tasks=(task,), root=str(top), input_size=SIZE))


def said(top: Path, kind: str, train: object, val: object, **fields: object) -> str:
    shape = (2 * EACH,)
    tops = {
        name: np.resize(np.asarray(highs, dtype=float), shape)
        for name, highs in (("train", train), ("val", val))
    }
    return load(top, kind, tops, **fields).summary()


def test_a_class_on_a_smaller_scale_is_told(tmp_path: Path) -> None:
    found = said(tmp_path, "uint16", [65535, 2000], [65535, 2000])
    for split in ("train", "validation"):
        assert (
            f"{split}: 1 of the classes reach only little (b 2000 (8 of 255)), others 65535 of "
            "uint16 values; store all alike, or set white if they are"
        ) in found


@pytest.mark.parametrize("part", [4, 8, 10])
def test_a_split_on_a_smaller_scale_is_told(part: float, tmp_path: Path) -> None:
    found = said(tmp_path, "float32", 10 / part, 10)
    assert f"train reaches only {10 / part:g} (" in found
    assert "validation 10 of float32 values" in found
    found = said(tmp_path, "float32", 10, 10 / part)
    assert f"validation reaches only {10 / part:g} (" in found


def test_images_of_every_class_on_a_smaller_scale_are_told(tmp_path: Path) -> None:
    mixed = np.where(np.arange(2 * EACH) % 4 < 2, 255.0, 1.0)
    found = said(tmp_path, "float32", mixed, mixed)
    assert "train: 8 of 16 images reach only 1 (1 of 255), the others 255 and more" in found


def test_numbers_with_a_sign_are_looked_at_too(tmp_path: Path) -> None:
    found = said(tmp_path, "float32", [-100, -1], [-100, -1])
    assert "train: 1 of the classes reach only little (b 1 (" in found


@pytest.mark.parametrize(
    ("kind", "train", "fields"),
    [
        ("uint8", [255, 8], {}),
        ("uint8", [20, 255], {}),
        ("uint16", [65535, 9000], {}),
        ("uint16", [4095, 800, 4095, 600], {}),
        ("float32", [1, 0.2], {}),
        ("float32", np.geomspace(1, 300, 2 * EACH), {}),
        ("uint16", [65535, 2000], {"white": 65535}),
        ("uint16", [60000] * (2 * EACH - 2) + [500, 500], {}),
    ],
)
def test_darker_pictures_alone_are_not_told(
    kind: str, train: object, fields: dict[str, object], tmp_path: Path
) -> None:
    assert "store all alike" not in said(tmp_path, kind, train, train, **fields)


def test_black_pictures_say_nothing_of_scale(tmp_path: Path) -> None:
    assert "store all alike" not in said(tmp_path, "uint16", [65535, 65535, 0], [65535, 65535, 0])
