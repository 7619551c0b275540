"""How images are given to a network: resized and normalised as it was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.sources import encode
from tests.trainers.data.test_images import noise_task
from trainers.data import DataConfig, Inputs, Task, TaskConfig, load_task, normalise
from trainers.data.sources.pixels import INTERPOLATIONS

SIZE = 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (0.5, 0.5)}, r"inputs\.mean must be three numbers .*, each in \[0, 1\], or null"),
        ({"mean": (123.7, 116.3, 103.5)}, r"got \[123\.7, 116\.3, 103\.5\]"),
        ({"std": (0.2, 0.0, 0.2)}, r"inputs\.std must be three numbers .*, each positive"),
        ({"std": (0.2, float("nan"), 0.2)}, "each positive and finite"),
        ({"interpolation": "bicubik"}, "must be one of nearest, .*; did you mean 'bicubic'"),
    ],
)
def test_inputs_are_checked(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Inputs(**fields)


def load(top: Path, **inputs: object) -> Task:
    """A task of noise in files larger than the input size: class a of 16 bits, class b of 8."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for index in range(4):
            file = top / "t" / split / "ab"[index % 2] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            deep = rng.integers(0, 65536, (20, 24)).astype(np.uint16)
            plain = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            file.write_bytes(encode(plain if index % 2 else Image.fromarray(deep)))
    task = TaskConfig(name="t", source="folder", test=None)
    return load_task(
        task,
        DataConfig(tasks=(task,), root=str(top), input_size=SIZE, inputs=Inputs(**inputs)),
    )


def test_every_interpolation_gives_other_pixels(tmp_path: Path) -> None:
    assert {"nearest", "bilinear", "bicubic", "lanczos"} <= set(INTERPOLATIONS)
    found = {name: load(tmp_path, interpolation=name) for name in INTERPOLATIONS}
    for half in (slice(0, 2), slice(2, 4)):  # rows go by class
        images = {name: task.splits["train"].images[half] for name, task in found.items()}
        assert len({pixels.numpy().tobytes() for pixels in images.values()}) == len(INTERPOLATIONS)
    assert len({task.fingerprint() for task in found.values()}) == len(INTERPOLATIONS)
    assert found["bilinear"].fingerprint() == load(tmp_path).fingerprint()


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_what_overshoots_is_clipped(name: str, tmp_path: Path) -> None:
    """At an edge from black to white bicubic and Lanczos give less than black, more than white."""
    edge = np.zeros((24, 24), np.uint16)
    edge[:, 13:] = 65535
    for split in ("train", "validation"):
        for index in range(2):
            file = tmp_path / "t" / split / "ab"[index] / "0.png"
            file.parent.mkdir(parents=True)
            turned = np.rot90(edge, index + 2 * (split == "train"))
            file.write_bytes(encode(Image.fromarray(np.ascontiguousarray(turned))))
    task = TaskConfig(name="t", source="folder", test=None)
    inputs = Inputs(interpolation=name)
    config = DataConfig(tasks=(task,), root=str(tmp_path), input_size=SIZE, inputs=inputs)
    row = load_task(task, config).splits["validation"].images[0, 0, 3].int()
    assert (row.diff() >= 0).all() or name in ("bicubic", "lanczos")
    assert row[:3].max() < 32
    assert row[5:].min() > 223


def test_given_mean_and_deviation_are_used(tmp_path: Path) -> None:
    measured, both = load(tmp_path), load(tmp_path, mean=MEAN, std=STD)
    assert both.mean.tolist() == pytest.approx(MEAN)
    assert both.std.tolist() == pytest.approx(STD)
    white = torch.full((1, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    assert normalise(white, both)[0, :, 0, 0].tolist() == pytest.approx(
        [(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    )
    alone = load(tmp_path, mean=(0, 0, 0))
    assert alone.mean.tolist() == [0, 0, 0]
    assert alone.mean.dtype == torch.float32
    assert torch.equal(alone.std, measured.std)
    assert not torch.equal(alone.std, both.std)


def test_given_mean_and_deviation_are_in_the_fingerprint_and_measured_ones_are_not() -> None:
    tasks = [
        noise_task(),
        noise_task(inputs=Inputs(mean=MEAN)),
        noise_task(inputs=Inputs(std=MEAN)),
        noise_task(inputs=Inputs(mean=MEAN, std=STD)),
    ]
    assert len({task.fingerprint() for task in tasks}) == len(tasks)
    # As it was before there were inputs: studies find their teachers by it.
    assert noise_task().fingerprint() == (
        "a2e02ce4942df7e228bf888c83ecf23a2607d2be175f9cf2921e54b10eecbc4f"
    )
