"""A calibration as a picture: the proxy's scores against full training, task by task."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from search.calibration.verdict import MEAN_ACCURACY
from search.report import GREY, INK

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    from matplotlib.axes import Axes


def scatter_figure(table: pd.DataFrame, summary: Mapping[str, Any], path: Path) -> None:
    """Draws a panel for each task and one for the mean accuracy over tasks, as PNG.

    Args:
        table: a row per candidate and seed, see `calibration_table`; the first seed is drawn.
        summary: has correlations and the noise between seeds, see `summarise`.
        path: where to write.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    panels = [*summary["tasks"], MEAN_ACCURACY]
    # The fewest empty places, then as square as can be.
    widths = range(3, 6) if len(panels) > 3 else (len(panels),)
    columns = min(widths, key=lambda n: (-len(panels) % n, abs(n - math.sqrt(len(panels)))))
    rows = -(-len(panels) // columns)
    size = (2.5 * columns + 0.9, 2.7 * rows + 0.75)
    figure = Figure(figsize=size, dpi=170, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    colours = LinearSegmentedColormap.from_list("use", ["#9ecae1", "#0072B2", "#08244a"])
    first = table[table["seed"] == 0] if len(table) else table
    drawn = None
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8e8e8", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, colors=INK)
        axes.margins(0.08)
        axes.locator_params(nbins=5)
        axes.set_title(_title(panel, summary), fontsize=9, loc="left")
        if len(first):
            x_N, y_N = (_scores(first, side, panel) for side in ("proxy", "full"))
            drawn = axes.scatter(
                x_N, y_N, c=first["use"], cmap=colours, vmin=0, vmax=1, s=22, alpha=0.9,
                edgecolors="white", linewidths=0.4,
            )  # fmt: skip
        _draw_noise(axes, summary["noise"].get(panel, {}).get("seed_std"))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("accuracy by the proxy", fontsize=10)
    figure.supylabel("accuracy after full training", fontsize=10)
    count = summary["candidates"]
    bars = "; bars: one standard deviation between seeds, up and down"
    title = f"The proxy against full training, {count} candidates"
    figure.suptitle(title + bars * bool(summary["trained_twice"]), fontsize=10.5, color=INK)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=grid, shrink=0.7, aspect=30, pad=0.02)
        bar.set_label("mean share of channels in use", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    figure.savefig(path, format="png")


def _title(panel: str, summary: Mapping[str, Any]) -> str:
    """The panel's name; below it Pearson's r, that of use alone, and what is left given use."""
    figures = (("proxy", "pearson"), ("use", "pearson"), ("proxy", "partial"))
    values = (summary[score][name].get(panel, {}).get("value") for score, name in figures)
    words = ("undefined" if value is None else f"{value:.2f}" for value in values)
    return "{}\nr = {}, of use alone {},\ngiven use {}".format(panel, *words)


def _scores(table: pd.DataFrame, side: str, panel: str) -> np.ndarray:
    if panel == MEAN_ACCURACY:
        own = [name for name in table.columns if name.startswith(f"{side}/")]
        return table[own].mean(axis=1).to_numpy()  # type: ignore[no-any-return]
    return table[f"{side}/{panel}"].to_numpy()  # type: ignore[no-any-return]


def _draw_noise(axes: "Axes", noise: float | None) -> None:
    """A bar in the lower right corner, as high as chance moves a point."""
    if not noise:
        return
    low, high = axes.get_ylim()
    centre = max(low + 0.06 * (high - low) + noise, low + 0.12 * (high - low))
    axes.errorbar(
        [0.95], [centre], yerr=[noise], transform=axes.get_yaxis_transform(),
        color=GREY, elinewidth=1.2, capsize=2.5, fmt="none",
    )  # fmt: skip
    axes.set_ylim(low, max(high, centre + noise))
