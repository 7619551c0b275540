"""Fronts of quality (to be maximised) against cost (to be minimised). N candidates."""

import math

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Quality 0, and the cost of sharing every channel.
REFERENCE = (0.0, 1.0)


def _objectives(quality: ArrayLike, cost: ArrayLike) -> NDArray[np.float64]:
    """Both as objectives to be minimised, shape (N, 2)."""
    quality_N = np.asarray(quality, dtype=np.float64)
    cost_N = np.asarray(cost, dtype=np.float64)
    if quality_N.ndim != 1 or quality_N.shape != cost_N.shape:
        raise ValueError(
            f"quality and cost must both have shape (N,), got {quality_N.shape} and {cost_N.shape}"
        )
    return np.stack([-quality_N, cost_N], axis=1)


def non_dominated(quality: ArrayLike, cost: ArrayLike) -> NDArray[np.bool_]:
    """Says which candidates are on the front.

    A candidate is dominated if another one is at least as good in both and better in one. So of
    equal candidates all are on the front, or none.

    Args:
        quality: Shape (N,), to be maximised.
        cost: Shape (N,), to be minimised.

    Returns:
        Shape (N,). A candidate with a NaN is never on the front and dominates none.

    Raises:
        ValueError: If the shapes are not both (N,).

    Example:
        >>> non_dominated([0.9, 0.8, 0.7, float("nan")], [0.6, 0.3, 0.5, 0.1])
        array([ True,  True, False, False])
    """
    points_N2 = _objectives(quality, cost)
    front_N: NDArray[np.bool_] = np.logical_not(np.isnan(points_N2).any(axis=1))
    if front_N.any():
        front_N[front_N] = moocore.is_nondominated(points_N2[front_N], keep_weakly=True)
    return front_N


def ranks(quality: ArrayLike, cost: ArrayLike) -> NDArray[np.int64]:
    """In which front each candidate is, when one front after the other is taken away.

    Args:
        quality: Shape (N,), to be maximised.
        cost: Shape (N,), to be minimised.

    Returns:
        Shape (N,): 0 on the front, 1 on the front of the others, and so on; equal candidates have
        the same. Behind all of them, N, where there is a NaN.

    Raises:
        ValueError: If the shapes are not both (N,).

    Example:
        >>> ranks([0.9, 0.8, 0.7, float("nan")], [0.6, 0.3, 0.5, 0.1])
        array([0, 0, 1, 4])
    """
    points_N2 = _objectives(quality, cost)
    ranks_N = np.full(len(points_N2), len(points_N2), dtype=np.int64)
    known_N = np.logical_not(np.isnan(points_N2).any(axis=1))
    if known_N.any():
        ranks_N[known_N] = moocore.pareto_rank(points_N2[known_N])
    return ranks_N


def crowding(quality: ArrayLike, cost: ArrayLike) -> NDArray[np.float64]:
    """How much room each member of a front has to itself (Deb et al. 2002, NSGA-II, III-B).

    The sum over both objectives of the distance between a member's two neighbours, as a share of
    the distance between the extremes; infinite at the extremes.

    Differs from the paper: of equal members the first has the room and the others have none, since
    they add nothing to it.

    Args:
        quality: Shape (F,), finite.
        cost: Shape (F,), finite.

    Returns:
        Shape (F,), not negative.

    Raises:
        ValueError: If the shapes are not both (F,) or a value is not finite.

    Example:
        >>> crowding([0.9, 0.5, 0.8, 0.5], [1.0, 0.2, 0.6, 0.2])
        array([inf, inf,  2.,  0.])
    """
    points_F2 = _objectives(quality, cost)
    if not np.isfinite(points_F2).all():
        raise ValueError(f"the members of a front must be finite, got {points_F2.tolist()}")
    room_F = np.zeros(len(points_F2))
    if len(points_F2) == 0:
        return room_F
    points_U2, first_U = np.unique(points_F2, axis=0, return_index=True)
    room_U = np.zeros(len(points_U2))
    for values_U in points_U2.T:
        order_U = np.argsort(values_U, kind="stable")
        sorted_U = values_U[order_U]
        span = sorted_U[-1] - sorted_U[0] or 1.0
        room_U[order_U[1:-1]] += (sorted_U[2:] - sorted_U[:-2]) / span
        room_U[order_U[[0, -1]]] = np.inf
    room_F[first_U] = room_U
    return room_F


