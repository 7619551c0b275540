"""Rows chosen at random so that classes keep their shares.

Legend: N rows of a split.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partitioning import IntArray


def stratified(labels: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Chooses rows at random so that each class keeps its share.

    Args:
        labels: int64 (N,).
        count: at least the number of classes, at most N.
        rng: decides which rows of a class.

    Returns:
        int64 (count,), ascending; every class is among them.
    """
    shuffled = rng.permutation(len(labels))
    quantile = np.empty(len(labels))
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        quantile[rows] = np.arange(len(rows)) / len(rows)  # a first row of 0 keeps every class
    ranked = shuffled[np.argsort(quantile[shuffled], kind="stable")]
    return np.sort(ranked[:count]).astype(np.int64)


def draw_parts(
    labels: IntArray, shares: Mapping[str, float], rng: np.random.Generator
) -> dict[str, IntArray]:
    """Divides rows at random into a training split and others, class by class.

    Args:
        labels: int64 (N,).
        shares: by name of the other splits, how much of every class they take, in (0, 1).
        rng: decides which rows.

    Returns:
        "train" and the others -> int64, ascending, no row twice. Every class has a row to train
        on, and one in each of the others, in their order, as far as it has so many.
    """
    parts: dict[str, list[IntArray]] = {"train": [], **{name: [] for name in shares}}
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        start, left = 0, len(shares)
        for name, share in shares.items():
            left -= 1
            spare = len(rows) - start - 1 - left  # one to train on, and one for each that follows
            count = max(min(round(len(rows) * share), spare), min(1, len(rows) - start - 1))
            parts[name].append(rows[start : start + count])
            start += count
        parts["train"].append(rows[start:])
    return {name: np.sort(np.concatenate(found)) for name, found in parts.items()}
