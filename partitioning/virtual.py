"""The fixed masks of the papers on virtual networks: which units each task and level uses.

All groups of channels, residual streams too, are split into the same number of units. Level l of a
task uses the first l + 1 units of the task's order, so that it has about the square of their share
of the weights: what joins two units is there only where both are used (Kim et al. 2019, Deep
Virtual Networks, sections 3.1 and 4.2).

Legend of shapes: T tasks, L levels of a task, U units, C channels of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partitioning.masks import ChannelGroup, Masks, VirtualNetwork
from partitioning.sharing import BoolArray, IntArray


def neighbours_first(num_tasks: int) -> IntArray:
    """Each task's order of as many units: its own, then its neighbours by distance, lower first.

    Kim et al. 2019, eq. 3. For four tasks and more the paper leaves open whether neighbours are
    those of the task or of all units that it has so far; these are the task's.

    Args:
        num_tasks: T, which is U.

    Returns:
        (T, U), units from 0.

    Example:
        >>> neighbours_first(4).tolist()
        [[0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 3, 0], [3, 2, 1, 0]]
    """
    units = range(num_tasks)
    return np.array(
        [sorted(units, key=lambda unit: (abs(unit - task), unit)) for task in units],
        dtype=np.int64,
    )


def split_units(width: int, shares: Sequence[float]) -> IntArray:
    """The unit of each of a group's channels, which lie unit by unit.

    Args:
        width: C, at least as many as there are units.
        shares: of the channels for each unit, above 0 and 1 in all.

    Returns:
        (C,), ascending; each unit has a channel at least.

    Raises:
        ValueError: fewer channels than units, or shares that are no shares of 1.

    Example:
        >>> split_units(8, (0.5, 0.25, 0.25)).tolist()
        [0, 0, 0, 0, 1, 1, 2, 2]
        >>> split_units(5, (0.25, 0.25, 0.25, 0.25)).tolist()
        [0, 0, 1, 2, 3]
    """
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares of units must be above 0 and 1 in all, got {list(shares)}")
    if width < len(shares):
        raise ValueError(f"a group needs a channel for each of {len(shares)} units, got {width}")
    ends_U = np.ceil(np.cumsum(shares) * width - 1e-9).astype(np.int64)
    for unit in range(len(shares)):  # a channel at least, of those that the next ones can spare
        ends_U[unit] = np.clip(ends_U[unit], unit + 1, width - len(shares) + unit + 1)
        ends_U[unit] = max(ends_U[unit], ends_U[unit - 1] + 1 if unit else 1)
    return np.asarray(np.searchsorted(ends_U, np.arange(width), side="right"), dtype=np.int64)


def virtual_masks(
    tasks: Sequence[str],
    groups: Sequence[ChannelGroup],
    counts_TL: Sequence[Sequence[int]] | IntArray,
    *,
    order_TU: IntArray | None = None,
    shares: Sequence[float] | None = None,
) -> Masks:
    """Masks by units: those of DVN, of NestedNet and of grouped PackNet alike.

    Args:
        tasks: names of the T tasks.
        groups: what is divided; heads and other units of several channels are not split.
        counts_TL: how many units each level of each task uses, from 0 to U, ascending.
        order_TU: the order in which each task takes units; `neighbours_first` if None.
        shares: of the channels for each unit, in the order of units; equal if None.

    Returns:
        Rows of the first task first, each from its lowest level on.

    Raises:
        ValueError: shapes do not fit, counts are out of range or descend, an order is none of the
            units, or a group has fewer channels than units.

    Example:
        >>> groups = [ChannelGroup(name="conv", width=4)]
        >>> masks = virtual_masks(["a", "b"], groups, [[1, 2], [1, 2]])
        >>> masks.forward["conv"].astype(int).tolist()
        [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
    """
    order = neighbours_first(len(tasks)) if order_TU is None else np.asarray(order_TU)
    units = order.shape[1] if order.ndim == 2 else 0
    every = np.arange(units)
    if order.shape[0] != len(tasks) or not np.array_equal(
        np.sort(order, axis=1), np.tile(every, (len(tasks), 1))
    ):
        raise ValueError(
            f"an order must have each unit once, for each of {len(tasks)} tasks, got "
            f"{order.tolist()}"
        )
    counts = np.asarray(counts_TL)
    if counts.ndim != 2 or len(counts) != len(tasks):
        raise ValueError(f"counts of units must be (T, L) of {len(tasks)} tasks, got {counts}")
    if counts.min() < 0 or counts.max() > units or (np.diff(counts, axis=1) < 0).any():
        raise ValueError(
            f"levels must use 0 to {units} units, ascending within a task, got {counts.tolist()}"
        )
    shares = [1 / units] * units if shares is None else shares
    if len(shares) != units:
        raise ValueError(f"shares must be given for {units} units, got {list(shares)}")
    place_TU = np.argsort(order, axis=1)
    used_TLU = place_TU[:, None, :] < counts[:, :, None]
    forward: dict[str, BoolArray] = {}
    for group in groups:
        try:
            unit_C = split_units(group.width, shares)
        except ValueError as error:
            raise ValueError(f"group {group.name}: {error}") from error
        forward[group.name] = used_TLU[:, :, unit_C].reshape(-1, group.width)
    return Masks(
        networks=tuple(
            VirtualNetwork(task=task, level=level)
            for task in tasks
            for level in range(counts.shape[1])
        ),
        groups=tuple(groups),
        forward=forward,
    )
