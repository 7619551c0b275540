"""Strategies held against each other at equal budgets, from a study's record.

Legend of shapes: N seeds, F members of a front.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partitioning import FloatArray
from search.candidates import Candidate
from search.comparison.arm_curves import ArmCurve, arm_curve, attainment, shortfall
from search.comparison.points import Point, front_points, share_all_quality
from search.comparison.selection import FEWEST, Selection, Terms, select
from search.comparison.verdicts import count, verdict_of
from search.stats import Estimate, Pair, compare_figures, compare_pairs, estimates

#: Share of their time that evaluators may wait for the rest of a generation without a word.
IDLE = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """What a strategy reached, over its seeds.

    Attributes:
        name: Of the strategy.
        is_baseline: Whether it proposes fixed baselines, which do not search.
        curves: Of its arms, by seed.
        volume: Hypervolume: its mean over seeds with the bootstrap interval.
        at_seconds: Mean hypervolume after `Comparison.seconds`.
        shortfall: Mean over seeds of the additive epsilon to the front of all arms together.
        at_points: What it has at every point of the comparison, by the point's key.
    """

    name: str
    is_baseline: bool
    curves: tuple[ArmCurve, ...]
    volume: Estimate
    at_seconds: float
    shortfall: float
    at_points: Mapping[str, Estimate]

    @property
    def volumes(self) -> FloatArray:
        """Hypervolume by seed, (N,)."""
        return np.array([curve.volume for curve in self.curves])

    @property
    def idle(self) -> float:
        """Mean idle share of the evaluators; NaN where it is not known of every arm."""
        return float(np.mean([curve.idle for curve in self.curves]))

    def at(self, point: Point) -> FloatArray:
        """What its arms have at a point, by seed, (N,)."""
        return np.array([point.value(curve.front_F2, curve.seed) for curve in self.curves])

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
        standings: Of all strategies, the highest mean hypervolume first.
        pairs: Of all contestants, by hypervolume: all that search, and fixed baselines where they
            were scored in every seed.
        points: Where on the front contestants are compared, too.
        where: By the names of a pair of which one is better: the pair at every point.
        notes: What was left out and why, a sentence each.
        verdict: In words.
        reference: Quality and cost that hypervolumes are seen from.
        foundations: Whether seeds have trunk, teachers and proxy in common, as of `Terms`.
        true_hypervolume: Of the true front, where it is known.
    """

    seeds: tuple[int, ...]
    candidates: int
    seconds: float
    by_seconds: bool
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    points: tuple[Point, ...]
    where: Mapping[tuple[str, str], tuple[Pair, ...]]
    notes: tuple[str, ...]
    verdict: str
    reference: tuple[float, float]
    foundations: str
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
                    "epsilon": standing.shortfall if np.isfinite(standing.shortfall) else None,
                    **{key: found.value for key, found in standing.at_points.items()},
                }
                for standing in self.standings
            },
            "pairs": [
                {
                    "a": pair.a,
                    "b": pair.b,
                    "p_adjusted": pair.p_adjusted,
                    "better": pair.better,
                    "better_at": self.better_at(pair, pair.a),
                    "worse_at": self.better_at(pair, pair.b),
                }
                for pair in self.pairs
            ],
            "verdict": self.verdict,
            "reference": {"quality": self.reference[0], "cost": self.reference[1]},
        }

    def better_at(self, pair: Pair, name: str) -> list[str]:
        """Keys of the points at which one of a pair is better; none of pairs that did not pass."""
        found = zip(self.points, self.where.get((pair.a, pair.b), ()), strict=False)
        return [point.key for point, there in found if there.better == name]


