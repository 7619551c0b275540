"""What selectors choose: levels of blocks by method, level and task, and for which images."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.report.figures import INK

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd

    from trainers.data import Task

#: Structures of a task whose images are shown.
SHOWN = 4


def selection_figure(chosen: "pd.DataFrame", path: Path) -> None:
    """Draw how often each level of each block is chosen, a panel for each level and task.

    Of every method the first seed, and of the splits test where there is one.

    Args:
        chosen: As `chosen_points` gives it.
        path: A PNG.
    """
    from matplotlib.figure import Figure

    split, lines, tasks = _lines(chosen)
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


def chosen_images_figure(chosen: "pd.DataFrame", tasks: "Mapping[str, Task]", path: Path) -> None:
    """Draw images by the structure that is chosen for them, a panel for each level and task.

    Of every method the first seed; of every panel the structures of most images, a line for each.

    Args:
        chosen: As `chosen_points` gives it.
        tasks: With the images, by name.
        path: A PNG.
    """
    from matplotlib.figure import Figure

    split, lines, names = _lines(chosen)
    high = [0.3 + 0.42 * min(SHOWN, int(rows["different"].max())) for _, rows in lines]
    figure = Figure(
        figsize=(1.2 + 3.4 * len(names), 0.9 + sum(high)), dpi=150, layout="constrained"
    )
    grid = figure.subplots(len(lines), len(names), squeeze=False, height_ratios=high)
    for axes_of_line, ((method, level), rows) in zip(grid, lines, strict=True):
        for axes, name in zip(axes_of_line, names, strict=True):
            row = rows[rows["task"] == name].iloc[0]
            _mosaic(axes, row, tasks[name])
            what = f"{method}-{level}, {name}: {_counted(int(row['different']))}"
            axes.set_title(what, fontsize=8, loc="left")
    figure.suptitle(
        f"First {split} images of each structure\n(levels of blocks; images that have it)",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    figure.savefig(path, format="png")


def of_compared_split(chosen: "pd.DataFrame") -> "tuple[str, pd.DataFrame]":
    """The split that selectors are compared on, test where there is one, and its rows.

    Args:
        chosen: As `chosen_points` gives it.
    """
    split = "test" if (chosen["split"] == "test").any() else "validation"
    return split, chosen[chosen["split"] == split]


def _counted(structures: int) -> str:
    shown = f", the first {SHOWN}" if structures > SHOWN else ""
    return f"{structures} structure{'s' * (structures > 1)}{shown}"


def _mosaic(axes: Any, row: "pd.Series[Any]", task: "Task") -> None:
    """A task's images, a line for every structure."""
    import torch

    structures = json.loads(row["structures"])[:SHOWN]
    examples = json.loads(row["examples"])[:SHOWN]
    size, most = task.size, max(len(each) for each in examples)
    picture = np.full((len(structures) * size, most * size, 3), 255, dtype=np.uint8)
    for line, positions in enumerate(examples):
        images, _ = task.splits[row["split"]].take(torch.tensor(positions))
        for at, image in enumerate(images.cpu().numpy()):
            picture[line * size : (line + 1) * size, at * size : (at + 1) * size] = np.moveaxis(
                image, 0, -1
            )
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks(
        [(line + 0.5) * size for line in range(len(structures))],
        ["".join(map(str, levels)) + f"\n{count}" for levels, count in structures],
        fontsize=6.5,
        color=INK,
    )
    for side in axes.spines.values():
        side.set_visible(False)


def _lines(
    chosen: "pd.DataFrame",
) -> "tuple[str, list[tuple[tuple[str, int], pd.DataFrame]], list[str]]":
    """The split, the rows of every method's level with the first seed, and the tasks."""
    split, own = of_compared_split(chosen)
    own = own[own["seed"] == own.groupby("method")["seed"].transform("min")]
    lines: Any = list(own.groupby(["method", "level"], sort=False))
    return split, lines, list(dict.fromkeys(own["task"]))
