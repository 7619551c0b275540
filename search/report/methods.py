"""What the methods of a study reach and cost: a table by level, and a picture by task."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.candidates import non_dominated
from search.report.figures import COLOURS, GREY, INK
from search.stats import Estimate, paired_interval

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd
    from matplotlib.axes import Axes

#: Of a picture, in inches.
WIDTH = 12.4
#: Columns of panels in a picture.
ACROSS = 3
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def measure_of(points: "pd.DataFrame") -> str:
    """Which split methods are compared on: test where all have one, else validation."""
    return "validation" if points["test"].isna().any() else "test"


def by_level(points: "pd.DataFrame") -> "pd.DataFrame":
    """Means over tasks, then over seeds.

    Args:
        points: A row for each (method, seed, level, task), as `method_points` gives them.

    Returns:
        A row for each method and level, as they come: method, level, seeds, parameters and macs of
        a network (means over tasks), stored, validation, test, and std, that of the compared split
        over seeds (ddof 1; NaN for one seed).
    """
    by_seed = _by_seed(points)
    split = measure_of(points)
    keys = ["method", "level"]
    found = by_seed.groupby(keys, sort=False)
    table = found[["parameters", "macs", "stored", "validation", "test"]].mean()
    table.insert(0, "seeds", found.size())
    table["std"] = found[split].std(ddof=1)
    return table.reset_index()


def difference(
    points: "pd.DataFrame", better: tuple[str, int], worse: tuple[str, int], split: str = "test"
) -> Estimate:
    """How much more accurate one level of a method is than one of another, seed by seed.

    Args:
        points: As for `by_level`.
        better: Method and level; -1 is its highest, -2 the next.
        worse: Likewise.
        split: validation or test, or another column of numbers.

    Raises:
        KeyError: There is no such method, or it has no such level.
        ValueError: They have no seeds in common.
    """
    by_seed = _by_seed(points)
    a, b = (_of(by_seed, method, level)[split] for method, level in (better, worse))
    common = a.index.intersection(b.index)
    if not len(common):
        raise ValueError(f"{better[0]} and {worse[0]} have no seeds in common")
    return paired_interval(a[common].to_numpy(), b[common].to_numpy())


def methods_figure(points: "pd.DataFrame", path: Path) -> None:
    """Draw accuracy against multiply-accumulates: the mean over tasks, then every task.

    Small marks are networks, one for each (task, level, method, seed), large ones their means over
    seeds; lines join the levels of a method, dotted ones those that are chosen per image.

    Args:
        points: As for `by_level`.
        path: A PNG.
    """
    from matplotlib.figure import Figure

    split = measure_of(points)
    tasks = list(dict.fromkeys(points["task"]))
    panels = [
        ("mean over tasks", _by_seed(points)),
        *((t, points[points["task"] == t]) for t in tasks),
    ]
    across = 2 if len(panels) == 4 else ACROSS
    rows = math.ceil(len(panels) / across)
    figure = Figure(figsize=(WIDTH, 3.9 * rows + 0.6), dpi=150, layout="constrained")
    grid = figure.subplots(rows, across, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, own) in zip(grid.flat, panels, strict=False):
        _draw(axes, own, split, list(dict.fromkeys(points["method"])))
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel("million multiply-accumulates for an image", fontsize=9.5)
        axes.set_ylabel(f"{split} accuracy", fontsize=9.5)
    handles, names = grid.flat[0].get_legend_handles_labels()
    columns = max(1, int(WIDTH / (0.65 + 0.066 * max(map(len, names)))))  # inches of a name
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(6, columns), fontsize=9.5,
        frameon=False,
    )  # fmt: skip
    figure.savefig(path, format="png")


def _draw(axes: "Axes", own: "pd.DataFrame", split: str, methods: Sequence[str]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e8e8e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=INK)
    axes.margins(0.07)
    keys = ["method", "level", "chosen"]
    means = own.groupby(keys, sort=False)[["macs", split]].mean().reset_index()
    on = non_dominated(means[split].to_numpy(), means["macs"].to_numpy())
    best = means[on].sort_values("macs")
    x = np.append(best["macs"], means["macs"].max()) / 1e6
    y = np.append(best[split], best[split].max())
    axes.step(
        x, y, where="post", color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1,
        label="front",
    )  # fmt: skip
    for number, method in enumerate(methods):
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number // len(COLOURS) % len(MARKERS)],
        }
        seeds, mean = (each[each["method"] == method] for each in (own, means))
        axes.scatter(seeds["macs"] / 1e6, seeds[split], s=9, alpha=0.4, linewidths=0, **style)
        for chosen, rows in mean.groupby("chosen"):
            line = rows.sort_values("macs") if chosen else rows
            look: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}
            if chosen:
                look = {"markerfacecolor": "white", "markeredgewidth": 1.4, "linestyle": ":"}
            axes.plot(
                line["macs"] / 1e6, line[split], markersize=6, linewidth=1.4, zorder=3,
                label=f"{method}, chosen per image" if chosen else method, **style | look,
            )  # fmt: skip
    axes.yaxis.label.set_color(GREY)


def _by_seed(points: "pd.DataFrame") -> "pd.DataFrame":
    """Means over tasks, of every seed."""
    numbers = ["validation", "test", "parameters", "macs", "stored"]
    keys = ["method", "seed", "level", "chosen"]
    found = points.groupby(keys, sort=False)[numbers]
    return found.agg(lambda column: column.mean(skipna=False)).reset_index()  # of all tasks or none


def _of(by_seed: "pd.DataFrame", method: str, level: int) -> "pd.DataFrame":
    own = by_seed[by_seed["method"] == method]
    if own.empty:
        raise KeyError(f"there is no method {method}; there are {sorted(set(by_seed['method']))}")
    levels = sorted(set(own["level"]))
    if level not in range(-len(levels), len(levels)):
        raise KeyError(f"{method} has levels {levels}, not {level}")
    return own[own["level"] == levels[level]].set_index("seed")
