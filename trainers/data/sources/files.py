"""Folders of image files, and npz files of arrays as MedMNIST publishes them."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np

from trainers.data.sources.base import ByteArray, DataError, RawSplit, Request, RowArray
from trainers.data.sources.pixels import decode

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


def open_folder(request: Request) -> RawSplit:
    """Lists `<path>/<split>/<class>/<image>`.

    Args:
        request: path is the folder above the splits.

    Returns:
        The split, its labels being the names of the class folders; hidden folders are left out.

    Raises:
        DataError: no such folder or split.
    """
    top = request.folder()
    if not (top / request.split).is_dir():
        found = [entry.name for entry in top.iterdir() if entry.is_dir()]
        raise request.missing_split(top / request.split, found)
    files = sorted(
        file
        for file in (top / request.split).glob("*/*")
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not file.name.startswith(".")
        and not file.parent.name.startswith(".")
    )

    def pixels(rows: RowArray, size: int) -> ByteArray:
        items = ((f"task {request.task!r}: {files[row]}", files[row]) for row in rows)
        return decode(items, len(rows), size)

    return RawSplit(
        labels=np.array([file.parent.name for file in files], dtype=np.str_),
        classes=None,
        where=str(top / request.split),
        pixels=pixels,
    )


def open_npz(request: Request) -> RawSplit:
    """Reads the array `<split>_labels` of an npz file, and the header of `<split>_images`.

    Args:
        request: path is the file. MedMNIST's `val_...` is read for the split `validation`.

    Returns:
        The split; labels (N,) or (N, 1) integers, images uint8 (N, H, W), (N, H, W, 1) or
        (N, H, W, 3).

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
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise request.error(f"{file} cannot be read as plain arrays: {error}") from error
    if dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))):
        raise request.error(
            f"{keys[0]} of {file} must be uint8 (N, H, W) or (N, H, W, 3), got {dtype} {shape}"
        )
    num_images = shape[0]
    if labels.shape not in ((num_images,), (num_images, 1)) or labels.dtype.kind not in "biu":
        raise request.error(
            f"{keys[1]} of {file} must hold one integer label for each of the {num_images} "
            f"images, ({num_images},) or ({num_images}, 1), got {labels.dtype} {labels.shape}"
        )

    def pixels(rows: RowArray, size: int) -> ByteArray:
        with np.load(file, allow_pickle=False) as archive:
            images = archive[keys[0]]
        if images.ndim == 4 and images.shape[3] == 1:
            images = images[..., 0]
        items = ((f"task {request.task!r}: {file}, {keys[0]}[{row}]", images[row]) for row in rows)
        return decode(items, len(rows), size)

    return RawSplit(
        labels=labels.reshape(-1).astype(np.int64),
        classes=None,
        where=f"{file}, {keys[1]}",
        pixels=pixels,
    )


def _npz_keys(request: Request, found: list[str]) -> tuple[str, str]:
    split = request.split
    if split == "validation" and "validation_images" not in found and "val_images" in found:
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
