"""FITS files: what their numbers stand for, by the header, which Pillow does not tell.

A pixel stands for BSCALE * stored + BZERO. What is stored has a sign, so that 0 to 65535 is kept as
-32768 to 32767 with a BZERO of 32768.

Legend: H, W height and width of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

#: Bytes of a line of the header, and of the blocks that a header fills.
CARD, BLOCK = 80, 2880
#: The keywords that say what a stored number stands for.
MEANING = {"BSCALE", "BZERO", "BLANK"}
#: The types that a BZERO alone makes of what is stored.
SHIFTED = {("i1", -0x80), ("u2", 0x8000), ("u4", 0x80000000)}


def read_header(file: IO[bytes]) -> dict[str, str]:
    """The header of the image that Pillow decodes, the first that has any pixels.

    Args:
        file: a FITS file; it is left where it stands.

    Returns:
        by keyword, the values as they are written.
    """
    place = file.tell()
    file.seek(0)
    try:
        header = _read_unit(file)
        while header and header.get("NAXIS") == "0":
            header = _read_unit(file)
    finally:
        file.seek(place)
    return header


def physical(stored: NDArray[Any], header: Mapping[str, str]) -> NDArray[Any]:
    """What the stored numbers of an image stand for.

    Args:
        stored: (H, W), as Pillow reads them: uint8, uint16, int32 or float32.
        header: of the file, as `read_header` gives it.

    Returns:
        (H, W) of the type that is meant; float64 where numbers are scaled, or where some stand for
        "no value" (BLANK), which are NaN.

    Raises:
        ValueError: BZERO, BSCALE or BLANK is no number.
    """
    if stored.dtype == np.uint16:  # what FITS keeps in 16 bits has a sign
        stored = stored.view(np.int16)
    scale, zero = _number(header, "BSCALE", 1), _number(header, "BZERO", 0)
    blank = _number(header, "BLANK", np.nan) if stored.dtype.kind != "f" else np.nan
    if (scale, zero) == (1, 0) and np.isnan(blank):
        return stored
    bits = stored.dtype.itemsize
    for kind, shift in SHIFTED:
        if (scale, zero) == (1, shift) and np.isnan(blank) and kind.endswith(str(bits)):
            return (stored.astype(np.int64) + shift).astype(kind)
    values = scale * stored.astype(np.float64) + zero
    values[stored == blank] = np.nan
    return values


def _read_unit(file: IO[bytes]) -> dict[str, str]:
    """The lines of one header; none at the end of the file."""
    header: dict[str, str] = {}
    while len(card := file.read(CARD)) == CARD and card[:8].strip() != b"END":
        if card[8:10] == b"= ":
            text = card[10:].decode("ascii", "replace")
            header[card[:8].decode("ascii", "replace").strip()] = text.partition("/")[0].strip()
    file.seek(-(-file.tell() // BLOCK) * BLOCK)
    return header


def _number(header: Mapping[str, str], keyword: str, default: float) -> float:
    text = header.get(keyword, "")
    try:
        number = float(text.upper().replace("D", "E")) if text else default
    except ValueError:
        number = np.inf
    if np.isinf(number) or (text and np.isnan(number)):
        raise ValueError(f"{keyword} of its header must be a number, got {text}; mend the header")
    return number
