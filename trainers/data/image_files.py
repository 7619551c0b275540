"""Decoded images in files, from which they are read as they are asked for.

A file is in NumPy's format. A note beside it has the hash of its images, by which it is checked.

Legend: N images, B images of a batch, S the input size.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

from partitioning import read_json, write_atomically, write_json
from trainers.data.sources.base import ByteArray, Picture, Pictures
from trainers.data.sources.scale import Scale

#: Raised by hand where images are decoded to other pixels than before.
DECODING_VERSION = 1
#: Bytes that are read at a time to check a file.
BLOCK = 1 << 24

#: Takes the next images, uint8 (B, 3, S, S).
Put = Callable[[ByteArray], object]


def images_hash(shape: Sequence[int]) -> Any:
    """The beginning of a hash of images: a sha256 that is still to be given all pixels."""
    return hashlib.sha256(json.dumps([*shape]).encode())


def traced(pictures: Pictures, digest: Any) -> Iterator[tuple[str, Picture]]:
    """The same images; as they pass, what tells them from others is added to a hash.

    That is the content of bytes and arrays; of files it is name, size and times.
    """
    for where, picture in pictures:
        yield where, picture
        if isinstance(picture, Path):
            found = picture.stat()
            # A copy of equal size may keep the time of writing, but not that of its making.
            told = [picture.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
            digest.update(json.dumps(told).encode())
        elif picture is not None:
            array = np.frombuffer(picture, np.uint8) if isinstance(picture, bytes) else picture
            digest.update(json.dumps([array.dtype.str, *array.shape]).encode())
            digest.update(np.ascontiguousarray(array).data)


def pixels_key(pictures: str, scales: Mapping[str, Scale], size: int, interpolation: str) -> str:
    """A hash (hex) of all that decides the pixels of decoded images.

    Args:
        pictures: the hash that `traced` made.
        scales: what is black and white, by type of values.
        size: S.
        interpolation: how they are resized.
    """
    ends = {kind: [scale.black, scale.white] for kind, scale in scales.items()}
    decided = [DECODING_VERSION, PIL.__version__, pictures, ends, size, interpolation]
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def keep_images(path: Path, shape: Sequence[int], fill: Callable[[Put], object]) -> str:
    """Makes sure that a file of images is there and whole; if it is not, it is made.

    Args:
        path: the file, named after what decides its images; its folder exists.
        shape: (N, 3, S, S).
        fill: is given a function, and calls it with all images, some at a time.

    Returns:
        the hash of shape and images, in hex.

    Raises:
        OSError: the folder is read-only or full.
    """
    return _hash_of_whole(path, shape) or _write(path, shape, fill)


def map_images(path: Path) -> Tensor:
    """The images of a file, uint8 (N, 3, S, S), left where they are; they must not be written."""
    with warnings.catch_warnings():
        # torch has no read-only tensors, so it warns that writing to this one is undefined.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))


def _hash_of_whole(path: Path, shape: Sequence[int]) -> str | None:
    """The hash of a file's images; None where it is missing or is not what was written."""
    header = _header(shape)
    try:
        noted = read_json(_note(path)).get("sha256")
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                return None
            digest = images_hash(shape)
            while block := file.read(BLOCK):
                digest.update(block)
    except (FileNotFoundError, ValueError):
        return None
    return noted if noted == digest.hexdigest() else None


def _write(path: Path, shape: Sequence[int], fill: Callable[[Put], object]) -> str:
    digest = images_hash(shape)
    with write_atomically(path) as partial, partial.open("wb") as file:
        file.write(_header(shape))

        def put(images: ByteArray) -> None:
            file.write(images.data)
            digest.update(images.data)

        fill(put)
    found: str = digest.hexdigest()
    write_json(_note(path), {"sha256": found})
    return found


def _header(shape: Sequence[int]) -> bytes:
    file = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _note(path: Path) -> Path:
    return path.with_suffix(".json")
