"""Arrays in safetensors files that say by a hash whether they are what was written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from partitioning import DamagedFileError, write_atomically

Arrays = Mapping[str, NDArray[Any]]

#: Key of the metadata under which a file keeps the hash of its content.
CONTENT = "content"
#: What a file that opens, but is none of these, is noticed by.
UNREADABLE = (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError)
_KINDS = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I64": np.int64}


def save_arrays(arrays: Arrays, path: Path, metadata: Mapping[str, str]) -> None:
    """Write arrays by name, in full or not at all, with the hash that they are checked by.

    Args:
        arrays: Contiguous ones.
        path: The file; its folder is made if it is missing.
        metadata: Texts by name.

    Raises:
        OSError: The folder is read-only or full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**metadata, CONTENT: _content(arrays, metadata)}
    with write_atomically(path) as partial:
        try:
            save_file(dict(arrays), partial, metadata=whole)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def load_arrays(
    path: Path, digest: str | None = None, *, mapped: bool = False, checked: bool = True
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read what `save_arrays` wrote.

    Args:
        path: The file.
        digest: What its metadata must have under this name; None takes any.
        mapped: Leave the arrays in the file, read-only, to be read as they are asked for.
        checked: Compute the hash, which reads the whole file.

    Returns:
        The arrays and the metadata, among it `CONTENT`, the hash of everything else (hex).

    Raises:
        DamagedFileError: It was cut short or changed since it was written, or is another file.
        OSError: The file cannot be read.
    """
    if path.is_dir():
        raise DamagedFileError(f"{path} is damaged: it is a folder")
    with path.open("rb") as file:  # who cannot open it is told why; a damaged file opens
        try:
            size = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(min(size, 1 << 27)))
            metadata = header.pop("__metadata__")
            kept = metadata[CONTENT]
            arrays = _map(path, header, 8 + size) if mapped else load_file(path)
        except UNREADABLE as error:
            raise DamagedFileError(f"{path} is damaged, it cannot be read: {error}") from error
    rest = {key: value for key, value in metadata.items() if key != CONTENT}
    if checked and _content(arrays, rest) != kept:
        raise DamagedFileError(f"{path} is damaged: it was changed since it was written")
    if digest not in (None, metadata.get("digest")):
        raise DamagedFileError(f"{path} is damaged: it holds something else than its name says")
    return arrays, metadata


def _map(path: Path, header: Mapping[str, Any], start: int) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file, where they lie: a length, a JSON header, then the data."""
    return {
        name: np.memmap(
            path,
            dtype=_KINDS[entry["dtype"]],
            mode="r",
            offset=start + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        )
        for name, entry in header.items()
    }


def _content(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    """SHA-256 (hex) of arrays and metadata, whatever their order."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, str(array.dtype), *array.shape]).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
