"""The sharing matrix P: which fraction of the channels each task uses and each pair shares.

Legend of shapes: T tasks, C channels of a group, R virtual networks (rows of the masks).
Equation numbers are those of Newell et al. 2019, "Feature Partitioning for Efficient Multi-Task
Architectures", appendix A.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Wider than the rounding of any chain of float64 operations here, far narrower than one channel.
TOLERANCE = 1e-9

# Where the bounds of a pair are no further apart, its raw entry means nothing: dividing by so small
# a span would only amplify rounding.
NO_CHOICE = 1e-12


class SharingMatrixError(ValueError):
    """A matrix is no sharing matrix; the message names the entry, or the pair of tasks."""


def check_sharing_matrix(P: ArrayLike, *, tasks: Sequence[str] | None = None) -> FloatArray:
    """Checks that `P` could be a sharing matrix, whether raw, target or realised.

    Args:
        P: (T, T), symmetric, entries in [0, 1]. Deviations up to 1e-9 pass as rounding.
        tasks: T names to use in messages; positions are used without them.

    Returns:
        A float64 copy, exactly symmetric and within [0, 1].

    Raises:
        SharingMatrixError: not numeric, not square, empty, of another size than `tasks`, or an
            entry is NaN, outside [0, 1] or not the same on both sides of the diagonal.
    """
    try:
        matrix = np.array(P, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SharingMatrixError(f"P must be a (T, T) matrix of numbers: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise SharingMatrixError(
            f"P must be square, (T, T) with at least one task, got shape {matrix.shape}"
        )
    if tasks is not None and len(tasks) != len(matrix):
        raise SharingMatrixError(
            f"P must be (T, T) = ({len(tasks)}, {len(tasks)}) for the tasks {list(tasks)}, "
            f"got shape {matrix.shape}"
        )
    # Written so that NaN, for which every comparison is false, counts as wrong.
    wrong = np.argwhere(~((matrix >= -TOLERANCE) & (matrix <= 1 + TOLERANCE)))
    if len(wrong):
        i, j = wrong[0]
        raise SharingMatrixError(
            f"entries of P must lie in [0, 1], got {_entry(i, j, tasks)} = {matrix[i, j]}"
        )
    wrong = np.argwhere(np.abs(matrix - matrix.T) > TOLERANCE)
    if len(wrong):
        i, j = wrong[0]
        raise SharingMatrixError(
            f"P must be symmetric, got {_entry(i, j, tasks)} = {matrix[i, j]} "
            f"but {_entry(j, i, tasks)} = {matrix[j, i]}"
        )
    return np.clip((matrix + matrix.T) / 2, 0.0, 1.0)


def pairwise_bounds(use: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The least and the most that two tasks can share, given what each of them uses.

    Args:
        use: (T,), fraction of the channels that each task uses, in [0, 1].

    Returns:
        P_min and P_max, both (T, T) in [0, 1]: eq. 2 and eq. 3. Only the entries off the diagonal
        mean anything.

    Raises:
        SharingMatrixError: `use` is not a vector of numbers in [0, 1].

    Example:
        >>> P_min, P_max = pairwise_bounds([0.75, 0.5])
        >>> float(P_min[0, 1]), float(P_max[0, 1])
        (0.25, 0.5)
    """
    use_T = np.array(use, dtype=np.float64)
    if use_T.ndim != 1 or not ((use_T >= 0) & (use_T <= 1)).all():
        raise SharingMatrixError(f"use must be a vector of fractions in [0, 1], got {use!r}")
    D = np.broadcast_to(use_T[:, None], (len(use_T), len(use_T)))  # eq. 1
    P_max = np.minimum(D, D.T)  # eq. 3
    # 1.0 + 0.3 - 1 rounds to more than 0.3, hence the outer minimum.
    P_min = np.minimum(np.maximum(0.0, D + D.T - 1.0), P_max)  # eq. 2
    return P_min, P_max


