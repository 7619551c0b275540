"""Nested virtual networks: orders of units and levels of blocks, decoded into masks.

The channels of a group are split into units. A task has an order of the units; each of its levels
uses the first few of them, so that a higher level has every channel of the lower ones (Kim et al.
2019, Deep Virtual Networks, section 3.2: h^{p,j}(W) is a subset of h^{q,j}(W) for p <= q). With one
fixed order for all tasks, tasks share whatever the lesser of them uses (Ahn et al. 2019, Deep
Elastic Networks, section 3.1: a block's level l_i).

Legend of shapes: T tasks, L levels of a task, U units, C channels of a group, B decisions that a
vector holds: one for all groups, or one for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from partitioning.decoded import Decoded, check_names, check_vector
from partitioning.masks import ChannelGroup, Masks, VirtualNetwork
from partitioning.sharing import (
    BoolArray,
    FloatArray,
    IntArray,
    SharingMatrixError,
    check_sharing_matrix,
)
from partitioning.solver import solve
from partitioning.solver_config import SolverConfig
from partitioning.space_config import WHOLE, SpaceConfig
from partitioning.virtual import split_units


def unit_masks(order_TU: IntArray, counts_TL: IntArray, width: int) -> BoolArray:
    """Masks of tasks that use the first units of an order.

    Args:
        order_TU: for every task the units, each once, the first to be used first.
        counts_TL: how many units each level of a task uses, 0 to U.
        width: C >= U; units are runs of channels whose sizes differ by one at most.

    Returns:
        (T L, C) boolean, the levels of the first task first.

    Example:
        >>> order_TU = np.array([[0, 1, 2], [2, 1, 0]])
        >>> unit_masks(order_TU, np.array([[1, 3], [1, 2]]), 6).astype(int).tolist()
        [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]]
    """
    place_TU = np.argsort(order_TU, axis=1)
    used_TLU = place_TU[:, None, :] < counts_TL[:, :, None]
    units = order_TU.shape[1]
    unit_C = split_units(width, [1 / units] * units)
    return np.asarray(used_TLU[:, :, unit_C].reshape(-1, width), dtype=np.bool_)


def level_counts(count_T: IntArray, levels: Sequence[float]) -> IntArray:
    """Units that every level of a task uses, (T, L): its share of the task's, rounded, 1 at least.

    A task that uses no unit uses none at any level.

    Args:
        count_T: units of every task's highest level.
        levels: L shares, above 0 and ascending to 1.

    Example:
        >>> level_counts(np.array([0, 1, 4]), (0.25, 0.5, 1.0)).tolist()
        [[0, 0, 0], [1, 1, 1], [1, 2, 4]]
    """
    share_TL = np.outer(count_T, levels)
    nearest_TL = np.floor(share_TL + 0.5 + WHOLE).astype(np.int64)
    return np.minimum(np.maximum(nearest_TL, 1), count_T[:, None])


class NestedSpace:
    """The vector says how many units each task uses and, in a unit_order space, which first.

    For all groups, or for each: first the use of every task, then, in a unit_order space, for
    every task a priority per unit. The interval of a use is split evenly among the numbers of units
    within `use`. A task's order is that of its priorities, the highest first, and the lower unit
    first where two are equal. In a block_level space the order is that of the channels, for all
    tasks.

    Differs from the papers: DVN gives task i the order that starts at unit i and goes on with its
    neighbours (eq. 3), as many levels as units, and divides all feature maps, streams too
    (`virtual_masks`). Here orders are searched, of the groups that a study divides, and `levels`
    are shares of what a task uses. DEN selects levels of blocks for every input (eq. 1-3), this
    space for every task.

    Shares of levels are not searched: where quality and cost are means over levels, they have one
    optimum, at which all levels are nearly equal, and a lower budget would not be met.

    Args:
        tasks: names of the T tasks, each once.
        groups: the channel groups.
        config: what is searched, of kind "unit_order" or "block_level".
        solver: limits of the search for orders that fit a P, in `encode`.

    Raises:
        ValueError: no tasks or groups, a name twice, or a group of fewer channels than units.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        groups: Sequence[ChannelGroup],
        config: SpaceConfig,
        solver: SolverConfig,
    ) -> None:
        self._tasks, self._groups = tuple(tasks), tuple(groups)
        self._config, self._solver = config, solver
        check_names(self._tasks, self._groups)
        for group in self._groups:
            runs = -(-group.width // group.run(config.multiple_of))
            if runs < config.units:
                raise ValueError(
                    "space.units must be at most the channels of every group (or the units that "
                    f"only go together), got {config.units} for {group.name} with {runs}"
                )
        self._ordered = config.kind == "unit_order"
        self._fewest, self._most = config.unit_range
        self._steps = self._most - self._fewest + 1
        self.use_steps: int | None = self._steps
        self._by_group = config.per_group or config.kind == "block_level"
        num_tasks, num_blocks = len(self._tasks), len(self._groups) if self._by_group else 1
        entries: list[tuple[int, ...]] = [(task,) for task in range(num_tasks)]
        if self._ordered:
            entries += [(task,) for task in range(num_tasks) for _ in range(config.units)]
        self._block = len(entries)
        self.dim = num_blocks * self._block
        self.concerns = tuple(entries * num_blocks)
        self.use_dims = tuple(
            block * self._block + task for block in range(num_blocks) for task in range(num_tasks)
        )

    def names(self) -> list[str]:
        """One name per position, such as "use[cifar10]" and "priority[cifar10,unit0]".

        Where every group has its own they are preceded by "<group>/".
        """
        entries = [f"use[{task}]" for task in self._tasks]
        if self._ordered:
            units = range(self._config.units)
            entries += [f"priority[{task},unit{unit}]" for task in self._tasks for unit in units]
        if not self._by_group:
            return entries
        return [f"{group.name}/{entry}" for group in self._groups for entry in entries]

    def decode(self, vector: ArrayLike) -> Decoded:
        """The masks of a vector, a row for every level of every task.

        A residual stream keeps one unit where a task uses none.

        Args:
            vector: (dim,), entries in [0, 1].

        Raises:
            ValueError: another shape, or an entry that is NaN or out of range, which is named.
        """
        blocks = check_vector(vector, self.names()).reshape(-1, self._block)
        choices = [self._choice(block) for block in blocks]
        forward = {}
        for number, group in enumerate(self._groups):
            count_T, order_TU = choices[number if self._by_group else 0]
            if group.kind == "stream":
                count_T = np.maximum(count_T, 1)
            counts_TL = level_counts(count_T, self._config.levels)
            run = group.run(self._config.multiple_of)
            runs_RC = unit_masks(order_TU, counts_TL, -(-group.width // run))
            forward[group.name] = runs_RC.repeat(run, axis=1)[:, : group.width]
        levels = range(len(self._config.levels))
        masks = Masks(
            networks=tuple(
                VirtualNetwork(task=task, level=level) for task in self._tasks for level in levels
            ),
            groups=self._groups,
            forward=forward,
        )
        nearest = np.concatenate([self._entries(*choice) for choice in choices])
        return Decoded(masks=masks, solutions={}, target={}, nearest=lambda: nearest)

    def encode(self, P: ArrayLike) -> FloatArray:
        """A vector whose highest levels share as P asks in every group of whole units.

        Args:
            P: (T, T), a target or realised P.

        Returns:
            (dim,), in [0, 1].

        Raises:
            SharingMatrixError: P does not come in whole units, asks for more or less use than is
                searched, or no units (of a block_level space, no prefixes) share so.
        """
        target_TT = check_sharing_matrix(P, tasks=self._tasks)
        num_units = self._config.units
        goal_TT = np.rint(target_TT * num_units).astype(np.int64)
        for i, j in np.argwhere(np.abs(target_TT * num_units - goal_TT) > WHOLE)[:1]:
            raise SharingMatrixError(
                f"P[{self._tasks[i]}, {self._tasks[j]}] must be a whole number of {num_units} "
                f"units, got {target_TT[i, j]:.6g}"
            )
        count_T = np.diag(goal_TT)
        for task in np.flatnonzero((count_T < self._fewest) | (count_T > self._most))[:1]:
            raise SharingMatrixError(
                f"use[{self._tasks[task]}] must lie within space.use = {list(self._config.use)}, "
                f"got {target_TT[task, task]:.6g}; widen space.use to include it"
            )
        used_TU = np.arange(num_units) < count_T[:, None]
        if self._ordered:
            used_TU = solve(target_TT, num_units, self._solver).masks_TC
        if not np.array_equal(used_TU.astype(np.int64) @ used_TU.T, goal_TT):
            what = "no units of the tasks" if self._ordered else "no first units of a fixed order"
            raise SharingMatrixError(f"{what} share as P asks, got P = {target_TT.tolist()}")
        order_TU = np.argsort(~used_TU, axis=1, kind="stable")
        return np.tile(self._entries(count_T, order_TU), self.dim // self._block)

    def _choice(self, block: FloatArray) -> tuple[IntArray, IntArray]:
        """What a block says: how many units (T,) every task uses, and their order (T, U)."""
        num_tasks, num_units = len(self._tasks), self._config.units
        chosen_T = (block[:num_tasks] * self._steps).astype(np.int64)
        chosen_T = np.minimum(chosen_T, self._steps - 1)
        order_TU = np.tile(np.arange(num_units), (num_tasks, 1))
        if self._ordered:
            priority_TU = block[num_tasks:].reshape(num_tasks, num_units)
            order_TU = np.argsort(-priority_TU, axis=1, kind="stable")
        return self._fewest + chosen_T, order_TU

    def _entries(self, count_T: IntArray, order_TU: IntArray) -> FloatArray:
        """A block that says just this: uses and priorities evenly spaced, from 0 to 1."""
        use_T = (count_T - self._fewest) / max(1, self._most - self._fewest)
        if not self._ordered:
            return np.asarray(use_T, dtype=np.float64)
        place_TU = np.argsort(order_TU, axis=1)
        priority_TU = 1 - place_TU / max(1, self._config.units - 1)
        return np.concatenate([use_T, priority_TU.ravel()])