def best_first(quality: ArrayLike, cost: ArrayLike) -> NDArray[np.int64]:
    """Order of NSGA-II (Deb et al. 2002, III-B): by rank, and within a rank by room on the front.

    Args:
        quality: Shape (N,), finite, to be maximised.
        cost: Shape (N,), finite, to be minimised.

    Returns:
        Positions in the arguments, shape (N,), the best first; of equals the first comes first.

    Raises:
        ValueError: If the shapes are not both (N,) or a value is not finite.

    Example:
        >>> best_first([0.7, 0.9, 0.8, 0.5, 0.6], [0.5, 1.0, 0.4, 0.2, 0.3])
        array([1, 3, 2, 4, 0])
    """
    quality_N, cost_N = np.asarray(quality, np.float64), np.asarray(cost, np.float64)
    ranks_N = ranks(quality_N, cost_N)
    room_N = np.empty(len(ranks_N))
    for rank in np.unique(ranks_N):
        members_F = ranks_N == rank
        room_N[members_F] = crowding(quality_N[members_F], cost_N[members_F])
    return np.lexsort((-room_N, ranks_N))


def hypervolume(
    quality: ArrayLike, cost: ArrayLike, reference: tuple[float, float] = REFERENCE
) -> float:
    """Area between the front and the reference point, as a share of the ideal's.

    The ideal is a candidate of quality 1 that costs nothing.

    Args:
        quality: Shape (N,), to be maximised.
        cost: Shape (N,), to be minimised.
        reference: Quality, below 1, and cost, above 0, of the reference point. Candidates that are
            not better than it in both count for nothing, nor do those with a NaN.

    Returns:
        Not negative, at most 1 where qualities are at most 1 and costs at least 0; 0 of no
        candidates; infinite if a candidate is infinitely good.

    Raises:
        ValueError: If the shapes are not both (N,) or the reference is not finite, or no worse
            than the ideal.

    Example:
        >>> hypervolume([1.0, 0.5], [0.75, 0.25], reference=(0.0, 1.0))
        0.5
        >>> hypervolume([1.0, 0.75], [0.75, 0.25], reference=(0.5, 1.0))
        0.5
    """
    ideal = ideal_area(reference)
    points_N2 = _objectives(quality, cost)
    reference_2 = np.array([-reference[0], reference[1]])
    inside_N = (points_N2 < reference_2).all(axis=1)  # False for NaN
    if not inside_N.any():
        return 0.0
    return float(moocore.hypervolume(points_N2[inside_N], ref=reference_2)) / ideal


def ideal_area(reference: tuple[float, float]) -> float:
    """The area between quality 1 at no cost and a reference point (quality, cost).

    Raises:
        ValueError: The reference is not finite, or no worse than that.
    """
    quality, cost = reference
    if not (math.isfinite(quality) and math.isfinite(cost) and quality < 1 and cost > 0):
        raise ValueError(
            f"the reference point must have a quality below 1 and a cost above 0, got {reference}"
        )
    return (1 - quality) * cost


def knee(quality: ArrayLike, cost: ArrayLike) -> int:
    """Index of the front's knee: where giving up either objective buys least of the other.

    With both objectives scaled to [0, 1] over the front, the knee lies furthest above the chord
    from the cheapest to the best member. Where none lies above it, as on a front of one or two
    members, the knee is the best member.

    Args:
        quality: Shape (N,), to be maximised.
        cost: Shape (N,), to be minimised.

    Returns:
        Position in the arguments, the first of equal candidates. Candidates with a NaN or an
        infinite value are passed over.

    Raises:
        ValueError: If the shapes are not both (N,) or no candidate is finite.

    Example:
        >>> knee([0.2, 0.8, 0.9, 0.1], [0.1, 0.2, 0.9, 0.5])
        1
    """
    points_N2 = _objectives(quality, cost)
    finite_N = np.isfinite(points_N2).all(axis=1)
    if not finite_N.any():
        raise ValueError(
            f"a knee needs at least one candidate with finite scores, got none in {len(points_N2)}"
        )
    indices_N = np.flatnonzero(finite_N)
    indices_M = indices_N[non_dominated(-points_N2[indices_N, 0], points_N2[indices_N, 1])]
    quality_M, cost_M = -points_N2[indices_M, 0], points_N2[indices_M, 1]
    # On a front of different members both spans are positive.
    scaled_quality_M = (quality_M - quality_M.min()) / (np.ptp(quality_M) or 1.0)
    scaled_cost_M = (cost_M - cost_M.min()) / (np.ptp(cost_M) or 1.0)
    # The distance from the chord, times sqrt(2); rounded so that a straight front is a tie.
    height_M = np.round(scaled_quality_M - scaled_cost_M, 12)
    return int(indices_M[np.lexsort((indices_M, -quality_M, -height_M))[0]])
