"""What the numbers in images mean: which value is black and which is white, one answer a dataset.

Where the type of values says it (8 bits), that is the answer. Where it does not (16 and 32 bits,
floats), the values of all splits together decide, for each type of values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: Values that are white where images have 1, 8, 10, 12, 14, 16, 24, 31 and 32 bits.
WHITES = (1, *(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 31, 32)))

#: So many times as bright as the brightest value of a split another is, beside which it is black.
UNLIKE = 12
#: Black and white are what the bits say only where the values span this part of them.
LEAST_SPAN = 1 / 8

#: Whiter than white by this factor may be a float's rounding or ringing.
OVERSHOOT = 1.05

#: The type of values that says itself what is white.
BYTES = "uint8"

#: By type of values ("uint16", "float32"): the smallest and the largest value seen.
Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Which values are black and white.

    Attributes:
        black: this value and those below it are black.
        white: this value and those above it are white; more than `black`.
        low: the smallest value that was seen.
        high: the largest value that was seen.
    """

    black: float = 0.0
    white: float = 255.0
    low: float = 0.0
    high: float = 255.0

    @property
    def plain(self) -> bool:
        """Whether this is what 8-bit images say of themselves."""
        return (self.black, self.white) == (0, 255)


def widen(ranges: Ranges, kind: str, low: float, high: float) -> None:
    """Makes the range of a type of values hold these two, too."""
    before = ranges.get(kind, (low, high))
    ranges[kind] = (min(low, before[0]), max(high, before[1]))


def scale_of(kind: str, low: float, high: float) -> Scale:
    """Reads off the values of a dataset which is black and which is white.

    Args:
        kind: type of the values, as NumPy names it.
        low: the smallest value of all splits.
        high: the largest one.

    Returns:
        0 to 1, 255, 1023, 4095, 16383 or 65535, the first that holds all values; where values are
        negative, or span less than an eighth of that, the smallest to the largest value.

    Example:
        >>> scale_of("uint16", 3, 3900).white, scale_of("float32", 0.1, 1.0).white
        (4095, 1)
    """
    is_float = kind.startswith("float")
    negative = low < -(OVERSHOOT - 1) * high if is_float else low < 0
    enough = high / OVERSHOOT if is_float else high
    # Floats a little above 1 are still meant as parts of 1: 0 to 255 would not stop at 2.
    white = 1 if is_float and high < 2 else next((w for w in WHITES if w >= enough), high)
    if low < high and (negative or high - low < LEAST_SPAN * white):
        return Scale(black=low, white=high, low=low, high=high)
    return Scale(black=0, white=white, low=low, high=high)


def choose_scales(
    ranges: Mapping[str, Ranges], black: float | None, white: float | None
) -> dict[str, Scale]:
    """Decides for a dataset, from all its splits.

    Args:
        ranges: by split.
        black: the user's setting, None to read it off the values.
        white: likewise.

    Returns:
        by type of values. Settings are for the types that do not say what is white; only where
        there are none, for 8-bit images.

    Raises:
        ValueError: black is not below white, no image can have the value that is white, or one
            split is black throughout on the scale of another.
    """
    whole: Ranges = {}
    for found in ranges.values():
        for kind, (low, high) in found.items():
            widen(whole, kind, low, high)
    scales = {}
    for kind, (low, high) in whole.items():
        known = kind == BYTES
        scale = Scale() if known else scale_of(kind, low, high)
        if not known or set(whole) == {BYTES}:
            if known and white is not None and white > 255:
                raise ValueError(
                    f"white is {white:g}, but all images have values of 8 bits, up to 255 (of "
                    "colours of 16 bits the upper 8 are read); set white to a value up to 255"
                )
            scale = _set(scale, black, white)
            if not known and white is None:
                _refuse_unlike_splits(kind, ranges, scale)
        scales[kind] = scale
    return scales


def _set(scale: Scale, black: float | None, white: float | None) -> Scale:
    """The scale with the user's settings in place."""
    if white is not None and black is None:
        black = 0.0 if white > 0 else scale.low
    low = scale.black if black is None else black
    high = scale.white if white is None else white
    if not low < high:
        raise ValueError(f"black must be below white, got black {low:g} and white {high:g}")
    return Scale(black=low, white=high, low=scale.low, high=scale.high)


def _refuse_unlike_splits(kind: str, ranges: Mapping[str, Ranges], scale: Scale) -> None:
    """Splits of one type but of different scales: 0 to 1 in one and 0 to 255 in another."""
    highs = {split: found[kind][1] for split, found in ranges.items() if kind in found}
    brightest = max(highs, key=lambda split: highs[split])
    for split, high in highs.items():
        if scale.black == 0 and 0 < high * UNLIKE < min(scale.white, highs[brightest]):
            raise ValueError(
                f"{kind} values reach {highs[brightest]:g} in {brightest} but only {high:g} in "
                f"{split}, which would be black; store all splits alike, or set white if they are"
            )


def scale_words(scales: Mapping[str, Scale]) -> str:
    """What white is, for people: "white is 4095 (uint16 values from 3 to 3900)"."""
    several = len(scales) > 1
    return ", ".join(_words(kind, scale, several) for kind, scale in sorted(scales.items()))


def _words(kind: str, scale: Scale, several: bool) -> str:
    text = f"white is {_number(scale.white)}"
    if scale.black:
        text = f"black is {_number(scale.black)}, {text}"
    if kind == BYTES:
        return f"{text} in 8-bit images" if several else text
    return f"{text} ({kind} values from {_number(scale.low)} to {_number(scale.high)})"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else np.format_float_positional(value, 4)
