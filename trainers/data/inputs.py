"""How images are given to a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from partitioning.settings import POSITIVE, Rule, checked, each, interval, one_of
from trainers.data.sources.pixels import INTERPOLATIONS

THREE = Rule(
    words="three numbers (red, green, blue)", holds=lambda value, own: len(value) == len("RGB")
)


@dataclass(frozen=True, kw_only=True)
@checked("inputs.{field}")
class Inputs:
    """How images are resized and normalised for a network.

    Attributes:
        mean: What is taken from red, green and blue, in units of [0, 1]. None is the mean of the
            training images.
        std: What the rest is divided by, likewise. None is the standard deviation of the training
            images.
        interpolation: How images are resized; all but nearest are antialiased.

    Raises:
        ValueError: A value is outside its range.
    """

    mean: Annotated[tuple[float, float, float] | None, THREE, each(interval("[0, 1]"))] = None
    std: Annotated[tuple[float, float, float] | None, THREE, each(POSITIVE)] = None
    interpolation: Annotated[str, one_of(INTERPOLATIONS)] = "bilinear"
