"""Pictures of anyone's as a network reads them, made as those of training were."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers.data.sources.base import ByteArray, DataError
from trainers.data.sources.pixels import SUFFIXES, decode, measure, ranges_of
from trainers.data.sources.scale import Scale, scale_of
from trainers.data.sources.walking import HIDDEN


def find_pictures(names: Iterable[str]) -> list[Path]:
    """Files by their names, those below folders, and those that match patterns, each once.

    Args:
        names: Of files, of folders, or patterns with `*` and `**`.

    Raises:
        DataError: One names nothing.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            own = [one for one in sorted(path.rglob("*")) if _is_picture(one.relative_to(path))]
        elif path.exists():
            own = [path]
        else:
            base = Path(path.anchor) if path.is_absolute() else Path()
            own = sorted(base.glob(str(path.relative_to(base)))) if "*" in name else []
            own = [one for one in own if one.is_file()]
        if not own:
            raise DataError(f"{name} has no images" if path.is_dir() else f"there is no {name}")
        found |= dict.fromkeys(own)
    return list(found)


def _is_picture(inner: Path) -> bool:
    hidden = any(part.startswith(HIDDEN) for part in inner.parts)
    return inner.suffix.lower() in SUFFIXES and not hidden


def read_pictures(
    paths: Sequence[Path], *, size: int, interpolation: str, scales: Mapping[str, Scale]
) -> Iterator[tuple[list[Path], Tensor, dict[Path, str]]]:
    """Read pictures, some at a time.

    Args:
        paths: Of image files.
        size: Height and width that they are given, in pixels.
        interpolation: How they are resized.
        scales: By type of values, which of them training took for black and white. Of other types
            that do not say what is white, the picture itself decides.

    Yields:
        Those that were read; uint8 (B, 3, size, size); and of others why they were not.
    """
    for start in range(0, len(paths), 64):
        batch = paths[start : start + 64]
        read: list[ByteArray] = []
        good, bad = [], {}
        for path in batch:
            try:
                read.append(_read(path, size, interpolation, scales))
                good.append(path)
            except DataError as error:
                bad[path] = str(error)
        images = np.stack(read) if read else np.zeros((0, 3, size, size), dtype=np.uint8)
        yield good, torch.from_numpy(images), bad


def _read(path: Path, size: int, interpolation: str, scales: Mapping[str, Scale]) -> ByteArray:
    pictures = [(str(path), path)]
    own = {kind: scale_of(kind, *ends) for kind, ends in ranges_of(measure(pictures)).items()}
    found: list[ByteArray] = []
    decode(pictures, found.append, size=size, scales={**own, **scales}, interpolation=interpolation)
    square: ByteArray = found[0][0]
    return square
