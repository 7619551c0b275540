"""The front as a picture for a README. N points; coordinates are (cost, quality) or pixels."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.candidates import (
    REFERENCE,
    Candidate,
    coordinates,
    front,
    history,
    scored,
    study_hypervolume,
)
from search.report.labels import gap, place_names

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, GREY = "#222222", "#555555"
MARKERS = ("D", "P", "s", "^", "X", "v", "h", "p")
QUALITY = "mean validation accuracy over tasks"
COST = "mean share of channels in use"


def front_figure(
    candidates: Sequence[Candidate],
    path: Path,
    reference: tuple[float, float] = REFERENCE,
    *,
    quality: str = QUALITY,
    cost: str = COST,
) -> None:
    """Draws all candidates and their front, and hypervolume as the search went on, as PNG.

    Args:
        candidates: of a study; failed ones are left out, those with a label are baselines.
        path: where to write.
        reference: quality and cost of the hypervolume's reference point.
        quality: what quality is, in words.
        cost: what cost is, in words.
    """
    figure = draw_front(candidates, reference, quality=quality, cost=cost)
    figure.savefig(path, format="png")


def draw_front(
    candidates: Sequence[Candidate],
    reference: tuple[float, float] = REFERENCE,
    *,
    quality: str = QUALITY,
    cost: str = COST,
) -> "Figure":
    """The picture that `front_figure` writes, with the same arguments."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.8, 5.0), dpi=170, layout="constrained")
    points, volumes = figure.subplots(1, 2, width_ratios=(1.7, 1))
    for axes in (points, volumes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8e8e8", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9, colors=INK)
        axes.margins(0.05)
    _draw_points(points, candidates)
    _draw_volumes(volumes, candidates, reference)
    volume = study_hypervolume(candidates, reference)
    count = len(scored(candidates))
    title = f"Front of {count:,} candidate{'s' * (count != 1)}, hypervolume {volume:.4f}"
    points.set_title(title if count else "No candidate scored yet", fontsize=11, loc="left")
    volumes.set_title("Hypervolume during the search", fontsize=11, loc="left")
    points.set_xlabel(f"cost: {cost}", fontsize=10)
    points.set_ylabel(f"quality: {quality}", fontsize=10)
    volumes.set_xlabel("candidates of a strategy and seed", fontsize=10)
    corner = f"cost {reference[1]:g}, quality {reference[0]:.3g}"
    volumes.set_ylabel(f"hypervolume, seen from {corner}", fontsize=10)
    volumes.xaxis.get_major_locator().set_params(integer=True)
    handles, names = points.get_legend_handles_labels()
    if names:
        place = "outside lower center"
        figure.legend(handles, names, loc=place, ncols=6, fontsize=9.5, frameon=False)
    figure.draw_without_rendering()  # settles where things are, which labels must know
    _name_baselines(points, candidates)
    return figure


def _draw_points(axes: "Axes", candidates: Sequence[Candidate]) -> None:
    for name, colour in colours(candidates).items():
        found = [c for c in scored(candidates) if c.strategy == name and not c.label]
        if found:
            x, y = coordinates(found).T
            axes.scatter(x, y, s=20, color=colour, alpha=0.55, linewidths=0, label=name)
    for marker, found in _baselines(candidates).items():
        x, y = coordinates(found).T
        axes.scatter(
            x, y, s=44, marker=marker, color=GREY, edgecolors="white", linewidths=0.6, zorder=4
        )
    members = front(candidates)
    if _baselines(candidates):
        axes.scatter([], [], s=44, marker="D", color=GREY, edgecolors="white", label="baselines")
    if members:
        axes.plot(*attained(candidates).T, color=INK, linewidth=1.3, zorder=3, label="front")
        x, y = coordinates(members).T
        axes.scatter(x, y, s=30, facecolors="none", edgecolors=INK, linewidths=1.1, zorder=3)


def _draw_volumes(
    axes: "Axes", candidates: Sequence[Candidate], reference: tuple[float, float]
) -> None:
    for name, colour in colours(candidates).items():
        arms: dict[int, list[Candidate]] = {}
        for candidate in candidates:
            if candidate.strategy == name and not candidate.label:
                arms.setdefault(candidate.seed, []).append(candidate)
        curves = [history(arm, reference)["hypervolume"].to_numpy() for arm in arms.values()]
        for curve in curves:
            dot = "o" if len(curve) == 1 else None
            steps = np.arange(1, len(curve) + 1)
            axes.plot(steps, curve, color=colour, linewidth=0.9, alpha=0.5, marker=dot)
        if len(curves) > 1:
            common = min(map(len, curves))
            mean = np.mean([curve[:common] for curve in curves], axis=0)
            axes.plot(np.arange(1, common + 1), mean, color=colour, linewidth=2.2)
        elif curves:
            axes.lines[-1].set(linewidth=2.2, alpha=1)
    if baselines := [c for c in scored(candidates) if c.label]:
        volume = study_hypervolume(baselines, reference)
        axes.axhline(volume, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"{len({c.label for c in baselines})} baselines together",
            (0, volume),  # where curves begin, far below
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=8.5,
            color=GREY,
        )


def _name_baselines(axes: "Axes", candidates: Sequence[Candidate]) -> None:
    """Writes each baseline's name beside its first point, clear of names, points and front."""
    from matplotlib.patheffects import withStroke

    first: dict[str, Candidate] = {}
    for candidate in sorted(scored(candidates), key=lambda c: (c.seed, c.index)):
        if candidate.label:
            first.setdefault(candidate.label.replace("_", " "), candidate)
    if not first:
        return
    sizes = []
    for name in first:
        text = axes.text(0, 0, name, fontsize=8.5)
        sizes.append(text.get_window_extent().size)
        text.remove()
    obstacles_N2 = axes.transData.transform(coordinates(scored(candidates)))
    for begin_2, end_2 in pairwise(axes.transData.transform(attained(candidates))):
        dots = max(2, int(np.linalg.norm(end_2 - begin_2) / 10))
        obstacles_N2 = np.concatenate([obstacles_N2, np.linspace(begin_2, end_2, dots)])
    anchors_L2 = axes.transData.transform(coordinates(list(first.values())))
    unit = axes.figure.dpi / 72
    frame = np.array(axes.get_window_extent().extents)
    boxes_L4 = place_names(anchors_L2, np.array(sizes), obstacles_N2, frame, unit)
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 3}
    for name, anchor_2, box in zip(first, anchors_L2, boxes_L4, strict=True):
        axes.annotate(
            name,
            tuple(anchor_2),
            xycoords="figure pixels",
            xytext=tuple((box[:2] + box[2:]) / 2),
            textcoords="figure pixels",
            ha="center",
            va="center",
            fontsize=8.5,
            color=INK,
            zorder=6,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            arrowprops=line if gap(box, anchor_2) > 9 * unit else None,
        ).set_in_layout(False)


def attained(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Corners (K, 2) of the staircase: at each cost the best quality that costs no more."""
    members_F2 = coordinates(front(candidates))
    if len(members_F2) == 0:
        return members_F2
    dearest = coordinates(scored(candidates))[:, 0].max()
    x = np.append(np.repeat(members_F2[:, 0], 2)[1:], dearest)
    return np.stack([x, np.repeat(members_F2[:, 1], 2)], axis=1)


def colours(candidates: Sequence[Candidate]) -> dict[str, str]:
    """A colour for each strategy that is more than a list of baselines."""
    names = sorted({c.strategy for c in candidates if not c.label})
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def _baselines(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Baselines by marker; those whose names differ only in a number share theirs."""
    families: dict[str, list[Candidate]] = {}
    for candidate in scored(candidates):
        if candidate.label:
            families.setdefault(re.sub(r"_?\d+$", "", candidate.label), []).append(candidate)
    found: dict[str, list[Candidate]] = {}
    for i, name in enumerate(sorted(families)):
        found.setdefault(MARKERS[i % len(MARKERS)], []).extend(families[name])
    return found
