"""Npz files of arrays, as MedMNIST publishes them."""

from __future__ import annotations

import zipfile
import zlib
from typing import Any

import numpy as np
from PIL import Image

from trainers.data.sources.base import DataError, Pictures, RawSplit, Request, RowArray
from trainers.data.sources.labels import as_labels

#: What NumPy and zip raise of a damaged file.
BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, MemoryError)


def open_npz(request: Request) -> RawSplit:
    """Reads the array `<split>_labels` of an npz file, and the header of `<split>_images`.

    Args:
        request: path is the file. MedMNIST's `val_...` is read for the split `validation`.

    Returns:
        The split; labels (N,) or (N, 1), images (N, H, W), (N, H, W, 1) or (N, H, W, 3) of any
        type of real numbers.

    Raises:
        DataError: no such file or array, an array of another shape or type, or one that only
            unpickling could read, which is refused.
    """
    file = request.location
    if not file.is_file():
        raise request.error(f"file {file} does not exist; set the task's path")
    if not zipfile.is_zipfile(file):
        raise request.error(f"{file} must be an npz file, as np.savez writes it")
    try:
        with np.load(file, allow_pickle=False) as archive:
            keys = _npz_keys(request, archive.files)
            shape, dtype = _npz_header(archive, keys[0])
            labels = archive[keys[1]]
    except BROKEN as error:
        if isinstance(error, DataError):
            raise
        raise request.error(f"{file} cannot be read as plain arrays: {error}") from error
    is_shape = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if dtype.kind not in "buif" or not is_shape:
        raise request.error(
            f"{keys[0]} of {file} must be numbers (N, H, W) or (N, H, W, 3), got {dtype} {shape}"
        )
    if shape[1] * shape[2] > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise request.error(
            f"{keys[0]} of {file} is refused as a decompression bomb: its images have "
            f"{shape[1]} x {shape[2]} pixels, more than {Image.MAX_IMAGE_PIXELS}; make them smaller"
        )
    num_images = shape[0]
    if labels.shape not in ((num_images,), (num_images, 1)):
        raise request.error(
            f"{keys[1]} of {file} must hold one label for each of the {num_images} "
            f"images, ({num_images},) or ({num_images}, 1), got {labels.dtype} {labels.shape}"
        )
    try:
        labels = as_labels(labels.reshape(-1))
    except ValueError as error:
        raise request.error(f"{file}, {keys[1]}: {error}") from error

    def pictures(rows: RowArray, size: int) -> Pictures:
        try:
            with np.load(file, allow_pickle=False) as archive:
                images = archive[keys[0]]
        except BROKEN as error:
            raise request.error(f"{keys[0]} of {file} cannot be read: {error}") from error
        if images.ndim == 4 and images.shape[3] == 1:
            images = images[..., 0]
        return ((f"task {request.task!r}: {file}, {keys[0]}[{row}]", images[row]) for row in rows)

    return RawSplit(labels=labels, classes=None, where=f"{file}, {keys[1]}", pictures=pictures)


def _npz_keys(request: Request, found: list[str]) -> tuple[str, str]:
    split = request.split
    if split == "validation" and "val_images" in found:
        if "validation_images" in found:
            raise request.error(
                f"{request.location} has the validation split twice, as validation_images and as "
                "val_images; remove one of the two, or set validation to val"
            )
        split = "val"
    keys = f"{split}_images", f"{split}_labels"
    for key in keys:
        if key not in found:
            raise request.missing_split(request.location / key, found)
    return keys


def _npz_header(archive: Any, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array; reading the header alone keeps checks cheap."""
    with archive.zip.open(f"{key}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    return shape, dtype
