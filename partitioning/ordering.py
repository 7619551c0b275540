"""The order in which channels with equal subsets are laid out."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from partitioning.sharing import BoolArray


def chain(subset_NT: BoolArray) -> NDArray[np.intp]:
    """Orders different subsets of tasks so that each task's channels form few runs.

    A task begins a run of channels wherever it joins from one subset to the next, so subsets that
    differ in few tasks belong side by side. The chain begins with the largest subset and grows at
    either end by the nearest subset left (Hamming distance; ties to the tail, then to the larger
    subset, then to the one with earlier tasks). The empty subset comes last, so that unused
    channels lie at the end.

    Args:
        subset_NT: (N, T), the subsets, no two alike.

    Returns:
        (N,), positions in `subset_NT`, in order.

    Example:
        >>> chain(np.array([[1, 0], [0, 0], [0, 1], [1, 1]], dtype=bool)).tolist()
        [2, 3, 0, 1]
    """
    size_N = subset_NT.sum(axis=1)
    # Sorted by preference once, so that a tie below is settled by position: argmin takes the first.
    preferred = np.lexsort([*~subset_NT.T[::-1], -size_N])
    remaining = [int(n) for n in preferred if size_N[n] > 0]
    order = deque([remaining.pop(0)] if remaining else [])
    while remaining:
        to_tail = (subset_NT[remaining] != subset_NT[order[-1]]).sum(axis=1)
        to_head = (subset_NT[remaining] != subset_NT[order[0]]).sum(axis=1)
        if to_head.min() < to_tail.min():
            order.appendleft(remaining.pop(int(np.argmin(to_head))))
        else:
            order.append(remaining.pop(int(np.argmin(to_tail))))
    order.extend(int(n) for n in preferred if size_N[n] == 0)
    return np.array(order, dtype=np.intp)
