"""Parquet folders and datasets of the Hugging Face Hub: tables with an image and a label column."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from partitioning.settings import nearest
from trainers.data.sources.base import ByteArray, RawSplit, Request, RowArray
from trainers.data.sources.pixels import decode


def open_parquet(request: Request) -> RawSplit:
    """Reads the labels of `<path>/<split>.parquet`, or of its shards.

    Args:
        request: path is the folder.

    Returns:
        The split; its class names come from the table's Hugging Face metadata, where it has them.

    Raises:
        DataError: folder, split or column missing, a column of another type, an unreadable file.
    """
    files = _parquet_files(request)
    where = str(files[0]) if len(files) == 1 else f"{files[0]} (first of {len(files)} shards)"
    try:
        schema = pq.read_schema(files[0])
        _check_columns(request, schema.names, where)
        labels = _read_column(files, request.label_column)
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (pa.ArrowException, OSError, KeyError, json.JSONDecodeError) as error:
        raise request.error(f"{where} cannot be read as parquet: {error}") from error
    feature = stored.get("info", {}).get("features", {}).get(request.label_column, {})
    return _table_split(
        request,
        labels=labels,
        classes=feature.get("names"),
        where=where,
        image_type=schema.field(request.image_column).type,
        images=lambda: _read_column(files, request.image_column),
        folder=files[0].parent,
    )


def open_hub(request: Request) -> RawSplit:
    """Loads a split of a dataset of the Hugging Face Hub, downloading it where need be.

    Args:
        request: path is the dataset's id, or a local folder in the Hub's layout; split may be a
            slice such as `train[:80%]`.

    Returns:
        The split, its table memory-mapped from the cache of `datasets`.

    Raises:
        DataError: unknown dataset, subset or split, no connection, or as for `open_parquet`.
    """
    probe_hub(request)
    import datasets  # slow to import, and only this source needs it

    path = _hub_path(request)
    where = f"split {request.split!r} of dataset {path!r}"
    try:
        data = datasets.load_dataset(path, request.subset, split=request.split)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        # An unknown id, subset or split, no connection, or a full disk.
        raise request.error(
            f"{where} could not be loaded: {error}; check path, subset and the names of the "
            "splits, and the connection (what was loaded once is read from the cache)"
        ) from error
    _check_columns(request, data.column_names, where)
    classes = getattr(data.features[request.label_column], "names", None)
    data = data.select_columns([request.image_column, request.label_column])
    if isinstance(data.features[request.image_column], datasets.Image):
        data = data.cast_column(request.image_column, datasets.Image(decode=False))
    table = data.with_format("arrow")[:]
    images = table.column(request.image_column)
    return _table_split(
        request,
        labels=table.column(request.label_column),
        classes=classes,
        where=where,
        image_type=images.type,
        images=lambda: images,
        folder=Path(path),
    )


def probe_hub(request: Request) -> None:
    """What can be said of a Hub dataset without a connection.

    Raises:
        DataError: `datasets` is not installed, or the path is neither an id nor a folder.
    """
    if find_spec("datasets") is None:
        raise request.error("source hub needs the package datasets: pip install datasets")
    path = Path(_hub_path(request))
    if (len(path.parts) > 2 or path.is_absolute()) and not path.is_dir():
        raise request.error(
            "path must be a dataset id of the Hugging Face Hub ('owner/name') or an existing "
            f"folder, got {str(path)!r}"
        )


def _hub_path(request: Request) -> str:
    local = request.location
    return str(local) if local.is_dir() else str(Path(request.path).expanduser())


def _parquet_files(request: Request) -> list[Path]:
    folder = request.folder()
    for place in (folder, folder / "data"):  # the Hub's repositories keep shards in data/
        if (place / f"{request.split}.parquet").is_file():
            return [place / f"{request.split}.parquet"]
        if shards := sorted(place.glob(f"{request.split}-*-of-*.parquet")):
            return shards
    found = [file.name for file in (*folder.glob("*.parquet"), *folder.glob("data/*.parquet"))]
    raise request.missing_split(folder / f"{request.split}.parquet", found)


def _read_column(files: Sequence[Path], column: str) -> pa.ChunkedArray:
    tables = []
    for file in files:
        with pq.ParquetFile(file) as parquet:
            tables.append(parquet.read(columns=[column]).select([column]))
    # Permissive: a shard whose paths are all null has another type than one with paths.
    return pa.concat_tables(tables, promote_options="permissive").column(column)


def _check_columns(request: Request, found: Sequence[str], where: str) -> None:
    for key in ("image_column", "label_column"):
        column = getattr(request, key)
        if column not in found:
            raise request.error(
                f"{where} has no column {column!r}{nearest(column, found)}; its columns are "
                f"{', '.join(map(repr, found))}; set {key}"
            )


def _table_split(
    request: Request,
    *,
    labels: pa.ChunkedArray,
    classes: Sequence[str] | None,
    where: str,
    image_type: pa.DataType,
    images: Callable[[], pa.ChunkedArray],
    folder: Path,
) -> RawSplit:
    """A split of a table; `folder` is where the paths of images kept outside the table start."""
    types = pa.types
    is_struct = types.is_struct(image_type)
    fields = [image_type.field(i).name for i in range(image_type.num_fields)] if is_struct else []
    if not (types.is_binary(image_type) or types.is_large_binary(image_type) or "bytes" in fields):
        raise request.error(
            "images must be encoded bytes, or a struct of bytes and path; column "
            f"{request.image_column!r} of {where} is {image_type}; set image_column"
        )

    def pixels(rows: RowArray, size: int) -> ByteArray:
        column = images()
        items = (
            (
                f"task {request.task!r}: {where}, row {row}",
                _encoded(column[int(row)].as_py(), folder),
            )
            for row in rows
        )
        return decode(items, len(rows), size)

    return RawSplit(
        labels=_labels(request, labels, where),
        classes=tuple(map(str, classes)) if classes else None,
        where=where,
        pixels=pixels,
    )


def _encoded(value: Any, folder: Path) -> bytes | Path | None:
    if not isinstance(value, dict):
        return value if value is None else bytes(value)
    if value.get("bytes") is not None:
        return bytes(value["bytes"])
    return folder / value["path"] if value.get("path") else None


def _labels(request: Request, column: pa.ChunkedArray, where: str) -> NDArray[Any]:
    types = pa.types
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    is_whole = types.is_integer(kind) or types.is_boolean(kind)
    if not (is_whole or types.is_string(kind) or types.is_large_string(kind)):
        raise request.error(
            f"labels must be integers or strings; column {request.label_column!r} of {where} is "
            f"{column.type}; set label_column"
        )
    values = column.to_pylist()
    if None in values:
        raise request.error(f"{where}, row {values.index(None)} has no label")
    return np.array(values, dtype=np.int64 if is_whole else np.str_)
