"""Datasets of the Hugging Face Hub, or local folders in its layout."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from trainers.data.sources.base import RawSplit, Request
from trainers.data.sources.columns import check_columns, check_image_type, table_split
from trainers.data.sources.shards import check_hub_folder


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
    check_columns(request, data.column_names, where)
    classes = getattr(data.features[request.label_column], "names", None)
    data = data.select_columns([request.image_column, request.label_column])
    if isinstance(data.features[request.image_column], datasets.Image):
        data = data.cast_column(request.image_column, datasets.Image(decode=False))
    table = data.with_format("arrow")[:]
    images = table.column(request.image_column)
    check_image_type(request, images.type, where)
    return table_split(
        request,
        labels={where: table.column(request.label_column)},
        classes=classes,
        where=where,
        images=lambda: [images],
        folder=Path(path),
    )


def probe_hub(request: Request) -> None:
    """What can be said of a Hub dataset without a connection.

    Raises:
        DataError: `datasets` is not installed, the path is neither an id nor a folder, or a shard
            of the folder is missing or there twice.
    """
    if find_spec("datasets") is None:
        raise request.error("source hub needs the package datasets: pip install datasets")
    path = Path(_hub_path(request))
    if (len(path.parts) > 2 or path.is_absolute()) and not path.is_dir():
        raise request.error(
            "path must be a dataset id of the Hugging Face Hub ('owner/name') or an existing "
            f"folder, got {str(path)!r}"
        )
    if path.is_dir():
        try:
            check_hub_folder(path)
        except ValueError as error:
            raise request.error(str(error)) from error


def _hub_path(request: Request) -> str:
    local = request.location
    return str(local) if local.is_dir() else str(Path(request.path).expanduser())
