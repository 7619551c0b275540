"""Spaces: how a vector in [0, 1]^d is decoded into masks, and a sharing matrix encoded back.

Legend of shapes: T tasks, C channels of a group, E = T (T + 1) / 2 free entries of P.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from partitioning.decoded import Decoded, Space, check_names, check_vector
from partitioning.masks import ChannelGroup, Masks, VirtualNetwork
from partitioning.nested import NestedSpace
from partitioning.projection import project
from partitioning.sharing import (
    NO_CHOICE,
    TOLERANCE,
    BoolArray,
    FloatArray,
    SharingMatrixError,
    check_sharing_matrix,
    entry_tasks,
    matrix_to_vector,
    pairwise_bounds,
    realised,
    refine,
    refine_backward,
    unrefine,
    vector_to_matrix,
)
from partitioning.solver import Solution, solve, solve_backward
from partitioning.solver_config import SolverConfig, check_num_tasks
from partitioning.space_config import SpaceConfig

__all__ = ["SPACES", "Decoded", "NestedSpace", "SharingSpace", "Space", "SpaceConfig"]

# How near the linear programme comes to a P that is realisable.
SOLVED = 1e-6


class SharingSpace:
    """The vector is raw P: for all groups, or for each; then, where searched, raw backward P.

    Within each P the diagonal comes first, then the upper triangle by rows (see
    `sharing.matrix_to_vector`). Forward entries run linearly over the bounds in the config;
    backward entries over all of [0, 1], inside what the forward masks leave (see
    `sharing.refine_backward`).

    Args:
        tasks: names of the T tasks, each once.
        groups: the channel groups.
        config: what is searched.
        solver: limits of every single solve.

    Raises:
        ValueError: no tasks or groups, a name twice, or more tasks than the solver takes.
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
        check_num_tasks(len(self._tasks))
        num_tasks = len(self._tasks)
        self._entries = num_tasks * (num_tasks + 1) // 2
        self._block = self._entries * (2 if config.backward else 1)
        num_blocks = len(self._groups) if config.per_group else 1
        self.dim = num_blocks * self._block
        self.use_dims = tuple(
            block * self._block + task for block in range(num_blocks) for task in range(num_tasks)
        )
        self.use_steps: int | None = None
        self.concerns = entry_tasks(num_tasks) * (self.dim // self._entries)
        low_TT = np.full((num_tasks, num_tasks), config.overlap[0], dtype=np.float64)
        high_TT = np.full((num_tasks, num_tasks), config.overlap[1], dtype=np.float64)
        np.fill_diagonal(low_TT, config.use[0])
        np.fill_diagonal(high_TT, config.use[1])
        self._low_TT, self._high_TT = low_TT, high_TT

    def names(self) -> list[str]:
        """One name per position, such as "use[cifar10]" and "overlap[cifar10,gtsrb]".

        Backward entries begin with "backward_"; with one P per group all are preceded by
        "<group>/".
        """
        rows, columns = np.triu_indices(len(self._tasks), k=1)
        entries = [f"use[{task}]" for task in self._tasks]
        entries += [
            f"overlap[{self._tasks[i]},{self._tasks[j]}]"
            for i, j in zip(rows, columns, strict=True)
        ]
        if self._config.backward:
            entries += [f"backward_{entry}" for entry in entries]
        if not self._config.per_group:
            return entries
        return [f"{group.name}/{entry}" for group in self._groups for entry in entries]

    def decode(self, vector: ArrayLike) -> Decoded:
        """Solves for the masks of a vector.

        Groups of equal width and equal P get the same masks.

        Args:
            vector: (dim,), entries in [0, 1].

        Raises:
            ValueError: another shape, or an entry that is NaN or out of range, which is named.
        """
        blocks = check_vector(vector, self.names()).reshape(-1, self._block)
        # Equal blocks and widths are one problem; solving it once also makes the masks equal.
        solved: dict[tuple[bytes, int, int], tuple[list[FloatArray], list[Solution]]] = {}
        targets: dict[str, FloatArray] = {}
        solutions: dict[str, Solution] = {}
        for number, group in enumerate(self._groups):
            block = blocks[number if self._config.per_group else 0]
            run = group.run(self._config.multiple_of)
            key = (block.tobytes(), group.width, run)
            if key not in solved:
                solved[key] = self._solve(block, -(-group.width // run))
            for name, target, solution in zip(
                (group.name, f"{group.name}.backward"), *solved[key], strict=False
            ):
                targets[name], solutions[name] = target, solution
        return Decoded(
            masks=self._masks(solutions),
            solutions=solutions,
            target=targets,
            nearest=lambda: self._realisable(blocks),
        )

    def encode(self, P: ArrayLike) -> FloatArray:
        """The vector that decodes to the target P in every group, and to backward = forward.

        Args:
            P: (T, T), a target or realised P.

        Returns:
            (dim,), in [0, 1].

        Raises:
            SharingMatrixError: no P that a pair of tasks could realise, or outside the bounds that
                this space searches; the message names the tasks and the bound.
        """
        target_TT = check_sharing_matrix(P, tasks=self._tasks)
        raw_TT = unrefine(target_TT, tasks=self._tasks)
        # Where a pair has no choice, every raw value means the same: take one within the bounds.
        P_min, P_max = pairwise_bounds(np.diag(target_TT))
        fixed = (P_max - P_min <= NO_CHOICE) & ~np.eye(len(raw_TT), dtype=np.bool_)
        raw_TT = np.where(fixed, self._high_TT, raw_TT)
        outside = (raw_TT < self._low_TT - TOLERANCE) | (raw_TT > self._high_TT + TOLERANCE)
        for i, j in np.argwhere(outside)[:1]:
            setting, entry = "overlap", f"overlap[{self._tasks[i]},{self._tasks[j]}]"
            if i == j:
                setting, entry = "use", f"use[{self._tasks[i]}]"
            raise SharingMatrixError(
                f"{entry} must lie within space.{setting} = "
                f"[{self._low_TT[i, j]}, {self._high_TT[i, j]}], got {raw_TT[i, j]:.6g}; "
                f"widen space.{setting} to include it"
            )
        span_TT = self._high_TT - self._low_TT
        searched = span_TT > 0
        unit_TT = np.where(searched, (raw_TT - self._low_TT) / np.where(searched, span_TT, 1), 1)
        forward = matrix_to_vector(np.clip(unit_TT, 0, 1))
        block = np.concatenate([forward, np.ones(self._block - self._entries)])
        return np.tile(block, self.dim // self._block)

    def _realisable(self, blocks: FloatArray) -> FloatArray | None:
        """The vector with the nearest realisable forward P in every block."""
        try:
            return np.concatenate([self._nearest(block) for block in blocks])
        except TimeoutError:
            return None

    def _nearest(self, block: FloatArray) -> FloatArray:
        """The block with the nearest realisable forward P; what is realisable stays as it is."""
        unit_TT = vector_to_matrix(block[: self._entries], len(self._tasks))
        span_TT = self._high_TT - self._low_TT
        target_TT = refine(self._low_TT + unit_TT * span_TT)
        nearest_TT = project(target_TT, self._solver)
        if np.allclose(nearest_TT, target_TT, rtol=0, atol=SOLVED):
            return block
        raw_TT = unrefine(nearest_TT, tasks=self._tasks)
        P_min, P_max = pairwise_bounds(np.diag(nearest_TT))
        meant = (span_TT > 0) & ((P_max - P_min > SOLVED) | np.eye(len(raw_TT), dtype=np.bool_))
        nearest = (raw_TT - self._low_TT) / np.where(span_TT > 0, span_TT, 1)
        realisable_TT = np.where(meant, np.clip(nearest, 0, 1), unit_TT)
        return np.concatenate([matrix_to_vector(realisable_TT), block[self._entries :]])

    def _solve(self, block: FloatArray, width: int) -> tuple[list[FloatArray], list[Solution]]:
        """Targets and solutions of one block at one width: forward, and backward if searched."""
        unit_TT = vector_to_matrix(block[: self._entries], len(self._tasks))
        target = refine(self._low_TT + unit_TT * (self._high_TT - self._low_TT))
        solution = solve(target, width, self._solver)
        if not self._config.backward:
            return [target], [solution]
        raw_TT = vector_to_matrix(block[self._entries :], len(self._tasks))
        backward_target = refine_backward(raw_TT, realised(solution.masks_TC))
        backward = solve_backward(backward_target, solution.masks_TC, self._solver)
        return [target, backward_target], [solution, backward]

    def _masks(self, solutions: Mapping[str, Solution]) -> Masks:
        def side(suffix: str) -> dict[str, BoolArray]:
            runs = {g.name: g.run(self._config.multiple_of) for g in self._groups}
            return {
                g.name: solutions[g.name + suffix].masks_TC.repeat(runs[g.name], axis=1)[
                    :, : g.width
                ]
                for g in self._groups
            }

        return Masks(
            networks=tuple(VirtualNetwork(task=task) for task in self._tasks),
            groups=self._groups,
            forward=side(""),
            backward=side(".backward") if self._config.backward else None,
        )


SPACES: dict[str, Callable[..., Space]] = {
    "sharing": SharingSpace,
    "unit_order": NestedSpace,
    "block_level": NestedSpace,
}
