"""A sheet of pictures with what networks say of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import, and here a type alone
    from trainers.export import Predicted

#: Pictures of a sheet at most, and in a row.
MOST, ACROSS = 60, 6
ENDINGS = (".png", ".jpg", ".pdf", ".svg")


def require_sheet(path: Path) -> None:
    """Refuse a place where no sheet can be drawn.

    Raises:
        ValueError: Its folder is missing, or its ending is none of a picture.
    """
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path} must end in one of {', '.join(ENDINGS)}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path} is in no folder that is there")


def contact_sheet(predicted: Sequence[Predicted], path: Path) -> None:
    """Draw pictures as networks read them, under each its name and the likeliest labels.

    Args:
        predicted: The first `MOST` that were read are drawn.
        path: Of the picture that is written, by its ending a PNG, PDF or SVG.
    """
    from matplotlib.figure import Figure

    drawn = [one for one in predicted if one.image is not None][:MOST]
    rows = max(1, -(-len(drawn) // ACROSS))
    lines = max((len(one.labels) for one in drawn), default=1)
    across = min(ACROSS, max(1, len(drawn)))
    figure = Figure(figsize=(2 * across, (2 + 0.22 * lines) * rows), layout="constrained")
    axes = figure.subplots(rows, across, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, one in zip(axes, drawn, strict=False):
        assert one.image is not None
        axis.imshow(one.image.permute(1, 2, 0).numpy(), interpolation="nearest")
        labels = [
            f"{_short(name, 14)}: {_short(found[0][0], 16)} {found[0][1]:.0%}"
            for name, found in one.labels.items()
        ]
        axis.set_title(_short(one.path.name, 24), fontsize=7, parse_math=False)
        axis.text(
            0.5, -0.04, "\n".join(labels), fontsize=6, ha="center", va="top",
            transform=axis.transAxes, parse_math=False,
        )  # fmt: skip
    figure.savefig(path, dpi=150)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
