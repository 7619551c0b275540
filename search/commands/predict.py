"""`apportion predict`: exported networks on pictures of one's own."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from partitioning import write_atomically
from search.report import contact_sheet, require_sheet
from trainers.data import find_pictures
from trainers.export import Predicted, open_networks, predict


def predict_pictures(
    folder: Path,
    names: Sequence[str],
    *,
    networks: Sequence[str] = (),
    precision: str = "float32",
    top: int = 1,
    sheet: Path | None = None,
) -> list[Predicted]:
    """What exported networks say of pictures.

    Args:
        folder: Of an export, or of one of its networks.
        names: Files, folders and patterns.
        networks: Which; none for all.
        precision: float32, float16 or int8.
        top: Classes of each picture and network.
        sheet: Where a picture of all is drawn; None draws none.

    Raises:
        DataError: There are no such pictures.
        ExportError: There are no such networks.
        DamagedFileError: A network was changed since it was exported.
        MissingLibraryError: A runtime is not installed.
        ValueError: `top` is below 1, or the sheet cannot be drawn where it should be.
    """
    if top < 1:
        raise ValueError(f"--top must be at least 1, got {top}")
    if sheet is not None:
        require_sheet(sheet)
    paths = find_pictures(names)
    loaded = open_networks(folder, networks, precision=precision)
    found = predict(loaded, paths, top=top, keep=sheet is not None)
    if sheet is not None:
        contact_sheet(found, sheet)
    return found


def as_rows(found: Sequence[Predicted]) -> list[dict[str, Any]]:
    """A row for every picture, network and class, and one for each picture that was not read."""
    rows: list[dict[str, Any]] = []
    for one in found:
        if one.reason:
            rows.append({"image": str(one.path), "error": one.reason})
        for name, labels in one.labels.items():
            for rank, (label, probability) in enumerate(labels, start=1):
                rows.append(
                    {
                        "image": str(one.path), "network": name, "rank": rank, "label": label,
                        "probability": probability,
                    }
                )  # fmt: skip
    return rows


def write_rows(found: Sequence[Predicted], path: Path) -> None:
    """The same as CSV."""
    columns = ["image", "network", "rank", "label", "probability", "error"]
    with write_atomically(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(as_rows(found))


def print_predicted(found: Sequence[Predicted], console: Console) -> None:
    """Print a line for every picture, a column for every network."""
    names = next((list(one.labels) for one in found if one.labels), [])
    if names:
        table = Table()
        table.add_column("image", overflow="fold")
        for name in names:
            table.add_column(escape(name))
        for one in found:
            if one.labels:
                cells = [
                    "\n".join(f"{escape(la)} {chance:.2f}" for la, chance in one.labels[name])
                    for name in names
                ]
                table.add_row(escape(str(one.path)), *cells)
        console.print(table)
    for one in found:
        if one.reason:
            console.print(one.reason, markup=False, highlight=False, soft_wrap=True)
