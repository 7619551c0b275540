"""The toy tasks as a source."""

from __future__ import annotations

from partitioning.settings import nearest
from trainers.data import toy
from trainers.data.sources.base import Pictures, RawSplit, Request, RowArray


def open_toy(request: Request) -> RawSplit:
    """Draws the labels of a toy task.

    Args:
        request: path is the name of the toy task.

    Raises:
        DataError: no such toy task or split.
    """
    name, split, seed = request.path, request.split, request.seed
    if name not in toy.TOYS:
        raise request.error(
            f"path (or else the task's name) must be one of the toy tasks {', '.join(toy.TOYS)}, "
            f"got {name!r}{nearest(name, toy.TOYS)}"
        )
    if split not in toy.SPLITS:
        raise request.error(f"toy tasks have the splits {', '.join(toy.SPLITS)}, got {split!r}")

    where = f"toy task {name!r}, split {split!r}"

    def pictures(rows: RowArray, size: int) -> Pictures:
        images = toy.draw_images(name, split, seed=seed, size=size)  # (N, S, S, 3)
        return ((f"{where}, image {row}", images[row]) for row in rows)

    return RawSplit(
        labels=toy.draw_labels(name, split, seed=seed),
        classes=toy.TOYS[name].classes,
        where=where,
        pictures=pictures,
    )
