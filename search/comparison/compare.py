"""Strategies held against each other at equal budgets, from a study's record.

Legend of shapes: N seeds, G points of a grid.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partitioning import FloatArray
from search.candidates import REFERENCE, Candidate
from search.comparison.arm_curves import ArmCurve, arm_curve, attainment, shortfall
from search.comparison.verdicts import count, listed, verdict_of
from search.config import StudyConfig
from search.stats import MOST_STRATEGIES, ROUNDING, Estimate, Pair, compare_pairs, estimate

#: Share of their time that evaluators may wait for the rest of a generation without a word.
IDLE = 0.05
#: Fewest seeds and searching strategies that can be compared.
FEWEST = 2


class CompareError(ValueError):
    """There is nothing that could be compared."""


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


def baseline_strategies(config: StudyConfig) -> list[str]:
    """Names of the strategies that propose fixed baselines, which do not search."""
    return [name for name, entry in config.strategies.items() if entry.kind == "baselines"]


def true_hypervolume(config: StudyConfig) -> float | None:
    """Hypervolume of the true front from the lowest use of the space on; None if it is not known.

    It is known of simulated problems that say so, against mean use, where the front reaches beyond
    the reference point. No strategy can exceed it, but for the rounding of the lowest use to whole
    channels; where the space has a highest use below 1 as well, none can reach it.
    """
    if config.evaluator != "simulated" or config.objective.cost != "use":
        return None
    bounds = config.simulated.front()
    if bounds is None:
        return None
    quality, cost = config.objective.reference
    if cost <= config.space.use[0]:
        return None
    return bounds.hypervolume((quality, cost), config.space.use[0])[1] or None


def refuse_few(
    seeds: Collection[int], searching: Collection[str], absent: Sequence[str] = ()
) -> None:
    """Refuse what has nothing to compare.

    Args:
        seeds: That all strategies have.
        searching: Strategies that are not fixed baselines.
        absent: Others of which nothing is recorded.

    Raises:
        CompareError: There are fewer than two of either, or more than `MOST_STRATEGIES`.
    """
    if len(searching) > MOST_STRATEGIES:
        raise CompareError(
            f"at most {MOST_STRATEGIES} strategies can be compared, got {len(searching)}: among so "
            "many pairs no test could tell chance from a difference; search with them and look at "
            "the front"
        )
    if len(searching) < FEWEST:
        raise CompareError(
            f"a comparison needs at least {FEWEST} strategies that search, got "
            f"{listed(sorted(searching)) if searching else 'none'}; fixed baselines do not"
            + (f", and nothing is recorded of {listed(absent)}" if absent else "")
        )
    if len(seeds) < FEWEST:
        raise CompareError(
            f"a comparison needs at least {FEWEST} seeds that all strategies have run with, got "
            f"{len(seeds)}; for example --set seeds=[0,1,2,3,4,5,6]"
        )


def compare_strategies(
    candidates: Sequence[Candidate],
    *,
    strategies: Sequence[str],
    baselines: Collection[str] = (),
    budget: int,
    device_seconds: float | None = None,
    initial: int = 0,
    halved: int | None = None,
    reference: tuple[float, float] = REFERENCE,
    true_hypervolume: float | None = None,
) -> Comparison:
    """Compare strategies at equal budgets, seed by seed.

    Of every arm the first candidates are taken, in the order of asking: as many as all arms have
    and the budget allows, or, where the budget is one of device-seconds, those that are paid by as
    many of them as all arms spent. Seeds that have less than half as much in some arm as the
    furthest seed has in all are left out, as long as two seeds remain. Fixed baselines are compared
    by eye: they vary by chance alone, if at all, and do not spend the same budget, so a test would
    answer another question.

    Args:
        candidates: Of a study's record, in any order.
        strategies: Names of its strategies.
        baselines: Those of them that propose fixed baselines.
        budget: Candidates that every arm should have, or may have at most.
        device_seconds: That every arm should spend; None where candidates are the budget.
        initial: How many candidates all strategies of a seed have in common.
        halved: Candidates after which arms were stopped for their scores: later ones, which only
            the better arms have, are left out. None where none were.
        reference: Quality and cost of the hypervolume's reference point.
        true_hypervolume: Of the true front, where it is known, seen from the same point.

    Raises:
        CompareError: There are fewer than two seeds, or fewer than two strategies that search, or
            the device-seconds that all arms spent pay for no candidate of some arm.
    """
    if halved is not None:
        budget = min(budget, halved)
        candidates = [c for c in candidates if c.strategy in baselines or c.index < halved]
    arms = _arms(candidates)
    searching = [name for name in strategies if name not in baselines]
    absent = [name for name in searching if not any(name == key for key, _ in arms)]
    searching = [name for name in searching if name not in absent]
    told = {seed for _, seed in arms}
    spent = {key: np.cumsum([_price(c, device_seconds) for c in arm]) for key, arm in arms.items()}
    complete = {
        seed: min((float(spent.get((n, seed), [0.0])[-1]) for n in searching), default=0.0)
        for seed in told
    }
    complete = {seed: least for seed, least in complete.items() if least}
    refuse_few(complete, searching, absent)
    seeds = _chosen(complete)
    common = min(complete[seed] for seed in seeds)
    limit: float = budget
    unit = "candidate"
    if device_seconds is not None:
        limit, unit = device_seconds, "device-second"
    notes = _notes(absent, told - set(seeds), common, limit, unit)
    common = min(common, limit)

    curves = {
        name: [
            arm_curve(_paid(arms[name, seed], spent[name, seed], common), reference)
            for seed in seeds
        ]
        for name in searching
    }
    if halved is not None:
        notes = (
            *notes,
            f"left out: candidates after the first {halved}, which only arms have that "
            "schedule.halve_arms did not stop",
        )
    counted = [len(curve.volume_K) for own in curves.values() for curve in own]
    if max(counted) <= initial:
        notes = (
            *notes,
            f"nothing can be told apart: the first {count(initial, 'candidate')} (initial) of a "
            "seed are the same for all strategies",
        )
    notes = (*notes, *_idle_notes(curves))
    for name in baselines:
        there = [arms[name, seed] for seed in seeds if (name, seed) in arms]
        if there:
            curves[name] = [arm_curve(arm, reference) for arm in there]
    pooled_F2 = attainment([curve.front_F2 for arms in curves.values() for curve in arms], 0)
    seconds = min(curve.seconds for name in searching for curve in curves[name])
    if device_seconds is not None:
        seconds = common
    rng = np.random.default_rng(0)  # the same record gives the same numbers
    standings = [
        Standing(
            name=name,
            is_baseline=name in baselines,
            curves=tuple(own),
            volume=_volume(own, rng),
            at_seconds=float(np.mean([curve.after(np.array([seconds])) for curve in own])),
            shortfall=float(np.mean([shortfall(curve.front_F2, pooled_F2) for curve in own])),
        )
        for name, own in curves.items()
    ]
    standings.sort(key=lambda standing: (standing.is_baseline, -standing.volume.value))
    pairs = compare_pairs({s.name: s.volumes for s in standings if not s.is_baseline}, rng)
    return Comparison(
        seeds=seeds,
        candidates=min(counted),
        seconds=seconds,
        by_seconds=device_seconds is not None,
        standings=tuple(standings),
        pairs=pairs,
        notes=notes,
        verdict=verdict_of(pairs, len(seeds)),
        true_hypervolume=true_hypervolume,
    )


def _arms(candidates: Sequence[Candidate]) -> dict[tuple[str, int], list[Candidate]]:
    """By strategy and seed, those in the order of asking before the first that is missing."""
    found: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.index):
        arm = found.setdefault((candidate.strategy, candidate.seed), [])
        if candidate.index == len(arm):
            arm.append(candidate)
    return found


def _price(candidate: Candidate, device_seconds: float | None) -> float:
    """What a candidate takes of the budget: one of so many, or its device-seconds."""
    return 1.0 if device_seconds is None else candidate.seconds


def _paid(arm: list[Candidate], spent_K: FloatArray, budget: float) -> list[Candidate]:
    """The first candidates of an arm, as many as a budget pays for."""
    paid = arm[: int(np.searchsorted(spent_K, budget * (1 + ROUNDING), side="right"))]
    if not paid:
        raise CompareError(
            f"{budget:.4g} device-seconds, which all arms spent, do not pay for the first "
            f"candidate of {arm[0].strategy} with seed {arm[0].seed}, which took "
            f"{arm[0].seconds:.4g}"
        )
    return paid


def _chosen(complete: dict[int, float]) -> tuple[int, ...]:
    """Of seeds with so many candidates in every arm, those that have at least half of the most."""
    ranked = sorted(complete, key=lambda seed: (-complete[seed], seed))
    number = sum(2 * least >= complete[ranked[0]] for least in complete.values())
    return tuple(sorted(ranked[: max(number, FEWEST)]))


def _notes(
    absent: Sequence[str], seeds: Collection[int], common: float, budget: float, unit: str
) -> tuple[str, ...]:
    notes = []
    if absent:
        notes.append(f"left out: {listed(absent)}, of which nothing is recorded")
    if seeds:
        notes.append(
            f"left out: seed{'s' * (len(seeds) > 1)} {listed([str(s) for s in sorted(seeds)])}, in "
            "which some arms have less than half of their candidates"
        )
    if common < budget:
        notes.append(
            f"compared at the first {count(common, unit)} of every arm, the most that all have; "
            f"the budget is {budget:g}"
        )
    return tuple(notes)


def _idle_notes(curves: Mapping[str, Sequence[ArmCurve]]) -> Iterator[str]:
    """Who made evaluators wait; NaN, where it is not known, is not above the limit."""
    for name, own in curves.items():
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
