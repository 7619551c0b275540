"""Every kind of image becomes a square of RGB."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.sources import SIZE, load, make_folder
from trainers.data.sources.pixels import to_rgb, to_square


def palette() -> Image.Image:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return image


def transparent_palette() -> Image.Image:
    image = palette()
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("LA", (2, 2), (77, 255)), (77, 77, 77)),
        (Image.new("LA", (2, 2), (77, 0)), (255, 255, 255)),
        (palette(), (10, 200, 30)),
        (transparent_palette(), (255, 255, 255)),
        (Image.new("RGB", (2, 2), (10, 200, 30)), (10, 200, 30)),
        (Image.new("RGBA", (2, 2), (10, 200, 30, 255)), (10, 200, 30)),
        (Image.new("RGBA", (2, 2), (10, 200, 30, 0)), (255, 255, 255)),
        (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_mode_becomes_rgb(image: Image.Image, expected: tuple[int, int, int]) -> None:
    converted = to_rgb(image)
    assert converted.mode == "RGB"
    assert converted.getpixel((1, 1)) == expected


def test_sixteen_bits_and_orientation_survive_the_file(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    for file in (tmp_path / "animals" / "train").glob("*/*"):
        file.unlink()
    deep = np.zeros((SIZE, SIZE), np.uint16)
    deep[: SIZE // 2] = 40000
    turned = Image.fromarray(np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(deep).save(tmp_path / "animals" / "train" / "bird" / "0.png")
    turned.save(tmp_path / "animals" / "train" / "cat" / "0.png", exif=exif)
    bird, cat = load(task, tmp_path).splits["train"].images
    assert torch.equal(bird[0, :, 0], torch.tensor([156] * 4 + [0] * 4, dtype=torch.uint8))
    assert torch.equal(cat, bird.flip(1))


@pytest.mark.parametrize("wide", [True, False])
def test_square_keeps_the_centre_and_the_proportions(wide: bool) -> None:
    bands = np.zeros((32, 96, 3), np.uint8)
    bands[:, 32:64] = (200, 100, 50)
    bands[8:24, 40:56] = (0, 0, 255)
    square = to_square(
        Image.fromarray(bands if wide else bands.transpose(1, 0, 2).copy()), 16
    ).transpose(1, 2, 0)
    # A pixel beside each edge may mix with what the antialiasing filter sees.
    assert (square[2, 2:-2] == (200, 100, 50)).all()
    assert (square[2:-2, 2] == (200, 100, 50)).all()
    assert (square[5:11, 5:11] == (0, 0, 255)).all()


def test_square_is_antialiased() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    square = to_square(Image.fromarray(checks).convert("RGB"), 8)
    assert np.abs(square.astype(int) - 127).max() <= 3
