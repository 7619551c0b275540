"""What selectors choose: the levels of blocks by method, level and task."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.report.figures import INK

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd


def selection_figure(chosen: "pd.DataFrame", path: Path) -> None:
    """Draw how often each level of each block is chosen, a panel for each level and task.

    Of every method the first seed, and of the splits test where there is one.

    Args:
        chosen: As `chosen_points` gives it.
        path: A PNG.
    """
    from matplotlib.figure import Figure

    split = "test" if (chosen["split"] == "test").any() else "validation"
    own = chosen[chosen["split"] == split]
    own = own[own["seed"] == own.groupby("method")["seed"].transform("min")]
    lines = list(own.groupby(["method", "level"], sort=False))
    tasks = list(dict.fromkeys(own["task"]))
    figure = Figure(
        figsize=(1.2 + 2.6 * len(tasks), 0.9 + 1.7 * len(lines)), dpi=150, layout="constrained"
    )
    grid = figure.subplots(len(lines), len(tasks), squeeze=False)
    shade = None
    for axes_of_line, ((method, level), rows) in zip(grid, lines, strict=True):
        for axes, task in zip(axes_of_line, tasks, strict=True):
            row = rows[rows["task"] == task].iloc[0]
            shares = np.array(json.loads(row["levels"])).T
            shade = axes.imshow(shares, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=1)
            axes.tick_params(labelsize=8, colors=INK)
            axes.set_yticks(range(len(shares)))
            axes.set_title(
                f"{task}: {row['macs'] / 1e6:.3g} M, {row['different']} of {row['images']}",
                fontsize=8.5, loc="left",
            )  # fmt: skip
        axes_of_line[0].set_ylabel(f"{method}-{level}", fontsize=9)
    figure.supxlabel("block", fontsize=9.5)
    figure.suptitle(
        f"Share of {split} images at each level of each block; mean multiply-accumulates, and how "
        "many structures",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    if shade is not None:
        figure.colorbar(shade, ax=grid, shrink=0.7, aspect=30)
    figure.savefig(path, format="png")
