"""Successive halving for two objectives: cheap scores for all, dear ones for the promising.

Candidates are compared in brackets. All of a bracket are scored at the first rung; a share of them
goes on to the next rung, where each is scored anew with more steps, and so on up to the last. Those
that go on are chosen greedily by what they add to the hypervolume of those that went on before
(greedy hypervolume subset selection; Guerreiro, Fonseca and Paquete 2016), so that all brackets
together spread along the front. Legend: N candidates, R rungs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partitioning.settings import above, at_least, at_most, checked, one_of
from search.candidates.pareto import REFERENCE, hypervolume, non_dominated

#: How a candidate can be scored: by distillation, or by training its networks on the images.
FIDELITIES = ("proxy", "full")
#: How far beyond the worst quality and cost hypervolume is seen from, as a share of their ranges.
BEYOND = 0.1
#: Hypervolumes that differ by less are equal.
SAME_VOLUME = 1e-12


@dataclass(frozen=True, kw_only=True)
@checked()
class Rung:
    """One way to score candidates, and how many of them go on from there.

    Attributes:
        steps: Steps of the scoring; from scratch, whatever rungs there were before.
        keep: Share of the candidates scored here that goes on to the next rung, rounded up.
        fidelity: proxy (feature distillation) or full (training on the images, short).
    """

    steps: Annotated[int, at_least(1)]
    keep: Annotated[float, above(0), at_most(1)] = 1.0
    fidelity: Annotated[str, one_of(FIDELITIES)] = "proxy"


def ladder(rungs: Sequence[Rung], proxy_steps: int) -> tuple[Rung, ...]:
    """All rungs up to the final scoring.

    Args:
        rungs: As a study lists them: proxies, the cheapest first, and perhaps a last one of
            fidelity full.
        proxy_steps: Steps of the study's own proxy, which is the final scoring unless the last
            rung is of fidelity full.

    Raises:
        ValueError: The rungs are not of this form.

    Example:
        >>> [rung.steps for rung in ladder([Rung(steps=300, keep=0.5)], 3000)]
        [300, 3000]
    """
    if any(rung.fidelity == "full" for rung in rungs[:-1]):
        raise ValueError("rungs: only the last rung may be of fidelity full")
    ends_in_full = bool(rungs) and rungs[-1].fidelity == "full"
    if ends_in_full and rungs[-1].keep < 1:
        raise ValueError(
            f"rungs: nothing comes after fidelity full, so its keep must be 1, got {rungs[-1].keep}"
        )
    whole = tuple(rungs) if ends_in_full else (*rungs, Rung(steps=proxy_steps))
    steps = [rung.steps for rung in whole if rung.fidelity == "proxy"]
    if any(a >= b for a, b in pairwise(steps)) or max(steps, default=0) > proxy_steps:
        limit = "at most" if ends_in_full else "below"
        raise ValueError(
            f"rungs: the steps of proxies must ascend and be {limit} proxy.sgd.steps "
            f"({proxy_steps}), got {[rung.steps for rung in rungs]}"
        )
    return whole


def promoted(
    quality: ArrayLike, cost: ArrayLike, keep: float, before: Sequence[tuple[float, float]] = ()
) -> NDArray[np.bool_]:
    """Says who goes on to the next rung.

    Chosen is one after the other, each time the candidate that adds most to the hypervolume of
    those that have gone on. Once none adds anything, those are set aside, and the rest is chosen
    from in the same way. Hypervolume is seen from a tenth of the range of all beyond the worst of
    each.

    Args:
        quality: Of the N candidates that were scored at a rung, in the order of asking; to be
            maximised, not finite where the scoring failed.
        cost: Shape (N,), to be minimised.
        keep: Share of the N that goes on, rounded up; in (0, 1].
        before: Quality at this rung and cost of those that have gone on from it already.

    Returns:
        Shape (N,). Failed candidates never go on, even if fewer than the share do then. Of equal
        candidates, the one asked for first does.

    Raises:
        ValueError: If the shapes are not both (N,).

    Example:
        >>> promoted([0.9, 0.8, 0.7, float("nan")], [0.6, 0.3, 0.5, 0.1], 0.5)
        array([ True,  True, False, False])
        >>> promoted([0.9, 0.8, 0.7], [0.6, 0.3, 0.5], 0.3, before=[(0.85, 0.3)])
        array([ True, False, False])
    """
    points_N2 = np.stack([np.asarray(quality, np.float64), np.asarray(cost, np.float64)], axis=1)
    left_N: NDArray[np.bool_] = np.asarray(np.isfinite(points_N2).all(axis=1))
    going_N: NDArray[np.bool_] = np.zeros(len(left_N), dtype=np.bool_)
    room = min(math.ceil(keep * len(left_N) - 1e-9), left_N.sum())  # .07 * 100 is a little above 7
    known = np.concatenate([points_N2[left_N], np.reshape(before, (-1, 2))])
    if not len(known):
        return going_N
    low_2, range_2 = known.min(axis=0), np.ptp(known, axis=0)
    range_2[range_2 == 0] = 1
    points_N2 = (points_N2 - low_2) / range_2
    gone_M2 = (np.reshape(before, (-1, 2)) - low_2) / range_2
    # Of all that have gone on in a long search few are left that hypervolume depends on.
    gone = list(gone_M2[non_dominated(gone_M2[:, 0], gone_M2[:, 1])])
    while going_N.sum() < room:
        gain_N = [
            _volume([*gone, p]) if left else -1.0 for p, left in zip(points_N2, left_N, strict=True)
        ]
        best = int(np.argmax(gain_N))
        if gone and gain_N[best] <= _volume(gone) + SAME_VOLUME:
            gone = []
            continue
        going_N[best], left_N[best] = True, False
        gone.append(points_N2[best])
    return going_N


def _volume(points: Sequence[NDArray[np.float64]]) -> float:
    """Hypervolume of points (quality, cost) that are within [0, 1], seen from beyond the worst."""
    quality, cost = np.stack(points, axis=1)
    return hypervolume(quality, cost, (-BEYOND, 1 + BEYOND))


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """What halving would have made of candidates whose scores at all rungs are known.

    Attributes:
        reached_N: Index of the last rung at which each was scored.
        final_N: Whether it was scored, without failing, at the last rung.
        compute: Steps spent, relative to scoring all at the last rung only.
        hypervolume: Of the final candidates' front, relative to that of all of them scored at the
            last rung; NaN if that is 0.
    """

    reached_N: NDArray[np.int64]
    final_N: NDArray[np.bool_]
    compute: float
    hypervolume: float


def replay(
    scores_NR: ArrayLike,
    cost_N: ArrayLike,
    steps_R: Sequence[float],
    keeps: Sequence[float],
    *,
    bracket: int,
    reference: tuple[float, float] = REFERENCE,
) -> Replay:
    """Halve recorded curves.

    Args:
        scores_NR: Quality of every candidate, in the order of asking, at every rung; NaN where the
            scoring failed.
        cost_N: Cost of every candidate.
        steps_R: Steps of every rung, or another measure of what scoring one candidate there costs.
        keeps: Share that goes on, of every rung but the last.
        bracket: How many consecutive candidates are compared with each other; the last bracket may
            have fewer.
        reference: Quality and cost of the hypervolume's reference point.

    Raises:
        ValueError: If the shapes do not go together or `bracket` is below 1.

    Example:
        >>> halved = replay([[0.5, 0.9], [0.4, 0.8]], [0.5, 0.6], [1, 4], [0.5], bracket=2)
        >>> halved.reached_N, halved.compute, halved.hypervolume
        (array([1, 0]), 0.75, 1.0)
    """
    scores_NR, cost_N = np.asarray(scores_NR, np.float64), np.asarray(cost_N, np.float64)
    steps = np.asarray(steps_R, np.float64)
    if scores_NR.shape != (len(cost_N), len(steps)) or len(keeps) != len(steps) - 1:
        raise ValueError(
            "scores must have shape (N, R), with N costs, R steps and R - 1 keeps, got "
            f"{scores_NR.shape}, {len(cost_N)}, {len(steps)} and {len(keeps)}"
        )
    if bracket < 1:
        raise ValueError(f"bracket must be at least 1, got {bracket}")
    reached_N = np.zeros(len(cost_N), dtype=np.int64)
    gone: list[list[tuple[float, float]]] = [[] for _ in keeps]
    for start in range(0, len(cost_N), bracket):
        climbing = np.arange(start, min(start + bracket, len(cost_N)))
        for rung, keep in enumerate(keeps):
            scores = scores_NR[climbing, rung], cost_N[climbing]
            going = promoted(*scores, keep, gone[rung])
            gone[rung] += zip(*(values[going].tolist() for values in scores), strict=True)
            climbing = climbing[going]
            reached_N[climbing] = rung + 1
    last_N = scores_NR[:, -1]
    final_N = (reached_N == len(steps) - 1) & np.isfinite(last_N) & np.isfinite(cost_N)
    whole = hypervolume(last_N, cost_N, reference)
    kept = hypervolume(last_N[final_N], cost_N[final_N], reference)
    full = len(cost_N) * steps[-1]
    return Replay(
        reached_N=reached_N,
        final_N=final_N,
        compute=float(np.cumsum(steps)[reached_N].sum() / full) if full else math.nan,
        hypervolume=kept / whole if whole else math.nan,
    )
