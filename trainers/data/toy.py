"""Toy tasks that need no download: scanned digits, and image domains drawn here.

The drawn tasks look at different things (outline, orientation, hue, number, texture, strokes) and
differ in difficulty, so that they need unlike amounts of a network and gain unlike amounts from
sharing it. Every image has its own colours, clutter and noise; what is not the label is a nuisance.

Legend: N images, S the input size. Coordinates run from -1 to 1 along each axis.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainers.data.drawing import (
    Array,
    blend,
    clutter,
    colour_pair,
    cover,
    dark_and_bright,
    grid,
    noisy,
    posed,
    smooth_noise,
    uniform,
)

Labels = NDArray[np.int64]

SPLITS: Mapping[str, int] = {"train": 1200, "validation": 400, "test": 400}

# Consecutive scans are of one hand: unshuffled, a split has writers whom the others have not.
_DIGITS: Mapping[str, slice] = {
    "train": slice(0, 1100),
    "validation": slice(1100, 1450),
    "test": slice(1450, 1797),
}


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A toy task.

    Attributes:
        summary: one line for the help.
        classes: names of the classes.
        draw: (generator, labels (N,), S) -> float32 (N, S, S, 3) in about [0, 1]; None for the
            digits, which are not drawn.
    """

    summary: str
    classes: tuple[str, ...]
    draw: Callable[[np.random.Generator, Labels, int], Array] | None


def draw_labels(name: str, split: str, *, seed: int) -> Labels:
    """Labels of a split, every class equally often (give or take one) but for the digits.

    Args:
        name: key of `TOYS`.
        split: key of `SPLITS`.
        seed: decides the order; the digits have their own.

    Returns:
        int64 (N,).
    """
    if TOYS[name].draw is None:
        return _digits()[1][_DIGITS[split]]
    balanced = np.arange(SPLITS[split]) % len(TOYS[name].classes)
    return _generator(name, split, seed, "labels").permutation(balanced)


def draw_images(name: str, split: str, *, seed: int, size: int) -> NDArray[np.uint8]:
    """Images of a split, in the order of `draw_labels`.

    Args:
        name: key of `TOYS`.
        split: key of `SPLITS`.
        seed: decides everything but the digits, which are real.
        size: S.

    Returns:
        uint8 (N, S, S, 3); the same bytes for the same arguments.
    """
    draw = TOYS[name].draw
    if draw is None:
        return _scanned(_digits()[0][_DIGITS[split]], size)
    labels = draw_labels(name, split, seed=seed)
    images = draw(_generator(name, split, seed, "images"), labels, size)
    return (images.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _generator(name: str, split: str, seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, *f"{name}/{split}/{purpose}".encode()])


