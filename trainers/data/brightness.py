"""Whether all images of a task are stored on one scale, where their type does not say which it is.

Images on a smaller scale than others (0 to 1 among 0 to 255, 12 bits among 16) come out black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray, IntArray
from trainers.data.sources.base import some
from trainers.data.sources.pixels import Extent
from trainers.data.sources.scale import BYTES, Scale

#: So many times as bright as the brightest value of a split is that of another: two bits.
SPLITS_APART = 4
#: Likewise of classes, and of the images of a split; what they show may be dark, too.
CLASSES_APART = IMAGES_APART = 8
#: So many dark images of a class, or of a split, are no chance.
FEW = 3
#: And this part of a split's.
LEAST_PART = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bright:
    """The images of one split that have values of one type, and are not all 0.

    Attributes:
        reach: (N,), how far the values of each get from 0.
        labels: (N,), indices into the classes.
    """

    reach: FloatArray
    labels: IntArray


def scale_notes(
    classes: Sequence[str],
    extents: Mapping[str, Sequence[Extent]],
    labels: Mapping[str, IntArray],
    scales: Mapping[str, Scale],
) -> list[str]:
    """Notes of splits, classes and images that are so dark that their scale may be another.

    Args:
        classes: names of the classes.
        extents: by split, of each image.
        labels: by split, int64 (N,), indices into the classes.
        scales: what was read off all values, by type of these. Images of 8 bits, whose type says
            what is white, are passed over.
    """
    notes: list[str] = []
    for kind, scale in scales.items():
        if kind == BYTES:
            continue
        splits = {name: _bright(kind, extents[name], labels[name]) for name in extents}
        splits = {name: bright for name, bright in splits.items() if len(bright.reach)}
        found = _of_splits(splits, scale)
        for name, bright in splits.items():
            found += [f"{name}: {note}" for note in _within(classes, bright, scale)]
        mend = "store all alike, or set white if they are"
        notes += [f"{note} of {kind} values; {mend}" for note in found]
    return notes


def _of_splits(splits: Mapping[str, _Bright], scale: Scale) -> list[str]:
    """Notes of splits that are darker than another."""
    tops = {name: float(bright.reach.max()) for name, bright in splits.items()}
    if not tops:
        return []
    brightest = max(tops, key=lambda name: tops[name])
    return [
        f"{name} reaches only {_shade(top, scale)}, {brightest} {tops[brightest]:g}"
        for name, top in tops.items()
        if top * SPLITS_APART <= tops[brightest]
    ]


def _within(classes: Sequence[str], bright: _Bright, scale: Scale) -> list[str]:
    """Notes of classes of a split that are darker than others; else of images that are."""
    highest = bright.reach.max()
    dark = []
    for label in np.unique(bright.labels):
        reach = bright.reach[bright.labels == label]
        if len(reach) >= FEW and reach.max() * CLASSES_APART <= highest:
            dark.append(f"{classes[label]} {_shade(reach.max(), scale)}")
    if dark:
        return [f"{len(dark)} of the classes reach only little ({some(dark)}), others {highest:g}"]
    reach = np.sort(bright.reach)
    gaps = np.flatnonzero(reach[:-1] * IMAGES_APART <= reach[1:]) + 1  # so many lie below each
    gaps = gaps[gaps >= max(FEW, LEAST_PART * len(reach))]
    return [
        f"{below} of {len(reach)} images reach only {_shade(reach[below - 1], scale)}, the others "
        f"{reach[below]:g} and more"
        for below in gaps[-1:]
    ]


def _shade(value: float, scale: Scale) -> str:
    shade = 255 * (value - scale.black) / (scale.white - scale.black)
    return f"{value:g} ({round(min(max(shade, 0), 255))} of 255)"


def _bright(kind: str, extents: Sequence[Extent], labels: IntArray) -> _Bright:
    rows = [row for row, extent in enumerate(extents) if extent.kind == kind]
    reach = np.array([max(abs(extents[row].low), abs(extents[row].high)) for row in rows])
    lit = np.flatnonzero(reach > 0)
    return _Bright(reach=reach[lit], labels=labels[np.array(rows, dtype=np.int64)[lit]])
