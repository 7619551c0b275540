"""Strategies held against each other at equal budgets, from a study's record.

Legend of shapes: N seeds, F members of a front.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partitioning import FloatArray
from search.candidates import Candidate
from search.comparison.arm_curves import ArmCurve, arm_curve, attainment, shortfall
from search.comparison.selection import FEWEST, Terms, select
from search.comparison.verdicts import count, verdict_of
from search.stats import Estimate, Pair, compare_pairs, estimate

#: Share of their time that evaluators may wait for the rest of a generation without a word.
IDLE = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """What a strategy reached, over its seeds.

    Attributes:
        name: Of the strategy.
        is_baseline: Whether it proposes fixed baselines; then it is shown and not tested.
        curves: Of its arms, by seed.
        volume: Hypervolume: its mean over seeds with the bootstrap interval.
        at_seconds: Mean hypervolume after `Comparison.seconds`.
        shortfall: Mean over seeds of the additive epsilon to the front of all arms together.
    """

    name: str
    is_baseline: bool
    curves: tuple[ArmCurve, ...]
    volume: Estimate
    at_seconds: float
    shortfall: float

    @property
    def volumes(self) -> FloatArray:
        """Hypervolume by seed, (N,)."""
        return np.array([curve.volume for curve in self.curves])

    @property
    def idle(self) -> float:
        """Mean idle share of the evaluators; NaN where it is not known of every arm."""
        return float(np.mean([curve.idle for curve in self.curves]))

    def surface(self, share: float) -> FloatArray:
        """Corners of what a share of its arms attains, see `attainment`."""
        return attainment([curve.front_F2 for curve in self.curves], share)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A finished comparison.

    Attributes:
        seeds: That all strategies were compared with.
        candidates: Of every searching arm that were counted, at least; fixed baselines may have
            fewer or more.
        seconds: Device-seconds that every searching arm spent at least, or, where they are the
            budget, that it was given; 0 where none are recorded.
        by_seconds: Whether device-seconds are the budget.
        standings: Of all strategies, the highest mean hypervolume first, fixed baselines last.
        pairs: Of all that search.
        notes: What was left out and why, a sentence each.
        verdict: In words.
        true_hypervolume: Of the true front, where it is known.
    """

    seeds: tuple[int, ...]
    candidates: int
    seconds: float
    by_seconds: bool
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    verdict: str
    true_hypervolume: float | None

    @property
    def counted(self) -> int:
        """Number of candidates of all arms that were compared."""
        return sum(len(curve.volume_K) for s in self.standings for curve in s.curves)

    def summary(self) -> dict[str, Any]:
        """What `apportion compare --json` prints."""
        return {
            "seeds": len(self.seeds),
            "candidates": self.candidates,
            "strategies": {
                standing.name: {
                    "hypervolume_mean": standing.volume.value,
                    "ci_low": standing.volume.low,
                    "ci_high": standing.volume.high,
                }
                for standing in self.standings
            },
            "pairs": [
                {"a": pair.a, "b": pair.b, "p_adjusted": pair.p_adjusted, "better": pair.better}
                for pair in self.pairs
            ],
            "verdict": self.verdict,
        }


def compare_strategies(candidates: Sequence[Candidate], terms: Terms) -> Comparison:
    """Compare strategies at equal budgets, seed by seed.

    Args:
        candidates: Of a study's record, in any order; `select` says which of them count.
        terms: The budget, who takes part, and what hypervolume is seen from.

    Raises:
        CompareError: There are fewer than two seeds, or fewer than two strategies that search, or
            the device-seconds that all arms spent pay for no candidate of some arm.
    """
    selection = select(candidates, terms)
    curves: dict[str, list[ArmCurve]] = {}
    for name in (*selection.searching, *terms.baselines):
        arms = [selection.arms.get((name, seed)) for seed in selection.seeds]
        if own := [arm_curve(arm, terms.reference) for arm in arms if arm is not None]:
            curves[name] = own
    searching = {name: curves[name] for name in selection.searching}
    counted = [len(curve.volume_K) for own in searching.values() for curve in own]
    seconds = selection.common
    if terms.device_seconds is None:
        seconds = min(curve.seconds for own in searching.values() for curve in own)
    rng = np.random.default_rng(0)  # the same record gives the same numbers
    standings = _standings(curves, terms, seconds, rng)
    pairs = compare_pairs({s.name: s.volumes for s in standings if not s.is_baseline}, rng)
    return Comparison(
        seeds=selection.seeds,
        candidates=min(counted),
        seconds=seconds,
        by_seconds=terms.device_seconds is not None,
        standings=standings,
        pairs=pairs,
        notes=(*selection.notes, *_notes(searching, max(counted), terms)),
        verdict=verdict_of(pairs, len(selection.seeds)),
        true_hypervolume=terms.true_hypervolume,
    )


def _standings(
    curves: Mapping[str, Sequence[ArmCurve]],
    terms: Terms,
    seconds: float,
    rng: np.random.Generator,
) -> tuple[Standing, ...]:
    """The highest mean hypervolume first, fixed baselines last."""
    pooled_F2 = attainment([curve.front_F2 for own in curves.values() for curve in own], 0)
    standings = [
        Standing(
            name=name,
            is_baseline=name in terms.baselines,
            curves=tuple(own),
            volume=_volume(own, rng),
            at_seconds=float(np.mean([curve.after(np.array([seconds])) for curve in own])),
            shortfall=float(np.mean([shortfall(curve.front_F2, pooled_F2) for curve in own])),
        )
        for name, own in curves.items()
    ]
    return tuple(sorted(standings, key=lambda s: (s.is_baseline, -s.volume.value)))


def _notes(searching: Mapping[str, Sequence[ArmCurve]], most: int, terms: Terms) -> Iterator[str]:
    """Why nothing can be told, and who made evaluators wait."""
    if most <= terms.initial:
        yield (
            f"nothing can be told apart: the first {count(terms.initial, 'candidate')} (initial) "
            "of a seed are the same for all strategies"
        )
    for name, own in searching.items():
        # NaN, where it is not known, is not above the limit.
        if (idle := float(np.mean([curve.idle for curve in own]))) > IDLE:
            yield (
                f"evaluators of {name} waited {idle:.0%} of their time, more than {IDLE:.0%}: give "
                "an arm fewer evaluators, or such that divide a generation of the strategy"
            )


def _volume(curves: Sequence[ArmCurve], rng: np.random.Generator) -> Estimate:
    volume_N = np.array([curve.volume for curve in curves])
    if len(curves) < FEWEST:  # of baselines
        return Estimate(value=curves[0].volume, low=curves[0].volume, high=curves[0].volume)
    return estimate(volume_N, rng)
