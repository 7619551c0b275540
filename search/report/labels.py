"""Where names stand in a picture. L names, N obstacles, all in pixels.

A box is (left, bottom, right, top).
"""

from itertools import product

import numpy as np

from partitioning import FloatArray


def place_names(
    anchors_L2: FloatArray,
    sizes_L2: FloatArray,
    obstacles_N2: FloatArray,
    frame: FloatArray,
    unit: float,
) -> FloatArray:
    """Places names beside their points, one after the other, each where it disturbs least.

    Args:
        anchors_L2: the points that are named.
        sizes_L2: width and height of the names.
        obstacles_N2: what names should not cover: points, dots along lines.
        frame: the box that names should stay in.
        unit: pixels of a typographical point.

    Returns:
        A box for each name, (L, 4).
    """
    boxes_L4 = np.empty((0, 4))
    for anchor_2, size_2 in zip(anchors_L2, sizes_L2, strict=True):
        others_M2 = anchors_L2[(anchors_L2 != anchor_2).any(axis=1)]
        best, least = _nearby(anchor_2, size_2, unit)[0], np.inf
        for box in _nearby(anchor_2, size_2, unit):
            grown = box + unit * np.array([-2, -2, 2, 2])
            overlapped = (grown[:2] < boxes_L4[:, 2:]) & (boxes_L4[:, :2] < grown[2:])
            outside = (box[:2] < frame[:2]).any() or (box[2:] > frame[2:]).any()
            covered = ((obstacles_N2 > grown[:2]) & (obstacles_N2 < grown[2:])).all(axis=1).sum()
            # A name that is nearer to another point seems to be that one's.
            own, others_M = gap(box, anchor_2), gap(box, others_M2)
            mistaken = (others_M < own + 4 * unit).sum()
            badness = 1e6 * overlapped.all(axis=1).sum() + 1e5 * outside
            badness += unit * (20 * covered + 12 * mistaken) + own
            if badness < least:
                best, least = box, badness
        boxes_L4 = np.concatenate([boxes_L4, best[None]])
        leader_K2 = np.linspace(anchor_2, (best[:2] + best[2:]) / 2, 12)
        obstacles_N2 = np.concatenate([obstacles_N2, leader_K2])
    return boxes_L4


def gap(box: FloatArray, points_N2: FloatArray) -> FloatArray:
    """Distances (N,) of points to a box, or the distance of one point; 0 inside."""
    away_N2 = np.maximum(0, np.maximum(box[:2] - points_N2, points_N2 - box[2:]))
    return np.asarray(np.linalg.norm(away_N2, axis=-1))


def _nearby(anchor_2: FloatArray, size_2: FloatArray, unit: float) -> list[FloatArray]:
    """Boxes around a point, near ones first."""
    found = []
    for away, angle in product((6, 10, 16, 24, 34, 46, 60, 76), np.arange(0, 2 * np.pi, np.pi / 8)):
        way_2 = np.array([np.cos(angle), np.sin(angle)])
        middle_2 = anchor_2 + way_2 * (away * unit + size_2 / 2)
        found.append(np.concatenate([middle_2 - size_2 / 2, middle_2 + size_2 / 2]))
    return found
