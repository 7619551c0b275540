"""A comparison of strategies as a picture: hypervolume, what it cost, and what was attained.

Legend of shapes: G points of a curve, B bands of cost.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from partitioning import FloatArray
from search.comparison.arm_curves import attainment
from search.comparison.compare import Comparison, Standing
from search.comparison.tables import curve_table
from search.report import COLOURS, COST, GREY, INK, QUALITY

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    from matplotlib.axes import Axes

#: Of strategies whose colours are the same.
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)))
#: Bands of cost over which what is lacking is averaged.
BANDS = 20
#: With more strategies bands are fainter, and that of attainment is left out.
FEW = 4


def comparison_figure(
    comparison: Comparison, path: Path, *, cost: str = COST, quality: str = QUALITY
) -> None:
    """Draws a comparison as PNG.

    Final hypervolume with intervals and all seeds, median attainment, mean hypervolume against
    candidates and against device-seconds with bands, and what the attained lacks of the front of
    all arms together.

    Args:
        comparison: At least two strategies that search.
        path: Where to write.
        cost: What cost is, in words.
        quality: What quality is, in words.
    """
    from matplotlib.figure import Figure

    standings = comparison.standings
    few = sum(not standing.is_baseline for standing in standings) <= FEW
    figure = Figure(figsize=(10.6, 11.2 + 0.12 * max(0, len(standings) - 5)), dpi=150)
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
    panels: dict[str, Axes] = figure.subplot_mosaic(
        [["final", "attained"], ["told", "paid"], ["lacking", "lacking"]], height_ratios=(1, 1, 0.8)
    )
    final, attained, told, paid, lacking = panels.values()
    for axes in panels.values():
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8e8e8", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9, colors=INK)
    styles = _styles(standings)
    curves = curve_table(comparison)
    _draw_final(final, standings, styles, len(comparison.seeds))
    _draw_curves(told, curves[curves["against"] == "candidates"], standings, styles, few)
    told.set_xlabel("candidates of a strategy and seed", fontsize=10)
    told.set_title("Hypervolume for the same number of candidates", fontsize=11, loc="left")
    _draw_curves(paid, curves[curves["against"] == "seconds"], standings, styles, few)
    paid.set_xlabel("device-seconds of a strategy and seed", fontsize=10)
    paid.set_title("Hypervolume for the same device-seconds", fontsize=11, loc="left")
    if not comparison.seconds:
        paid.text(0.5, 0.5, "none recorded", transform=paid.transAxes, ha="center", color=GREY)
    _draw_attainment(attained, standings, styles)
    attained.set_ylabel(f"quality: {quality}", fontsize=10)
    _draw_lacking(lacking, standings, styles, few)
    lacking.set_ylabel("quality short of all arms' front", fontsize=10)
    for axes in (attained, lacking):
        axes.set_xlabel(f"cost: {cost}", fontsize=10)
    handles, names = told.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(6, len(names)), fontsize=9.5,
        frameon=False, handlelength=2.6,
    )  # fmt: skip
    figure.savefig(path, format="png")


def _styles(standings: Sequence[Standing]) -> dict[str, dict[str, Any]]:
    """Colour and dashes by strategy; the colours are those of the front's picture."""
    searching = sorted(standing.name for standing in standings if not standing.is_baseline)
    found: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % 3]}
        for i, name in enumerate(searching)
    }
    grey = {"color": GREY, "linestyle": (0, (6, 2, 1, 2))}
    return found | {standing.name: grey for standing in standings if standing.is_baseline}


def _draw_final(
    axes: "Axes", standings: Sequence[Standing], styles: dict[str, dict[str, Any]], seeds: int
) -> None:
    """A row per strategy, the best on top: every seed, the mean and its interval."""
    for row, standing in enumerate(reversed(standings)):
        colour, volume = styles[standing.name]["color"], standing.volume
        volumes = standing.volumes
        # Seeds in their order, from the bottom up, so that none hides another.
        rows = row + np.linspace(-0.22, 0.22, len(volumes)) * (len(volumes) > 1)
        axes.scatter(volumes, rows, s=10, color=colour, alpha=0.45, linewidths=0)
        axes.plot([volume.low, volume.high], [row, row], color=colour, linewidth=2.2)
        axes.plot(
            volume.value, row, "o", color=colour, markersize=5, markeredgecolor="white", zorder=4
        )
    axes.set_yticks(range(len(standings)), [s.name for s in reversed(standings)], fontsize=9.5)
    axes.set_ylim(-0.6, len(standings) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.06)
    axes.set_xlabel("final hypervolume", fontsize=10)
    title = f"Mean and 95 % interval over {seeds} seeds (dots)"
    axes.set_title(title, fontsize=11, loc="left")


