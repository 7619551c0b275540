"""Images of any mode, size and encoding -> uint8 RGB squares."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from trainers.data.sources.base import ByteArray, DataError

# Named, since Pillow's other readers include one that runs the file through Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB.

    16-bit gray keeps its high byte, what is transparent shows white behind it, and the orientation
    that a camera noted in EXIF is applied.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # convert() clips at 255, which leaves almost only white
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_square(image: Image.Image, size: int) -> ByteArray:
    """Resizes the shorter side to `size` pixels, antialiased, and keeps the centre.

    Args:
        image: an RGB image.
        size: S.

    Returns:
        uint8 (3, S, S).
    """
    width, height = image.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize(
            (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
        )
    return np.asarray(image).transpose(2, 0, 1)


def decode(
    items: Iterable[tuple[str, bytes | Path | ByteArray | None]], count: int, size: int
) -> ByteArray:
    """Decodes images one after another.

    Args:
        items: (where, image) pairs; the image encoded in bytes, or in a file, or as a uint8 array
            (H, W) or (H, W, 3); None where the source has none, which is an error.
        count: number of items.
        size: S.

    Returns:
        uint8 (count, 3, S, S).

    Raises:
        DataError: saying where, when an image cannot be decoded.
    """
    pixels = np.empty((count, 3, size, size), dtype=np.uint8)
    for index, (where, item) in enumerate(items):
        try:
            if item is None:
                raise ValueError("there is no image")
            if isinstance(item, np.ndarray):
                pixels[index] = to_square(to_rgb(Image.fromarray(item)), size)
                continue
            file = io.BytesIO(item) if isinstance(item, bytes) else item
            with Image.open(file, formats=FORMATS) as image:
                pixels[index] = to_square(to_rgb(image), size)
        # Pillow raises whatever a damaged file leads it into: OSError, SyntaxError, struct.error.
        except Exception as error:
            raise DataError(f"{where} cannot be decoded as an image: {error}") from error
    return pixels
