"""How long networks take, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def latency_figure(
    lines: Mapping[str, Mapping[int, Sequence[float]]], machine: str, path: Path
) -> None:
    """Draw milliseconds for an image by how many are computed at a time.

    Args:
        lines: By name and batch, milliseconds for a batch, of each network.
        machine: What they were measured on.
        path: Of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axis = figure.subplots()
    for name, by_batch in lines.items():
        batches = sorted(by_batch)
        each = np.array([[ms / batch for ms in by_batch[batch]] for batch in batches])
        axis.plot(batches, each.mean(axis=1), marker="o", label=name)
        axis.fill_between(batches, each.min(axis=1), each.max(axis=1), alpha=0.2)
    axis.set_xscale("log", base=2)
    axis.set_ylim(bottom=0)
    axis.set_xticks(sorted({batch for one in lines.values() for batch in one}))
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.set_xlabel("images at a time")
    axis.set_ylabel("milliseconds for an image")
    axis.set_title(f"mean and range over networks, {machine}", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def front_latency_figure(
    lines: Mapping[str, Sequence[tuple[float, float]]], machine: str, path: Path
) -> None:
    """Draw quality by measured latency.

    Args:
        lines: By name, of each candidate its latency, relative to the undivided network, and its
            quality.
        machine: What they were measured on.
        path: Of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axis = figure.subplots()
    for name, points in lines.items():
        latency, quality = np.array(sorted(points)).T
        axis.plot(latency, quality, marker="o", label=name)
    axis.set_xlabel("latency, relative to the undivided network")
    axis.set_ylabel("quality")
    axis.set_title(f"mean over networks, {machine}", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
