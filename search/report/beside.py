"""Full trainings side by side with what they are held against: a table, Markdown and a picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.report.figures import COLOURS, GREY, INK

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd

#: Accuracies of single networks, trained in full, that the Visual Decathlon's score is counted from
#: (Rebuffi et al. 2017, table 1).
DECATHLON: Mapping[str, float] = {
    "imagenet12": 0.5987, "aircraft": 0.6034, "cifar100": 0.8212, "daimlerpedcls": 0.9282,
    "dtd": 0.5553, "gtsrb": 0.9753, "vgg-flowers": 0.8141, "omniglot": 0.8769, "svhn": 0.9655,
    "ucf101": 0.5120,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way to have a network for every task.

    Attributes:
        name: What it is called.
        accuracy: By seed, split and task.
        use: Share of the divided channels that a task uses, mean over tasks.
        parameters: Weights of a task's network, mean over tasks.
        macs: Multiply-accumulates of a task's network for an image, mean over tasks.
        stored: Weights that are kept for all tasks.
    """

    name: str
    accuracy: Mapping[int, Mapping[str, Mapping[str, float]]]
    use: float
    parameters: float
    macs: float
    stored: float


def standing(rows: Sequence[Row]) -> "pd.DataFrame":
    """A table of rows, of which the first is what others are held against.

    Args:
        rows: All of the same tasks; the first is single-task networks.

    Returns:
        For each split, validation first, and row: split, row, seeds; for each task and for "mean"
        the mean over seeds and, as `<name>_std`, the standard deviation (ddof 1; NaN for one seed);
        delta_m, the mean over tasks of the relative difference to the first row in percent
        (Maninis et al. 2019, eq. 4); decathlon, the score (Rebuffi et al. 2017, eq. 1) where the
        tasks are its; use, parameters, macs, stored.
    """
    import pandas as pd

    tasks = list(next(iter(rows[0].accuracy.values()))["validation"])
    found = []
    for split in ("validation", "test"):
        if not all(split in of_seed for row in rows for of_seed in row.accuracy.values()):
            continue
        single_T = _accuracies(rows[0], split, tasks).mean(axis=0)
        for row in rows:
            each_ST = _accuracies(row, split, tasks)
            mean_T, means_S = each_ST.mean(axis=0), each_ST.mean(axis=1)
            entry: dict[str, object] = {"split": split, "row": row.name, "seeds": len(each_ST)}
            for name, values_S in (*zip(tasks, each_ST.T, strict=True), ("mean", means_S)):
                entry[name] = float(values_S.mean())
                entry[f"{name}_std"] = (
                    float(values_S.std(ddof=1)) if len(values_S) > 1 else math.nan
                )
            with np.errstate(divide="ignore", invalid="ignore"):
                entry["delta_m"] = float(100 * ((mean_T - single_T) / single_T).mean())
            if set(tasks) <= DECATHLON.keys():
                scores = [decathlon_score(dict(zip(tasks, own, strict=True))) for own in each_ST]
                entry["decathlon"] = float(np.mean(scores))
            costs = {n: getattr(row, n) for n in ("use", "parameters", "macs", "stored")}
            found.append(entry | costs)
    return pd.DataFrame(found)


def decathlon_score(accuracy: Mapping[str, float]) -> float:
    """The Visual Decathlon's score of accuracies by task, 1000 at most for each.

    Rebuffi et al. 2017, eq. 1: errors count against twice those of single networks, squared.

    Example:
        >>> round(decathlon_score({"svhn": 0.9655}), 6), decathlon_score({"svhn": 1.0})
        (250.0, 1000.0)
    """
    found = 0.0
    for task, value in accuracy.items():
        most = 2 * (1 - DECATHLON[task])
        found += 1000 * (max(0.0, most - (1 - value)) / most) ** 2
    return found


def standing_markdown(table: "pd.DataFrame") -> str:
    """The table in Markdown, a part for each split, the compared one first."""
    tasks = _tasks(table)
    scored = "decathlon" in table
    names = ["", "seeds", *tasks, "mean", "Delta_m, %", *["Decathlon score"] * scored]
    names += ["use", "weights", "stored", "MACs"]
    parts = []
    for split in list(dict.fromkeys(table["split"]))[::-1]:
        lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
        for entry in table[table["split"] == split].to_dict("records"):
            cells = [str(entry["row"]), str(entry["seeds"])]
            cells += [_with_spread(entry[n], entry[f"{n}_std"]) for n in (*tasks, "mean")]
            cells.append(f"{entry['delta_m']:+.1f}")
            cells += [f"{entry['decathlon']:.0f}"] if scored else []
            cells.append(f"{entry['use']:.2f}")
            cells += [f"{entry[n] / 1e6:.3g} M" for n in ("parameters", "stored", "macs")]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append(f"{split.capitalize()} accuracy:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def standing_figure(table: "pd.DataFrame", path: Path) -> None:
    """Draw the mean accuracy of every row, and how each task differs from its single network.

    Args:
        table: As `standing` gives it.
        path: A PNG.
    """
    from matplotlib.figure import Figure

    split = compared_split(table)
    own = table[table["split"] == split].reset_index(drop=True)
    tasks, places = _tasks(table), np.arange(len(own))
    figure = Figure(figsize=(5.2 + 0.75 * len(tasks), 1.6 + 0.42 * len(own)), dpi=150,
                    layout="constrained")  # fmt: skip
    left, right = figure.subplots(1, 2, width_ratios=[4, 0.4 + 0.75 * len(tasks)])
    left.errorbar(
        own["mean"], places, xerr=own["mean_std"].fillna(0), fmt="o", color=COLOURS[0], capsize=3
    )
    left.axvline(own["mean"].iloc[0], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    shown = [f"{row}  ({use:.0%})" for row, use in zip(own["row"], own["use"], strict=True)]
    left.set_yticks(places, shown, fontsize=9)
    left.invert_yaxis()
    left.set_xlabel(f"mean {split} accuracy, standard deviation over seeds", fontsize=9)
    left.set_title("row (mean use of channels)", fontsize=9.5, loc="left")
    left.spines[["top", "right"]].set_visible(False)
    left.grid(axis="x", color="#e8e8e8", linewidth=0.7)
    left.tick_params(labelsize=9, colors=INK)
    points = 100 * (own[tasks].to_numpy() - own[tasks].to_numpy()[:1])
    most = max(1.0, float(np.abs(points).max()))
    right.imshow(points, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
    for (row, column), value in np.ndenumerate(points):
        dark = abs(value) > 0.6 * most
        right.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=8,
                   color="white" if dark else INK)  # fmt: skip
    right.set_xticks(range(len(tasks)), tasks, rotation=40, ha="right", fontsize=8.5)
    right.set_yticks([])
    right.set_title("points above\nsingle-task", fontsize=9.5, loc="left")
    figure.savefig(path, format="png")


def compared_split(table: "pd.DataFrame") -> str:
    """The split that rows are compared on: test where all tasks have one."""
    return str(table["split"].iloc[-1])


def _tasks(table: "pd.DataFrame") -> list[str]:
    columns = list(table.columns)
    return [n for n in columns[3 : columns.index("mean")] if not n.endswith("_std")]


def _accuracies(row: Row, split: str, tasks: Sequence[str]) -> NDArray[np.float64]:
    """(S, T), seeds ascending."""
    seeds = sorted(row.accuracy)
    return np.array([[row.accuracy[seed][split][task] for task in tasks] for seed in seeds])


def _with_spread(mean: float, std: float) -> str:
    return f"{mean:.3f}" if math.isnan(std) else f"{mean:.3f} ± {std:.3f}"
