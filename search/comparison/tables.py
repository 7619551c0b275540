"""A comparison as tables: for a spreadsheet, for a page and for a terminal.

Legend of shapes: N seeds, G points of a grid.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from partitioning import FloatArray, write_atomically
from search.comparison.compare import Comparison, Standing
from search.comparison.verdicts import listed, number
from search.mirror import safe
from search.stats import LEVEL, RESAMPLES, Estimate, mean_interval

#: Points of a curve at most.
GRID = 200
#: What p covers, by what seeds have in common.
LUCK = {
    "shared": "What p covers is the luck of the search: all seeds share one trunk, one set of "
    "teachers and one proxy.",
    "per_seed": "What p covers is the luck of the whole method: every seed has a trunk, teachers "
    "and a proxy of its own.",
    "simulated": "What p covers is the luck of the search: all seeds have the same simulated "
    "problem.",
}


def strategy_table(comparison: Comparison) -> pd.DataFrame:
    """A row per strategy, the best first.

    Returns:
        Columns strategy, baseline, seeds, candidates, failed and stopped (over all seeds),
        hypervolume_mean, ci_low, ci_high, hypervolume_sd (over seeds), of_true_front (a share,
        where the true front is known), area (mean hypervolume over the search), seconds (mean
        device-seconds of an arm), hypervolume_at_seconds (after as many as every arm spent), what
        they have at every point, each with _low and _high (see `Point.key`), shortfall (additive
        epsilon to the front of all arms together) and idle (a share).
    """
    return pd.DataFrame([_row(standing, comparison) for standing in comparison.standings])


def _row(standing: Standing, comparison: Comparison) -> dict[str, object]:
    curves, volume = standing.curves, standing.volume
    true = comparison.true_hypervolume
    return {
        "strategy": standing.name,
        "baseline": standing.is_baseline,
        "seeds": len(curves),
        "candidates": sum(len(curve.volume_K) for curve in curves),
        "failed": sum(curve.failed for curve in curves),
        "stopped": sum(curve.stopped for curve in curves),
        "hypervolume_mean": volume.value,
        "ci_low": volume.low,
        "ci_high": volume.high,
        "hypervolume_sd": float(standing.volumes.std(ddof=1)) if len(curves) > 1 else math.nan,
        **({} if true is None else {"of_true_front": volume.value / true}),
        "area": float(np.mean([curve.area for curve in curves])),
        "seconds": float(np.mean([curve.seconds for curve in curves])),
        "hypervolume_at_seconds": standing.at_seconds if comparison.seconds else math.nan,
        **{
            key + suffix: value
            for key, found in standing.at_points.items()
            for suffix, value in (("", found.value), ("_low", found.low), ("_high", found.high))
        },
        "shortfall": standing.shortfall,
        "idle": standing.idle,
    }


def comparison_metrics(comparison: Comparison) -> dict[str, float]:
    """The numbers of `strategy_table`, by column and strategy."""
    rows = strategy_table(comparison).set_index("strategy")
    return {
        f"{column}/{safe(str(name))}": float(value)
        for column, values in rows.items()
        for name, value in values.items()
    }


def pair_table(comparison: Comparison) -> pd.DataFrame:
    """A row per pair of strategies, with the attributes of `Pair`; better is empty for none.

    Of pairs that were told apart better_at and worse_at list the points at which a is.
    """
    return pd.DataFrame(
        [
            {
                "a": pair.a,
                "b": pair.b,
                "difference": pair.difference.value,
                "ci_low": pair.difference.low,
                "ci_high": pair.difference.high,
                "won": pair.won,
                "p": pair.p,
                "p_adjusted": pair.p_adjusted,
                "better": pair.better or "",
                "better_at": " ".join(comparison.better_at(pair, pair.a)),
                "worse_at": " ".join(comparison.better_at(pair, pair.b)),
            }
            for pair in comparison.pairs
        ]
    )


def curve_table(comparison: Comparison) -> pd.DataFrame:
    """Mean hypervolume over seeds as the search went on, with its interval.

    Returns:
        Columns strategy, against ("candidates" or "seconds"), spent, mean, ci_low and ci_high; up
        to `GRID` points of a curve, which ends where the first of the strategy's arms does.
    """
    rng = np.random.default_rng(0)
    frames = []
    for standing in comparison.standings:
        curves = standing.curves
        least = min(len(curve.volume_K) for curve in curves)
        count_G = np.unique(np.linspace(1, least, GRID).round().astype(int))
        told_NG = np.array([curve.volume_K[count_G - 1] for curve in curves])
        frames.append(_curve(standing.name, "candidates", count_G, told_NG, rng))
        if comparison.seconds:
            second_G = np.linspace(0, min(curve.seconds for curve in curves), GRID)
            paid_NG = np.array([curve.after(second_G) for curve in curves])
            frames.append(_curve(standing.name, "seconds", second_G, paid_NG, rng))
    return pd.concat(frames, ignore_index=True)


def _curve(
    name: str, against: str, spent_G: FloatArray, volume_NG: FloatArray, rng: np.random.Generator
) -> pd.DataFrame:
    mean_G = volume_NG.mean(axis=0)
    low_G, high_G = mean_interval(volume_NG, rng) if len(volume_NG) > 1 else (mean_G, mean_G)
    columns = {"spent": spent_G, "mean": mean_G, "ci_low": low_G, "ci_high": high_G}
    return pd.DataFrame({"strategy": name, "against": against, **columns})


def strategy_rows(comparison: Comparison) -> list[list[str]]:
    """Heading and rows of the strategies for a reader; columns that tell nothing are left out.

    The columns that matter most come first.
    """
    table = strategy_table(comparison)
    shown: list[tuple[str, Callable[[pd.Series], str], bool]] = [
        ("strategy", lambda row: row["strategy"] + " (fixed)" * row["baseline"], True),
        ("hypervolume", lambda row: f"{row['hypervolume_mean']:.4f}", True),
        ("95 % interval", lambda row: f"{row['ci_low']:.4f} to {row['ci_high']:.4f}", True),
        (
            "of true front",
            lambda row: f"{row['of_true_front']:.1%}",
            comparison.true_hypervolume is not None,
        ),
        ("failed", lambda row: str(row["failed"]), bool(table["failed"].any())),
        ("during search", lambda row: f"{row['area']:.4f}", True),
        (
            f"after {comparison.seconds:.4g} s",
            lambda row: f"{row['hypervolume_at_seconds']:.4f}",
            comparison.seconds > 0,
        ),
        ("device-seconds", lambda row: f"{row['seconds']:.4g}", comparison.seconds > 0),
        ("epsilon", lambda row: f"{row['shortfall']:.4f}", True),
        ("idle", lambda row: _share(row["idle"]), bool(table["idle"].notna().any())),
        ("candidates", lambda row: str(row["candidates"]), True),
        ("stopped", lambda row: str(row["stopped"]), bool(table["stopped"].any())),
    ]
    columns = [(heading, cell) for heading, cell, wanted in shown if wanted]
    rows = [[cell(row) for _, cell in columns] for _, row in table.iterrows()]
    return [[heading for heading, _ in columns], *rows]


def point_rows(comparison: Comparison, *, intervals: bool) -> list[list[str]]:
    """Heading and rows of what strategies have at the points of the front, for a reader.

    Args:
        comparison: What was found.
        intervals: Whether to add them.
    """
    rows = [["strategy", *(point.heading for point in comparison.points)]]
    for standing in comparison.standings:
        cells = [
            f"{found.value:.3f}" + f" ({found.low:.3f} to {found.high:.3f})" * intervals
            for found in standing.at_points.values()
        ]
        rows.append([standing.name + " (fixed)" * standing.is_baseline, *cells])
    return rows


def pair_rows(comparison: Comparison) -> list[list[str]]:
    """Heading and rows of the pairs for a reader."""
    seeds = len(comparison.seeds)
    rows = [["pair", "difference", "95 % interval", "p adjusted", "better", "seeds won", "p"]]
    for pair in comparison.pairs:
        rows.append(
            [
                f"{pair.a} - {pair.b}",
                f"{pair.difference.value:.4f}",
                _interval(pair.difference),
                number(pair.p_adjusted),
                pair.better or "-",
                f"{pair.won * seeds:g} of {seeds}",
                number(pair.p),
            ]
        )
    return rows


def explanation(comparison: Comparison) -> list[str]:
    """How to read the tables, a sentence each, and what was left out."""
    quality, cost = comparison.reference
    budget = f"of {comparison.candidates} candidates in every arm that searches"
    if comparison.by_seconds:
        budget = (
            f"of what {comparison.seconds:.4g} device-seconds pay for in every arm that searches"
        )
    return [
        f"Means over {len(comparison.seeds)} seeds, {budget}; intervals: expanded percentile "
        f"bootstrap over seeds, {RESAMPLES} resamples.",
        f"Hypervolume: above quality {quality:.4g} and below cost {cost:.4g}, as a share of the "
        "area from there to quality 1 at no cost.",
        *_points_explained(comparison),
        "Tests: paired by seed, sign flips of the difference in hypervolume, two-sided; p adjusted "
        f"by Holm's method over {len(comparison.pairs)} pairs; better where it is below {LEVEL:g}. "
        "Points of the front are tested only in pairs that pass, corrected within the pair.",
        LUCK[comparison.foundations],
        *(f"{note[0].upper()}{note[1:]}." for note in comparison.notes),
    ]


def _points_explained(comparison: Comparison) -> Iterator[str]:
    """What the points of the front are."""
    at: dict[str, list[str]] = {"quality": [], "cost": []}
    for point in comparison.points:
        at[point.of].append(f"{np.mean(list(point.at.values())):.3f}")
    yield (
        "Quality at a share of the way from the least cost to share_all's: the best at no more "
        f"than {listed(at['quality'])}; without one that of guessing, "
        f"{comparison.reference[0]:.3f}."
    )
    if at["cost"]:
        yield (
            "Cost for a share of share_all's quality: the least with at least "
            f"{listed(at['cost'])}; share_all's without one."
        )


def comparison_markdown(comparison: Comparison) -> str:
    """Verdict, tables and how to read them."""
    parts = [
        f"**Verdict:** {comparison.verdict}",
        _markdown(strategy_rows(comparison)),
        _markdown(point_rows(comparison, intervals=True)),
        _markdown(pair_rows(comparison)),
        "\n".join(explanation(comparison)),
    ]
    return "\n\n".join(parts) + "\n"


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Prints tables, as many of their columns as fit, how to read them, and the verdict."""
    points = point_rows(comparison, intervals=False)
    for rows in (strategy_rows(comparison), points, pair_rows(comparison)):
        table = Table(box=None, pad_edge=False)
        room = console.width
        for position, cells in enumerate(zip(*rows, strict=True)):
            room -= max(map(len, cells)) + 2
            if room < -2:  # the last column has no space behind it
                break
            side: Literal["left", "right"] = "right" if position else "left"
            table.add_column(cells[0], justify=side, no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row[: len(table.columns)])
        console.print(table)
        console.print()
    for line in (*explanation(comparison), "", comparison.verdict):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write comparison.csv, pairs.csv, curves.csv and comparison.md; the paths."""
    for name, table in (
        ("comparison", strategy_table(comparison)),
        ("pairs", pair_table(comparison)),
        ("curves", curve_table(comparison)),
    ):
        with write_atomically(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    with write_atomically(folder / "comparison.md") as partial:
        partial.write_text(comparison_markdown(comparison))
    return [
        *(folder / f"{name}.csv" for name in ("comparison", "pairs", "curves")),
        folder / "comparison.md",
    ]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    ruled = [rows[0], ["---", *["--:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.4f} to {estimate.high:.4f}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"