def compare_strategies(candidates: Sequence[Candidate], terms: Terms) -> Comparison:
    """Compare strategies at equal budgets, seed by seed.

    Args:
        candidates: Of a study's record, in any order; `select` says which of them count.
        terms: The budget, who takes part, and what hypervolume is seen from.

    Raises:
        CompareError: There are fewer than two seeds, or fewer than two contestants, or the
            device-seconds that all arms spent pay for no candidate of some arm.
    """
    selection = select(candidates, terms)
    curves: dict[str, list[ArmCurve]] = {}
    for name in dict.fromkeys(name for name, _ in selection.arms):
        arms = [selection.arms.get((name, seed)) for seed in selection.seeds]
        if own := [arm_curve(arm, terms.reference) for arm in arms if arm is not None]:
            curves[name] = own
    searching = {name: curves[name] for name in selection.searching}
    counted = [len(curve.volume_K) for own in searching.values() for curve in own]
    seconds = selection.common
    if terms.device_seconds is None:
        seconds = min(curve.seconds for own in searching.values() for curve in own)
    rng = np.random.default_rng(0)  # the same record gives the same numbers
    points = _points(selection, terms)
    standings = _standings(curves, terms, seconds, points, rng)
    contestants = {s.name: s for s in standings if s.name in selection.contestants}
    pairs = compare_pairs({name: s.volumes for name, s in contestants.items()}, rng)
    where = {
        (pair.a, pair.b): _where(contestants[pair.a], contestants[pair.b], points, rng)
        for pair in pairs
        if pair.better
    }
    fixed = [name for name in selection.contestants if name in terms.baselines]
    return Comparison(
        seeds=selection.seeds,
        candidates=min(counted),
        seconds=seconds,
        by_seconds=terms.device_seconds is not None,
        standings=standings,
        pairs=pairs,
        points=points,
        where=where,
        notes=(
            *selection.notes,
            *_left_out(points, terms),
            *_notes(searching, max(counted), selection, terms),
        ),
        verdict=verdict_of(pairs, len(selection.seeds), points=points, where=where, fixed=fixed),
        reference=terms.reference,
        foundations=terms.foundations,
        true_hypervolume=terms.true_hypervolume,
    )


def _points(selection: Selection, terms: Terms) -> tuple[Point, ...]:
    """Where fronts are compared, of what the baselines' arms say of sharing every channel."""
    fixed = [c for (name, _), arm in selection.arms.items() if name in terms.baselines for c in arm]
    return front_points(
        selection.seeds,
        floor=terms.floor,
        costs=terms.costs,
        share_all=share_all_quality(fixed),
    )


def _where(
    a: Standing, b: Standing, points: Sequence[Point], rng: np.random.Generator
) -> tuple[Pair, ...]:
    """Two contestants at every point."""
    differences = [point.sign * (a.at(point) - b.at(point)) for point in points]
    return compare_figures(a.name, b.name, differences, rng)


def _standings(
    curves: Mapping[str, Sequence[ArmCurve]],
    terms: Terms,
    seconds: float,
    points: Sequence[Point],
    rng: np.random.Generator,
) -> tuple[Standing, ...]:
    """The highest mean hypervolume first."""
    pooled_F2 = attainment([curve.front_F2 for own in curves.values() for curve in own], 0)
    figures = {name: _figures(own, points, rng) for name, own in curves.items()}
    standings = [
        Standing(
            name=name,
            is_baseline=name in terms.baselines,
            curves=tuple(own),
            volume=figures[name][0],
            at_seconds=float(np.mean([curve.after(np.array([seconds])) for curve in own])),
            shortfall=float(np.mean([shortfall(curve.front_F2, pooled_F2) for curve in own])),
            at_points=dict(zip([point.key for point in points], figures[name][1:], strict=True)),
        )
        for name, own in curves.items()
    ]
    return tuple(sorted(standings, key=lambda s: -s.volume.value))


def _left_out(points: Sequence[Point], terms: Terms) -> Iterator[str]:
    """Why cost at given qualities is not among the points."""
    if terms.baselines and not any(point.of == "cost" for point in points):
        yield (
            "left out: cost at the quality of sharing every channel, which was not scored in every "
            "seed"
        )


def _notes(
    searching: Mapping[str, Sequence[ArmCurve]], most: int, selection: Selection, terms: Terms
) -> Iterator[str]:
    """Why nothing can be told, and who made evaluators wait."""
    if most <= terms.initial and len(searching) > 1 and _start_alike(searching, selection):
        yield (
            f"nothing can be told apart: the first {count(terms.initial, 'candidate')} (initial) "
            "of a seed are the same for all strategies that search"
        )
    for name, own in searching.items():
        # NaN, where it is not known, is not above the limit.
        if (idle := float(np.mean([curve.idle for curve in own]))) > IDLE:
            yield (
                f"evaluators of {name} waited {idle:.0%} of their time, more than {IDLE:.0%}: give "
                "an arm fewer evaluators, or such that divide a generation of the strategy"
            )


def _start_alike(names: Iterable[str], selection: Selection) -> bool:
    """Whether the arms of every seed have the same vectors."""
    return all(
        len({tuple(c.vector for c in selection.arms[name, seed]) for name in names}) == 1
        for seed in selection.seeds
    )


def _figures(
    curves: Sequence[ArmCurve], points: Sequence[Point], rng: np.random.Generator
) -> list[Estimate]:
    """Hypervolume and what arms have at every point; of one arm, of baselines, without interval."""
    values_NG = np.array(
        [[c.volume, *(point.value(c.front_F2, c.seed) for point in points)] for c in curves]
    )
    if len(curves) < FEWEST:
        return [Estimate(value=v, low=v, high=v) for v in values_NG[0].tolist()]
    return estimates(values_NG, rng)