def refine(raw: ArrayLike) -> FloatArray:
    """Maps a raw P to the target P that each pair of tasks could realise (eq. 1-4).

    The diagonal stays; off it, 0 becomes the least and 1 the most that the pair can share. Bounds
    that hold for every pair do not ensure masks for three or more tasks: see `solver.solve`.

    Args:
        raw: (T, T), a sharing matrix with entries in [0, 1].

    Returns:
        (T, T), the target.

    Raises:
        SharingMatrixError: `raw` is no sharing matrix.

    Example:
        >>> refine([[0.75, 0.5], [0.5, 0.5]]).tolist()
        [[0.75, 0.375], [0.375, 0.5]]
    """
    raw_TT = check_sharing_matrix(raw)
    return _between(raw_TT, np.diag(raw_TT), *pairwise_bounds(np.diag(raw_TT)))  # eq. 4


def unrefine(target: ArrayLike, *, tasks: Sequence[str] | None = None) -> FloatArray:
    """A raw P that `refine` maps to `target`: a right inverse of eq. 4.

    Args:
        target: (T, T), within the pairwise bounds, as every realised P is.
        tasks: T names to use in messages; positions are used without them.

    Returns:
        (T, T), with 1.0 for pairs whose bounds coincide, where every raw value means the same.

    Raises:
        SharingMatrixError: no sharing matrix, or a pair outside its bounds, which is named.

    Example:
        >>> unrefine([[0.75, 0.375], [0.375, 0.5]]).tolist()
        [[0.75, 0.5], [0.5, 0.5]]
    """
    target_TT = check_sharing_matrix(target, tasks=tasks)
    P_min, P_max = pairwise_bounds(np.diag(target_TT))
    outside = (target_TT < P_min - TOLERANCE) | (target_TT > P_max + TOLERANCE)
    np.fill_diagonal(outside, False)
    for i, j in np.argwhere(outside)[:1]:
        raise SharingMatrixError(
            f"{_entry(i, j, tasks)} must lie between {P_min[i, j]} and {P_max[i, j]}, the least "
            f"and the most that tasks using {target_TT[i, i]} and {target_TT[j, j]} can share, "
            f"got {target_TT[i, j]}"
        )
    span = P_max - P_min
    free = span > NO_CHOICE
    raw_TT = np.where(free, (target_TT - P_min) / np.where(free, span, 1.0), 1.0)
    raw_TT = np.clip(raw_TT, 0.0, 1.0)
    np.fill_diagonal(raw_TT, np.diag(target_TT))
    return raw_TT


def refine_backward(raw: ArrayLike, forward_realised: ArrayLike) -> FloatArray:
    r"""Maps a raw backward P to the target for backward masks inside given forward masks.

    With F the realised forward P and b_i = raw_ii F_ii, the weights that task i may change are a
    b_i of all channels, and two tasks can have in common at least
    max(0, b_i + b_j - |F_i \cup F_j| / C) and at most min(b_i, b_j, F_ij), where
    |F_i \cup F_j| / C = F_ii + F_jj - F_ij. Raw entries off the diagonal go from the one to the
    other.

    Args:
        raw: (T, T), a sharing matrix; the diagonal is the share of its own forward channels whose
            weights a task may change.
        forward_realised: (T, T), realised P of the forward masks.

    Returns:
        (T, T), the backward target, as fractions of all channels. An all-ones `raw` gives
        `forward_realised`: every task may change all that it reads.

    Raises:
        SharingMatrixError: either is no sharing matrix, or their sizes differ.

    Differs from the paper: it defines backward masks as subsets of the forward masks (section 3)
    and does not say how their P is refined; this is eq. 2-4 inside the forward masks.

    Example:
        >>> refine_backward([[0.5, 1.0], [1.0, 1.0]], [[0.5, 0.25], [0.25, 0.5]]).tolist()
        [[0.25, 0.25], [0.25, 0.5]]
    """
    raw_TT = check_sharing_matrix(raw)
    F = check_sharing_matrix(forward_realised)
    if raw_TT.shape != F.shape:
        raise SharingMatrixError(
            f"raw and forward_realised must have one shape, got {raw_TT.shape} and {F.shape}"
        )
    own_T = np.diag(raw_TT) * np.diag(F)
    union = np.diag(F)[:, None] + np.diag(F) - F
    upper = np.minimum(np.minimum(own_T[:, None], own_T), F)
    lower = np.minimum(np.maximum(0.0, own_T[:, None] + own_T - union), upper)
    return _between(raw_TT, own_T, lower, upper)


