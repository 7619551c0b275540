"""Drawing many images at once: coordinates, colours, noise and paint, all as arrays.

Legend: N images, S the input size. Coordinates run from -1 to 1 along each axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Array:
    """Numbers of a shape, uniform in [low, high)."""
    return rng.random(shape, dtype=np.float32) * np.float32(high - low) + np.float32(low)


def grid(size: int) -> tuple[Array, Array]:
    """Coordinates x (1, 1, S) and y (1, S, 1) of the pixels' centres."""
    ticks = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    return ticks[None, None, :], ticks[None, :, None]


def posed(size: int, centre: Array, angle: Array, scale: Array) -> tuple[Array, Array]:
    """Pixels' coordinates (N, S, S) in frames with centre (N, 2), angle (N,) and scale (N,)."""
    x, y = grid(size)
    x, y = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    cos, sin = (np.cos(angle) / scale)[:, None, None], (np.sin(angle) / scale)[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def dark_and_bright(rng: np.random.Generator, count: int, contrast: float) -> tuple[Array, Array]:
    """Two colours (N, 1, 1, 3), the second at least `contrast` brighter in every channel."""
    dark = uniform(rng, 0, 1 - contrast, count, 1, 1, 3)
    return dark, dark + contrast + uniform(rng, 0, 1, count, 1, 1, 3) * (1 - contrast - dark)


def colour_pair(rng: np.random.Generator, count: int, contrast: float) -> tuple[Array, Array]:
    """Two colours (N, 1, 1, 3) at least `contrast` apart in every channel, in either direction."""
    low, high = dark_and_bright(rng, count, contrast)
    swap = rng.random((count, 1, 1, 3)) < 0.5
    return np.where(swap, high, low), np.where(swap, low, high)


def smooth_noise(rng: np.random.Generator, count: int, cells: int, size: int) -> Array:
    """Noise (N, S, S, 3) of unit variance at its nodes, linear between `cells` + 1 nodes a side."""
    nodes = rng.standard_normal((count, cells + 1, cells + 1, 3), dtype=np.float32)
    place = np.linspace(0, cells, size, dtype=np.float32)[:, None]
    weight = np.maximum(0, 1 - np.abs(place - np.arange(cells + 1, dtype=np.float32)))  # (S, cells)
    rows: Array = np.einsum("si,nijc->nsjc", weight, nodes, optimize=True)
    noise: Array = np.einsum("sj,nrjc->nrsc", weight, rows, optimize=True)
    return noise


def blend(images: Array, colour: Array, cover: Array) -> Array:
    """Paints a colour (N, 1, 1, 3) where cover (N, S, S) is 1."""
    return images + cover[..., None] * (colour - images)


def clutter(rng: np.random.Generator, images: Array, number: int) -> Array:
    """Paints `number` small bars of any colour over every image."""
    count, size = images.shape[:2]
    for _ in range(number):
        u, v = posed(
            size,
            centre=uniform(rng, -1, 1, count, 2),
            angle=uniform(rng, 0, np.pi, count),
            scale=uniform(rng, 0.08, 0.2, count),
        )
        inside = cover(np.minimum(1 - np.abs(u), 0.4 - np.abs(v)), 0.14, size)
        images = blend(images, uniform(rng, 0, 1, count, 1, 1, 3), inside)
    return images


def cover(depth: Array, scale: Array | float, size: int) -> Array:
    """Depth inside a shape, in units of its scale -> cover in [0, 1], antialiased over a pixel."""
    pixels = depth * (np.asarray(scale, dtype=np.float32) * (size / 2))
    return (pixels + 0.5).clip(0, 1)


def noisy(rng: np.random.Generator, images: Array, deviation: float) -> Array:
    """Adds noise of one deviation to every pixel and channel."""
    return images + np.float32(deviation) * rng.standard_normal(images.shape, dtype=np.float32)