def _draw_curves(
    axes: "Axes",
    curves: pd.DataFrame,
    standings: Sequence[Standing],
    styles: dict[str, dict[str, Any]],
    few: bool,
) -> None:
    floors = []
    for standing in standings:
        style = styles[standing.name]
        own = curves[curves["strategy"] == standing.name]
        if standing.is_baseline:
            axes.axhline(standing.volume.value, **style, linewidth=1.3, label=standing.name)
            floors.append(standing.volume.value)
        elif len(own):
            spent_G, mean_G, low_G, high_G = (
                own[key].to_numpy() for key in ("spent", "mean", "ci_low", "ci_high")
            )
            axes.fill_between(
                spent_G, low_G, high_G, color=style["color"], alpha=0.16 if few else 0.07,
                linewidth=0,
            )  # fmt: skip
            axes.plot(spent_G, mean_G, **style, linewidth=1.9, label=standing.name)
            floors.append(mean_G[len(mean_G) // 6])
            floors.append(high_G.max())
    if floors:
        # The first candidates of all strategies are alike and would flatten what follows.
        low, high = min(floors), max(floors)
        axes.set_ylim(low - 0.08 * (high - low or 1), high + 0.08 * (high - low or 1))
    axes.margins(x=0.02)
    axes.set_ylabel("mean hypervolume and 95 % interval", fontsize=10)


def _draw_attainment(
    axes: "Axes", standings: Sequence[Standing], styles: dict[str, dict[str, Any]]
) -> None:
    """The median attainment surfaces, and the front of all arms together."""
    pooled_F2 = _pooled(standings)
    if len(pooled_F2):
        cost_G = np.linspace(pooled_F2[0, 0], _dearest(standings), 1000)
        axes.plot(cost_G, _quality(pooled_F2, cost_G), color=INK, linewidth=0.8)
        for standing in standings:
            median_G = _quality(standing.surface(0.5), cost_G)
            axes.plot(cost_G, median_G, **styles[standing.name], linewidth=1.7)
    axes.margins(0.03)
    axes.set_title("Attained by half of the seeds; thin: by any arm", fontsize=11, loc="left")


def _draw_lacking(
    axes: "Axes", standings: Sequence[Standing], styles: dict[str, dict[str, Any]], few: bool
) -> None:
    """The same as a difference, which tells strategies apart that are nearly alike."""
    pooled_F2 = _pooled(standings)
    floors = [0.0]
    if len(pooled_F2):
        cost_G = np.linspace(pooled_F2[0, 0], _dearest(standings), 40 * BANDS)
        best_G = _quality(pooled_F2, cost_G)
        centre_B = cost_G.reshape(BANDS, -1).mean(axis=1)
        for standing in standings:
            style = styles[standing.name]
            any_B, half_B, all_B = (
                (_quality(standing.surface(share), cost_G) - best_G).reshape(BANDS, -1).mean(axis=1)
                for share in (0, 0.5, 1)
            )
            if few and not standing.is_baseline:
                axes.fill_between(
                    centre_B, all_B, any_B, color=style["color"], alpha=0.13, linewidth=0
                )
            axes.plot(centre_B, half_B, **style, linewidth=1.9, marker="o", markersize=2.5)
            if not standing.is_baseline and np.isfinite(half_B).any():
                floors.append(float(np.nanpercentile(half_B, 5)))
    axes.set_ylim(1.35 * min(floors) or None, -0.05 * min(floors) or None)
    axes.margins(x=0.02)
    title = "What half of the seeds lack at the same cost" + "; band: all seeds to any seed" * few
    axes.set_title(title, fontsize=11, loc="left")


def _pooled(standings: Sequence[Standing]) -> FloatArray:
    """Cost and quality of the front of all arms together."""
    return attainment([curve.front_F2 for s in standings for curve in s.curves], 0)


def _dearest(standings: Sequence[Standing]) -> float:
    return max(
        float(curve.front_F2[-1, 0]) for s in standings for curve in s.curves if len(curve.front_F2)
    )


def _quality(corner_F2: FloatArray, cost_G: FloatArray) -> FloatArray:
    """The best quality (G,) at no more than a cost, NaN where there is none."""
    cheaper_G = np.searchsorted(corner_F2[:, 0], cost_G, side="right")
    return np.concatenate([[np.nan], corner_F2[:, 1]])[cheaper_G]