def realised(masks_RC: BoolArray) -> FloatArray:
    """The P that masks really have: M^T M / C, with one row of the masks per virtual network.

    Args:
        masks_RC: (R, C) boolean, C >= 1.

    Returns:
        (R, R): the fraction of channels that each row, and each pair of rows, has set.

    Raises:
        SharingMatrixError: not a boolean (R, C) array, or without channels.

    Example:
        >>> realised(np.array([[1, 1, 0, 0], [0, 1, 1, 1]], dtype=bool)).tolist()
        [[0.5, 0.25], [0.25, 0.75]]
    """
    if masks_RC.ndim != 2 or masks_RC.dtype != np.bool_ or masks_RC.shape[1] == 0:
        raise SharingMatrixError(
            f"masks must be a boolean (R, C) array with channels, got {masks_RC.dtype} "
            f"of shape {masks_RC.shape}"
        )
    counts_RC = masks_RC.astype(np.float64)
    return np.asarray(counts_RC @ counts_RC.T / masks_RC.shape[1], dtype=np.float64)


def round_to_channels(target: FloatArray, channels: int) -> IntArray:
    """Rounds a target to whole channels; halves go to the even number.

    A target that passed through `unrefine` and `refine` carries rounding of about 1e-16, which must
    not decide which way a half goes; it is cleared first.

    Example:
        >>> round_to_channels(np.array([[0.3, 0.1], [0.1, 0.3 - 1e-16]]), 5).tolist()
        [[2, 0], [0, 2]]
    """
    return np.rint(np.round(target * channels, 9)).astype(np.int64)


def matrix_to_vector(P: ArrayLike) -> FloatArray:
    """Lays out P's free entries: the diagonal in task order, then the upper triangle by rows.

    Args:
        P: (T, T) symmetric.

    Returns:
        (T (T + 1) / 2,).

    Raises:
        SharingMatrixError: `P` is no sharing matrix.

    Example:
        >>> matrix_to_vector([[0.1, 0.4, 0.5], [0.4, 0.2, 0.6], [0.5, 0.6, 0.3]]).tolist()
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    """
    matrix = check_sharing_matrix(P)
    return np.concatenate([np.diag(matrix), matrix[np.triu_indices(len(matrix), k=1)]])


def entry_tasks(num_tasks: int) -> tuple[tuple[int, ...], ...]:
    """The tasks that every entry of `matrix_to_vector` is about, by position.

    Args:
        num_tasks: T >= 1.

    Returns:
        T (T + 1) / 2 of them: a task each of the uses, a pair each of the overlaps.

    Example:
        >>> entry_tasks(3)
        ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
    """
    return (*((task,) for task in range(num_tasks)), *combinations(range(num_tasks), 2))


def vector_to_matrix(vector: ArrayLike, num_tasks: int) -> FloatArray:
    """The inverse of `matrix_to_vector`.

    Args:
        vector: (T (T + 1) / 2,), in [0, 1].
        num_tasks: T >= 1.

    Returns:
        (T, T) symmetric.

    Raises:
        SharingMatrixError: another length, or an entry outside [0, 1].

    Example:
        >>> vector_to_matrix([0.1, 0.2, 0.5], 2).tolist()
        [[0.1, 0.5], [0.5, 0.2]]
    """
    entries = np.array(vector, dtype=np.float64)
    expected = num_tasks * (num_tasks + 1) // 2
    if entries.shape != (expected,):
        raise SharingMatrixError(
            f"the vector must have shape (T (T + 1) / 2,) = ({expected},) for T = {num_tasks} "
            f"tasks, got {entries.shape}"
        )
    matrix = np.diag(entries[:num_tasks])
    rows, columns = np.triu_indices(num_tasks, k=1)
    matrix[rows, columns] = matrix[columns, rows] = entries[num_tasks:]
    return check_sharing_matrix(matrix)


def _between(
    raw_TT: FloatArray, diagonal_T: FloatArray, lower: FloatArray, upper: FloatArray
) -> FloatArray:
    """Eq. 4 for any bounds: raw entries off the diagonal go linearly from `lower` to `upper`."""
    # Rounding may carry the sum past the end it should reach.
    target = np.clip(raw_TT * (upper - lower) + lower, lower, upper)
    np.fill_diagonal(target, diagonal_T)
    return target


def _entry(i: int, j: int, tasks: Sequence[str] | None) -> str:
    return f"P[{i}, {j}]" if tasks is None else f"P[{tasks[i]}, {tasks[j]}]"