def _digits() -> tuple[NDArray[np.float64], Labels]:
    """All images (N, 8, 8) and labels; scikit-learn's file, read without its import of a second."""
    folder = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data")
    table = np.loadtxt(str(folder / "digits.csv.gz"), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def _scanned(images: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Scans (N, 8, 8) in [0, 16] -> uint8 (N, S, S, 3)."""
    gray = np.stack(
        [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
            for image in (images * (255 / 16)).astype(np.uint8)
        ]
    )
    return np.repeat(gray[..., None], 3, axis=3)


# ---------------------------------------------------------------------------- the drawn tasks

_SHAPES = ("disc", "triangle", "square", "hexagon", "star", "cross", "ring", "crescent")


def _shape(kind: str, u: Array, v: Array) -> Array:
    """Depth inside a shape of radius 1 at (u, v), negative outside."""
    r = np.hypot(u, v)
    depth: Array
    if kind == "disc":
        depth = 0.85 - r
    elif kind == "ring":
        depth = np.minimum(0.95 - r, r - 0.5)
    elif kind == "crescent":
        depth = np.minimum(1 - r, np.hypot(u - 0.5, v) - 0.75)
    elif kind == "cross":
        a, b = np.abs(u), np.abs(v)
        depth = np.maximum(np.minimum(0.3 - a, 1 - b), np.minimum(0.3 - b, 1 - a))
    else:
        corners = {"triangle": 3, "square": 4, "hexagon": 6, "star": 5}[kind]
        half = np.pi / corners
        turn = np.abs(np.mod(np.arctan2(v, u), 2 * half) - half)  # from the middle of a side
        if kind == "star":
            depth = (0.4 + 0.6 * turn / half - r) * 0.7
        else:
            depth = np.cos(half) - r * np.cos(turn)
    return depth


def _draw_shapes(rng: np.random.Generator, labels: Labels, size: int) -> Array:
    """Filled outlines of any colour, place, size and angle among bars."""
    count = len(labels)
    ground, colour = colour_pair(rng, count, 0.3)
    images = clutter(rng, ground + 0.08 * smooth_noise(rng, count, 4, size), 2)
    scale = uniform(rng, 0.5, 0.75, count)
    u, v = posed(
        size,
        centre=uniform(rng, -0.25, 0.25, count, 2),
        angle=uniform(rng, 0, 2 * np.pi, count),
        scale=scale,
    )
    depth = np.empty_like(u)
    for label, kind in enumerate(_SHAPES):
        chosen = labels == label
        depth[chosen] = _shape(kind, u[chosen], v[chosen])
    images = blend(images, colour, cover(depth, scale[:, None, None], size))
    return noisy(rng, clutter(rng, images, 1), 0.05)


_ORIENTATIONS = 8


def _draw_gratings(rng: np.random.Generator, labels: Labels, size: int) -> Array:
    """A patch of stripes at one of eight angles, over fainter stripes at any angle."""
    count = len(labels)

    def stripes(angle: Array) -> Array:
        u, _ = posed(size, np.zeros((count, 2), np.float32), angle, np.ones(count, np.float32))
        frequency = uniform(rng, 1.5, 3.5, count, 1, 1)
        return np.sin(np.float32(2 * np.pi) * (frequency * u + uniform(rng, 0, 1, count, 1, 1)))

    jitter = rng.normal(0, np.deg2rad(6), count).astype(np.float32)
    signal = stripes(labels.astype(np.float32) * np.float32(np.pi / _ORIENTATIONS) + jitter)
    x, y = grid(size)
    centre = uniform(rng, -0.4, 0.4, count, 2)[:, :, None, None]
    window = np.exp(-((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2) / np.float32(0.5))
    other = stripes(uniform(rng, 0, np.pi, count))
    tint = uniform(rng, -1, 1, count, 1, 1, 3)
    tint /= np.linalg.norm(tint, axis=3, keepdims=True)
    strength = uniform(rng, 0.15, 0.4, count, 1, 1)
    pattern = strength * (window * signal + 0.4 * (1 - window) * other)
    images = uniform(rng, 0.3, 0.7, count, 1, 1, 3) + pattern[..., None] * tint
    return noisy(rng, images, 0.12)


_HUES = ("red", "orange", "lime", "green", "cyan", "azure", "violet", "pink")


def _draw_colours(rng: np.random.Generator, labels: Labels, size: int) -> Array:
    """A mosaic in which one of eight hues is the most frequent, under tinted light."""
    count, cells = len(labels), 6
    own = (labels / len(_HUES)).astype(np.float32)[:, None, None]
    is_own = rng.random((count, cells, cells)) < uniform(rng, 0.3, 0.6, count, 1, 1)
    hue = np.where(is_own, own, uniform(rng, 0, 1, count, cells, cells))
    hue = (hue + rng.normal(0, 0.03, hue.shape).astype(np.float32))[..., None]
    saturation = uniform(rng, 0.3, 1, count, cells, cells, 1)
    value = uniform(rng, 0.25, 1, count, cells, cells, 1)
    wheel = np.mod(hue * 6 + np.array([0, 4, 2], np.float32), 6)  # hue to RGB, (N, 6, 6, 3)
    rgb = value * (1 - saturation + saturation * np.clip(np.abs(wheel - 3) - 1, 0, 1))
    place = (np.arange(size) * cells) // size
    images = rgb[:, place][:, :, place] * uniform(rng, 0.75, 1.0, count, 1, 1, 3)
    return noisy(rng, images, 0.06)


_MOST_BLOBS = 7


def _draw_counting(rng: np.random.Generator, labels: Labels, size: int) -> Array:
    """One to seven bright blobs, and up to five dark ones that do not count, none overlapping."""
    count, side = len(labels), 4
    rank = rng.random((count, side * side)).argsort(axis=1).argsort(axis=1)
    bright = rank <= labels[:, None]  # label 0 is one blob
    shown = rank <= (labels + rng.integers(0, 6, count))[:, None]
    ground = uniform(rng, 0.3, 0.7, count, 1, 1, 3)
    images = ground + 0.08 * smooth_noise(rng, count, 3, size)
    x, y = grid(size)
    for cell in range(side * side):
        chosen = np.flatnonzero(shown[:, cell])
        radius = uniform(rng, 0.09, 0.22, len(chosen), 1, 1)
        room = 0.25 - radius
        column, row = cell % side, cell // side
        dx = x - ((column + 0.5) / 2 - 1 + room * uniform(rng, -1, 1, len(chosen), 1, 1))
        dy = y - ((row + 0.5) / 2 - 1 + room * uniform(rng, -1, 1, len(chosen), 1, 1))
        painted = cover(1 - np.hypot(dx, dy) / radius, radius, size)
        step = uniform(rng, 0.1, 0.3, len(chosen), 1, 1, 3)
        colour = ground[chosen] + np.where(bright[chosen, cell, None, None, None], step, -step)
        images[chosen] = blend(images[chosen], colour, painted)
    return noisy(rng, images, 0.08)


_TEXTURES = ("checks", "stripes", "dots", "rings", "rays", "zigzag", "bricks", "spots")


def _texture(kind: str, u: Array, v: Array, rng: np.random.Generator) -> Array:
    """A pattern in about [-1, 1] with period 2 pi at (u, v)."""
    pattern: Array = np.zeros_like(u)
    if kind == "checks":
        pattern = np.sin(u / 2) * np.sin(v / 2) * 2
    elif kind == "stripes":
        pattern = np.sin(u)
    elif kind == "dots":  # a triangular lattice
        pattern = (np.cos(u) + 2 * np.cos(u / 2) * np.cos(v * np.sqrt(0.75))) * 0.8 - 0.5
    elif kind == "rings":
        pattern = np.sin(np.hypot(u, v))
    elif kind == "rays":
        pattern = np.sin(np.arctan2(v, u) * rng.integers(5, 9, (len(u), 1, 1)))
    elif kind == "zigzag":
        pattern = np.sin(u + np.pi * np.abs(np.mod(v / np.pi, 2) - 1))
    elif kind == "bricks":
        offset = np.mod(np.floor(v / np.pi), 2) * np.pi  # every other course is half a brick along
        joint = np.minimum(np.abs(np.sin(v)), 2 * np.abs(np.sin((u + offset) / 2)))
        pattern = joint * 4 - 1.6
    else:  # spots: waves of one length from all sides
        for _ in range(6):
            angle, phase = uniform(rng, 0, 2 * np.pi, 2, len(u), 1, 1)
            pattern += 0.7 * np.sin(u * np.cos(angle) + v * np.sin(angle) + phase)
    return pattern


def _draw_textures(rng: np.random.Generator, labels: Labels, size: int) -> Array:
    """Regular and irregular patterns at any scale, angle, sharpness and colour."""
    count = len(labels)
    u, v = posed(
        size,
        centre=uniform(rng, -0.7, 0.7, count, 2),
        angle=uniform(rng, 0, 2 * np.pi, count),
        scale=1 / uniform(rng, 9, 17, count),
    )
    pattern = np.empty_like(u)
    for label, kind in enumerate(_TEXTURES):
        chosen = labels == label
        pattern[chosen] = _texture(kind, u[chosen], v[chosen], rng)
    painted = 0.5 + 0.5 * np.tanh(pattern * uniform(rng, 0.8, 3, count, 1, 1))
    ground, colour = colour_pair(rng, count, 0.1)
    images = blend(np.broadcast_to(ground, (count, size, size, 3)), colour, painted)
    return noisy(rng, clutter(rng, images, 2), 0.12)


_GLYPHS = 10


def _glyph_prototypes() -> Array:
    """Nodes (10, 3 strokes, 4, 2) of ten characters: pairs that differ in one stroke only."""
    rng = np.random.default_rng(1)  # fixed: the characters are the task, not its sample
    nodes = uniform(rng, -0.85, 0.85, _GLYPHS, 3, 4, 2)
    nodes[1::2, :2] = nodes[0::2, :2]
    return nodes


def _draw_glyphs(rng: np.random.Generator, labels: Labels, size: int) -> Array:
    """Invented characters of three strokes in many hands."""
    count = len(labels)
    nodes = _glyph_prototypes()[labels].reshape(count, -1, 2)  # (N, 12, 2)
    nodes = nodes + rng.normal(0, 0.13, nodes.shape).astype(np.float32)
    angle = uniform(rng, -0.5, 0.5, count)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.tile(np.eye(2, dtype=np.float32), (count, 1, 1))
    slant[:, 0, 1] = uniform(rng, -0.3, 0.3, count)
    hand = rotation.transpose(2, 0, 1) @ slant * uniform(rng, 0.65, 0.95, count, 1, 2)
    nodes = nodes @ hand.astype(np.float32) + uniform(rng, -0.15, 0.15, count, 1, 2)
    strokes = nodes.reshape(count, 3, 4, 2)
    x, y = grid(size)
    nearest = np.full((count, size, size), np.inf, dtype=np.float32)  # squared distance
    for stroke in range(3):
        for start in range(3):
            a = strokes[:, stroke, start, :, None, None]
            step = strokes[:, stroke, start + 1, :, None, None] - a
            dx, dy = x - a[:, 0], y - a[:, 1]
            along = (dx * step[:, 0] + dy * step[:, 1]) / np.square(step).sum(axis=1)
            along = along.clip(0, 1)
            away = (dx - along * step[:, 0]) ** 2 + (dy - along * step[:, 1]) ** 2
            nearest = np.minimum(nearest, away)
    width = uniform(rng, 0.04, 0.09, count, 1, 1)
    ink, ground = dark_and_bright(rng, count, 0.3)
    images = ground + 0.06 * smooth_noise(rng, count, 4, size)
    images = blend(images, ink, cover(width - np.sqrt(nearest), 1.0, size))
    return noisy(rng, images, 0.08)


TOYS: Mapping[str, Toy] = {
    "digits": Toy(
        summary="real handwritten digits, scanned at 8 x 8",
        classes=tuple(map(str, range(10))),
        draw=None,
    ),
    "shapes": Toy(
        summary="filled outlines among clutter; colour says nothing",
        classes=_SHAPES,
        draw=_draw_shapes,
    ),
    "gratings": Toy(
        summary="the angle of faint stripes",
        classes=tuple(f"{180 * k / _ORIENTATIONS:g} degrees" for k in range(_ORIENTATIONS)),
        draw=_draw_gratings,
    ),
    "colours": Toy(summary="the most frequent hue of a mosaic", classes=_HUES, draw=_draw_colours),
    "counting": Toy(
        summary="the number of bright blobs",
        classes=tuple(map(str, range(1, _MOST_BLOBS + 1))),
        draw=_draw_counting,
    ),
    "textures": Toy(summary="kinds of pattern", classes=_TEXTURES, draw=_draw_textures),
    "glyphs": Toy(
        summary="invented characters in many hands",
        classes=tuple(f"glyph {k}" for k in range(_GLYPHS)),
        draw=_draw_glyphs,
    ),
}
