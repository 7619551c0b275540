"""Parquet files, one or several a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.sources.base import DataError, RawSplit, Request
from trainers.data.sources.columns import (
    check_columns,
    check_image_type,
    declared_classes,
    table_split,
)
from trainers.data.sources.shards import check_whole, names_split, split_files, unread_files


def open_parquet(request: Request) -> RawSplit:
    """Reads the labels of `<path>/<split>.parquet`, or of its shards.

    Args:
        request: path is the folder.

    Returns:
        The split; its class names come from the table's Hugging Face metadata, where it has them.

    Raises:
        DataError: folder, split, shard or column missing, a split that is there twice, a column of
            another type, an unreadable file.
    """
    folder = request.folder()
    found = _split_files(request, folder)
    read = [file for files in found.values() for file in files]
    unread = unread_files(folder, read)
    if request.split not in found:
        names = (*(file.name for file in read), *unread)
        raise request.missing_split(
            folder / f"{request.split}.parquet",
            names,
            "; or, for a dataset without splits, set path to its one file",
        )
    return replace(_read(request, found[request.split]), beside=(*found, *unread))


def whole_parquet(request: Request) -> RawSplit | None:
    """Reads the labels of a single parquet file, or of the shards of one, without splits.

    Args:
        request: path is the file, or the folder that holds no other parquet files.

    Returns:
        The whole dataset; None where there are splits, or one alone, or other parquet files below
        the folder.

    Raises:
        DataError: as for `open_parquet`.
    """
    if not request.location.exists():
        return None
    place = request.location
    found = _split_files(request, place)
    files = next(iter(found.values()), [])
    if place.is_dir():
        if len(found) != 1 or any(map(names_split, found)) or unread_files(place, files):
            return None
        _check_whole(request, files)
    return _read(request, files)


def _split_files(request: Request, place: Path) -> dict[str, list[Path]]:
    if not place.is_dir():
        _check_whole(request, [place])
        return {place.stem: [place]}
    try:
        return split_files(place, request.split)
    except ValueError as error:
        raise request.error(str(error)) from error


def _check_whole(request: Request, files: Sequence[Path]) -> None:
    try:
        check_whole(files)
    except ValueError as error:
        raise request.error(str(error)) from error


def _read(request: Request, files: Sequence[Path]) -> RawSplit:
    where = str(files[0]) if len(files) == 1 else f"{files[0]} (first of {len(files)} shards)"
    schemas = {file: _schema(request, file) for file in files}
    declared = {
        file: declared_classes(schema, request.label_column) for file, schema in schemas.items()
    }
    for file, classes in declared.items():
        if classes != declared[files[0]]:
            raise request.error(
                f"{file} declares other classes than {files[0]}, {classes} and not "
                f"{declared[files[0]]}; write both with the same ones"
            )
    return table_split(
        request,
        labels={str(file): _column(request, file, request.label_column) for file in files},
        classes=declared[files[0]],
        where=where,
        images=lambda: [_column(request, file, request.image_column) for file in files],
        folder=files[0].parent,
    )


def _schema(request: Request, file: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(file)
        check_columns(request, schema.names, str(file))
        check_image_type(request, schema.field(request.image_column).type, str(file))
        declared_classes(schema, request.label_column)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise request.error(f"{file} cannot be read as parquet: {error}") from error
    return schema


def _column(request: Request, file: Path, column: str) -> pa.ChunkedArray:
    try:
        with pq.ParquetFile(file) as parquet:
            return parquet.read(columns=[column]).select([column]).column(column)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise request.error(f"{file} cannot be read as parquet: {error}") from error
