"""The file of masks: JSON with a format and a version, rows written as strings of 0 and 1.

    {"format": "apportion-masks", "version": 2,
     "networks": [{"task": "cifar10", "level": 0}, ...],
     "groups": [{"name": "stage3.0.conv1", "width": 8, "kind": "hidden",
                 "channels": 1, "forward": ["11110000", ...], "backward": ["11000000", ...]}, ...]}

Every group has one row per network, in the order of the networks; "backward" is there for all
groups or for none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from partitioning.files import write_atomically
from partitioning.formats import MASKS, FormatError
from partitioning.sharing import BoolArray

FieldType = TypeVar("FieldType")


class MaskFileError(ValueError):
    """A file does not hold masks, or not the masks asked for; the message says which and why."""


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes the file so that it is there complete or not at all.

    Raises:
        OSError: the folder is missing, read-only or full.
    """
    text = json.dumps(MASKS.header | content, indent=1) + "\n"
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Reads the file as far as its header; nothing in it is executed.

    Raises:
        MaskFileError: no JSON, or another format or version.
        OSError: the file cannot be read.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MaskFileError(f"{path} is no file of masks: not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != MASKS.name:
        raise MaskFileError(f'{path} is no file of masks: it lacks "format": "{MASKS.name}"')
    try:
        MASKS.check(content.get("version"), path)
    except FormatError as error:
        raise MaskFileError(str(error)) from error
    return content


def field(entry: Any, key: str, kind: type[FieldType]) -> FieldType:
    """The value of a key, which must be of that very type.

    Raises:
        MaskFileError: `entry` is no object, lacks the key, or has another type there.
    """
    if not isinstance(entry, dict) or key not in entry:
        raise MaskFileError(f'"{key}" is missing in {_shorten(entry)}')
    value = entry[key]
    if type(value) is not kind:  # not isinstance: JSON's true would pass as the number 1
        raise MaskFileError(f'"{key}" must be of type {kind.__name__}, got {_shorten(value)}')
    return value


def to_rows(masks_RC: BoolArray) -> list[str]:
    """(R, C) boolean masks as R strings of 0 and 1."""
    digits_RC = np.where(masks_RC, b"1", b"0")
    return [row.tobytes().decode("ascii") for row in digits_RC]


def from_rows(rows: list[Any], width: int, place: str) -> BoolArray:
    """The inverse of `to_rows`.

    Args:
        rows: R strings.
        width: C, the length that every row must have.
        place: what the rows are, for messages.

    Raises:
        MaskFileError: a row is no string of `width` characters 0 and 1.
    """
    for number, row in enumerate(rows):
        if not isinstance(row, str) or len(row) != width or set(row) - {"0", "1"}:
            raise MaskFileError(
                f"{place}, row {number} must be a string of {width} characters 0 or 1, "
                f"got {_shorten(row)}"
            )
    digits = np.frombuffer("".join(rows).encode("ascii"), dtype=np.uint8)
    return np.asarray(digits.reshape(len(rows), width) == ord("1"), dtype=np.bool_)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
