"""Columns of Arrow tables -> labels and encoded images, whatever type they are stored as."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from partitioning.settings import nearest
from trainers.data.sources.base import Picture, Pictures, RawSplit, Request, RowArray
from trainers.data.sources.labels import as_labels, as_text, join_labels


def table_split(
    request: Request,
    *,
    labels: Mapping[str, pa.ChunkedArray],
    classes: Sequence[str] | None,
    where: str,
    images: Callable[[], Sequence[pa.ChunkedArray]],
    folder: Path,
) -> RawSplit:
    """A split of a table, or of several.

    Args:
        request: names the columns.
        labels: by file.
        classes: names of the classes where the table declares them.
        where: the files, for messages.
        images: reads that column, of each file.
        folder: where the paths of images kept outside the table start.

    Raises:
        DataError: a column of another type, or a row without a label.
    """

    def pictures(rows: RowArray, size: int) -> Pictures:
        chunks = [chunk for column in images() for chunk in column.chunks]
        ends = np.cumsum([len(chunk) for chunk in chunks])
        for row in rows:
            chunk = int(np.searchsorted(ends, row, side="right"))
            value = chunks[chunk][int(row - ends[chunk])]  # counted from the chunk's end
            encoded = _encoded(value.as_py(), folder)
            yield f"task {request.task!r}: {where}, row {row}", encoded

    try:
        parts = {file: _labels(request, column, file) for file, column in labels.items()}
        joined = join_labels(parts)
    except ValueError as error:
        raise error if str(error).startswith("task ") else request.error(str(error)) from error
    return RawSplit(
        labels=joined,
        classes=tuple(map(str, classes)) if classes else None,
        where=where,
        pictures=pictures,
    )


def check_columns(request: Request, found: Sequence[str], where: str) -> None:
    """Checks that the columns of images and labels are there.

    Raises:
        DataError: one is not; the text lists those that are.
    """
    for key in ("image_column", "label_column"):
        column = getattr(request, key)
        if column not in found:
            raise request.error(
                f"{where} has no column {column!r}{nearest(column, found)}; its columns are "
                f"{', '.join(map(repr, found))}; set {key}"
            )


def check_image_type(request: Request, kind: pa.DataType, where: str) -> None:
    """Checks that a column can hold encoded images.

    Raises:
        DataError: it is neither bytes nor a struct of bytes and path.
    """
    plain = _plain_type(kind)
    fields = [plain.field(i).name for i in range(plain.num_fields)] if _is_struct(plain) else []
    if not (_is_bytes(plain) or "bytes" in fields):
        raise request.error(
            "images must be encoded bytes, or a struct of bytes and path; column "
            f"{request.image_column!r} of {where} is {kind}; set image_column"
        )


def declared_classes(schema: pa.Schema, label_column: str) -> list[str] | None:
    """Names of the classes 0, 1, ... from the Hugging Face metadata of a table.

    Raises:
        ValueError: the metadata are no JSON.
    """
    stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    try:
        names = stored["info"]["features"][label_column]["names"]
    except (KeyError, TypeError):  # other programs keep other things there
        return None
    return names if isinstance(names, list) and names else None


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a column, however they are stored."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def _is_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    tests = types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    tests = types.is_string, types.is_large_string, types.is_string_view
    return any(test(kind) for test in tests)


def _encoded(value: Any, folder: Path) -> Picture:
    if not isinstance(value, dict):
        return value if value is None else bytes(value)
    if value.get("bytes") is not None:
        return bytes(value["bytes"])
    return folder / value["path"] if value.get("path") else None


def _labels(request: Request, column: pa.ChunkedArray, where: str) -> NDArray[Any]:
    """Labels of one file as `as_labels` gives them."""
    kind = _plain_type(column.type)
    if pa.types.is_null(kind) and len(column):
        raise request.error(f"{where}, row 0 has no label")
    is_number = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind)
    if not (is_number or _is_text(kind) or _is_bytes(kind) or pa.types.is_null(kind)):
        raise request.error(
            f"labels must be integers or strings; column {request.label_column!r} of {where} is "
            f"{column.type}; set label_column"
        )
    values = column.to_pylist()
    if None in values:
        raise request.error(f"{where}, row {values.index(None)} has no label")
    try:
        if is_number:
            exact = np.float64 if pa.types.is_floating(kind) else kind.to_pandas_dtype()
            return as_labels(np.array(values, dtype=exact))
        texts = [value.decode() if isinstance(value, bytes) else value for value in values]
        if pa.types.is_fixed_size_binary(kind):  # which NUL fills up
            texts = [text.rstrip("\0") for text in texts]
        return as_text(texts)
    except ValueError as error:
        raise request.error(f"{where}: {error}; set label_column") from error
