"""What an arm had found after how much money: hypervolume against candidates and device-seconds.

Legend of shapes: K candidates of an arm in the order of asking, F members of its front, G points
of a grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from partitioning import FloatArray
from search.candidates import Candidate, coordinates, front, history


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmCurve:
    """An arm as far as its candidates are given.

    Attributes:
        strategy: Its name.
        seed: Its seed.
        volume_K: Hypervolume of the first 1 to K candidates; those that failed or were stopped
            at a lower rung count as candidates and add nothing.
        seconds_K: Device-seconds spent on them, over all rungs. What failed candidates took is
            not recorded, so it is missing.
        front_F2: Cost and quality of the members of its front.
        failed: Number of candidates that failed.
        stopped: Number of candidates that were stopped at a lower rung.
        idle: Share of their time in which the evaluators scored nothing; NaN where the record
            does not tell.
    """

    strategy: str
    seed: int
    volume_K: FloatArray
    seconds_K: FloatArray
    front_F2: FloatArray
    failed: int
    stopped: int
    idle: float

    @property
    def volume(self) -> float:
        """Hypervolume of all its candidates."""
        return float(self.volume_K[-1])

    @property
    def seconds(self) -> float:
        """Device-seconds of all its candidates."""
        return float(self.seconds_K[-1])

    @property
    def area(self) -> float:
        """Mean of the hypervolume after 1 to K candidates: how good it is at any time."""
        return float(self.volume_K.mean())

    def after(self, seconds_G: FloatArray) -> FloatArray:
        """Hypervolume (G,) after so many device-seconds; a candidate counts once it is paid."""
        paid_G = np.searchsorted(self.seconds_K, seconds_G, side="right")
        return np.concatenate([[0.0], self.volume_K])[paid_G]


def arm_curve(arm: Sequence[Candidate], reference: tuple[float, float]) -> ArmCurve:
    """The curve of an arm.

    Args:
        arm: At least one candidate, all of one strategy and seed, in any order.
        reference: Quality and cost of the hypervolume's reference point.
    """
    ordered = sorted(arm, key=lambda candidate: candidate.index)
    told = history(ordered, reference, by="index")
    return ArmCurve(
        strategy=ordered[0].strategy,
        seed=ordered[0].seed,
        volume_K=told["hypervolume"].to_numpy(dtype=np.float64),
        seconds_K=np.cumsum([candidate.seconds for candidate in ordered]),
        front_F2=coordinates(front(ordered)),
        failed=sum(candidate.failed for candidate in ordered),
        stopped=sum(candidate.stopped for candidate in ordered),
        idle=idle_share(ordered),
    )


def idle_share(arm: Sequence[Candidate]) -> float:
    """Share of their time in which an arm's evaluators scored nothing, in [0, 1].

    An evaluator's time is from when its first candidate was proposed until its last was scored:
    a break between two runs of a study, which starts new evaluators, does not count. What an
    evaluator spent on candidates that failed counts as idle, since it is not recorded. NaN where
    more was spent than there was time, as a simulation does, or nothing at all.
    """
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}
    for candidate in arm:
        if name := candidate.evaluator:
            begun[name] = min(begun.get(name, np.inf), candidate.started)
            ended[name] = max(ended.get(name, -np.inf), candidate.finished)
    there = sum(ended[name] - begun[name] for name in begun)
    busy = sum(candidate.seconds for candidate in arm)
    return 1 - busy / there if 0 < busy <= there else float("nan")


def attainment(fronts: Sequence[FloatArray], share: float) -> FloatArray:
    """Corners (G, 2) of what a share of the arms attains: cost and quality, from the cheapest.

    The empirical attainment function of Grunert da Fonseca, Fonseca and Hall (2001): a point is
    attained by an arm that has a candidate of no more cost and no less quality.

    Args:
        fronts: Cost and quality, (F, 2), of each arm; an empty one attains nothing.
        share: Of the arms, in [0, 1], rounded up to whole arms and at least one: 0 for what any
            attained, 0.5 for the median, 1 for what all did.

    Example:
        >>> fronts = [np.array([[0.2, 0.5]]), np.array([[0.3, 0.9]]), np.array([[0.4, 0.4]])]
        >>> attainment(fronts, 0.5)
        array([[0.3, 0.5]])
    """
    # An arm without a candidate attains only what is worse than all others.
    nothing = np.array([[1e9, -1e9]])
    given = [front_F2 if len(front_F2) else nothing for front_F2 in fronts]
    number_N = np.repeat(np.arange(len(given)), [len(front_F2) for front_F2 in given])
    points_N2 = np.concatenate(given) * [1, -1]
    found_G2 = moocore.eaf(points_N2, number_N, percentiles=[100 * share])[:, :2] * [1, -1]
    found_G2 = found_G2[(found_G2[:, 0] < 1e9) & (found_G2[:, 1] > -1e9)]
    return np.asarray(found_G2[np.argsort(found_G2[:, 0])], dtype=np.float64)


def shortfall(front_F2: FloatArray, pooled_F2: FloatArray) -> float:
    """Additive epsilon: what one front is short of another in both objectives at once.

    If all members were so much better they would dominate the other front weakly. 0 for that front
    itself, infinite for an empty one.

    Source: Zitzler et al. 2003, Performance assessment of multiobjective optimizers, IV.

    Args:
        front_F2: Cost and quality of the members.
        pooled_F2: The same of the front that is to be reached, not empty.
    """
    if not len(front_F2):
        return float("inf")
    return float(moocore.epsilon_additive(front_F2, ref=pooled_F2, maximise=[False, True]))
