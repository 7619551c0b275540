"""What of a record is compared: the candidates that an equal budget pays for, in every arm.

Neither which candidates nor which seeds are taken depends on a score. Legend: K candidates of an
arm in the order of asking.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from partitioning import FloatArray
from search.candidates import REFERENCE, Candidate, scored
from search.comparison.verdicts import count, listed
from search.config import StudyConfig
from search.stats import MOST_STRATEGIES, ROUNDING
from search.study import Study, cost_range

#: Fewest seeds and searching strategies that can be compared.
FEWEST = 2

#: An arm: the name of its strategy, and its seed.
Key = tuple[str, int]


class CompareError(ValueError):
    """There is nothing that could be compared."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms strategies are compared.

    Attributes:
        strategies: Names of the study's strategies.
        baselines: Those of them that propose fixed baselines. They are contestants whatever they
            spend: whether a search beats a few fixed candidates is the first thing to know of it.
        budget: Candidates that every arm should have, or may have at most.
        device_seconds: That every arm should spend; None where candidates are the budget.
        initial: How many candidates all strategies of a seed have in common.
        halved: Candidates after which arms were stopped for their scores: later ones, which only
            the better arms have, are left out. None where none were.
        reference: Quality and cost of the hypervolume's reference point.
        floor: Quality of guessing.
        costs: The least possible cost, and that of sharing every channel.
        foundations: Whether seeds have trunk, teachers and proxy in common, see `StudyConfig`; or
            "simulated", where there are none.
        true_hypervolume: Of the true front, where it is known, seen from the same point.
    """

    strategies: Sequence[str]
    baselines: Collection[str] = ()
    budget: int
    device_seconds: float | None = None
    initial: int = 0
    halved: int | None = None
    reference: tuple[float, float] = REFERENCE
    floor: float = 0.0
    costs: tuple[float, float] = (0.0, 1.0)
    foundations: str = "shared"
    true_hypervolume: float | None = None

    @classmethod
    def of(cls, study: Study) -> Self:
        """The terms that a study sets."""
        config, reference, knowledge = study.config, study.reference(), study.knowledge()
        return cls(
            strategies=list(config.strategies),
            baselines=baseline_strategies(config),
            budget=config.candidates,
            device_seconds=config.device_seconds,
            initial=config.initial,
            halved=min(config.halvings, default=None),
            reference=reference,
            floor=knowledge.floor,
            costs=cost_range(config, knowledge, study.latency()),
            foundations="simulated" if config.evaluator == "simulated" else config.foundations,
            true_hypervolume=true_hypervolume(config, reference),
        )

    @property
    def limit(self) -> float:
        """The budget of an arm, in candidates or in device-seconds."""
        candidates = self.budget if self.halved is None else min(self.budget, self.halved)
        return candidates if self.device_seconds is None else self.device_seconds

    def price(self, candidate: Candidate) -> float:
        """What a candidate takes of the budget: one of so many, or its device-seconds."""
        return 1.0 if self.device_seconds is None else candidate.seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What is compared.

    Attributes:
        seeds: That all strategies are compared with, ascending.
        arms: By strategy and seed, what every searching arm had for the same budget, and all that
            any other has.
        searching: Names of the strategies that search and of which no arm failed as a whole, in
            the study's order.
        contestants: These, and fixed baselines that were scored to their end in every seed.
        common: The budget that all searching arms spent, in candidates or device-seconds.
        notes: What was left out and why, a sentence each.
    """

    seeds: tuple[int, ...]
    arms: dict[Key, list[Candidate]]
    searching: list[str]
    contestants: list[str]
    common: float
    notes: tuple[str, ...]


def baseline_strategies(config: StudyConfig) -> list[str]:
    """Names of the strategies that propose fixed baselines, which do not search."""
    return [name for name, entry in config.strategies.items() if entry.kind == "baselines"]


def true_hypervolume(config: StudyConfig, reference: tuple[float, float]) -> float | None:
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
    if reference[1] <= config.space.use[0]:
        return None
    return bounds.hypervolume(reference, config.space.use[0])[1] or None


def refuse_few(
    seeds: Collection[int],
    searching: Collection[str],
    fixed: Collection[str] = (),
    absent: Sequence[str] = (),
) -> None:
    """Refuse what has nothing to compare.

    Args:
        seeds: That all strategies have.
        searching: Strategies that search.
        fixed: Fixed baselines, which alone are nothing to compare.
        absent: Others of which nothing is recorded, or nothing but failures.

    Raises:
        CompareError: There are fewer than two of either, or more than `MOST_STRATEGIES`.
    """
    contestants = [*searching, *fixed] if searching else []
    if len(contestants) > MOST_STRATEGIES:
        raise CompareError(
            f"at most {MOST_STRATEGIES} strategies can be compared, got {len(contestants)}: among "
            "so many pairs no test could tell chance from a difference; search with them and look "
            "at the front"
        )
    if len(contestants) < FEWEST:
        raise CompareError(
            f"a comparison needs at least {FEWEST} strategies, of which one may be fixed "
            f"baselines, got {listed(sorted(contestants)) if contestants else 'none that searches'}"
            + (f"; nothing that counts is recorded of {listed(absent)}" if absent else "")
        )
    if len(seeds) < FEWEST:
        raise CompareError(
            f"a comparison needs at least {FEWEST} seeds that all strategies have run with, got "
            f"{len(seeds)}; for example --set seeds=[0,1,2,3,4,5,6]"
        )


def select(candidates: Sequence[Candidate], terms: Terms) -> Selection:
    """Take of every arm the first candidates, in the order of asking, for an equal budget.

    These are as many as all arms have and the budget allows, or, where the budget is one of
    device-seconds, those that are paid by as many of them as all arms spent. Seeds that have less
    than half as much in some arm as the furthest seed has in all are left out, as long as two seeds
    remain.

    Raises:
        CompareError: There are fewer than two seeds, or fewer than two contestants, or the
            device-seconds that all arms spent pay for no candidate of some arm.
    """
    if terms.halved is not None:
        candidates = [
            c for c in candidates if c.strategy in terms.baselines or c.index < terms.halved
        ]
    arms = _arms(candidates)
    recorded = {name for name, _ in arms}
    searching = [name for name in terms.strategies if name not in terms.baselines]
    absent = [name for name in searching if name not in recorded]
    searching = [name for name in searching if name in recorded]
    spent = {key: np.cumsum([terms.price(c) for c in arm]) for key, arm in arms.items()}
    complete = _complete({key: np.array([len(arm)]) for key, arm in arms.items()}, searching)
    fixed = [name for name in terms.strategies if name in terms.baselines and name in recorded]
    refuse_few(complete, searching, fixed, absent)
    failed = {n: arm[0] for n in searching if (arm := _failed(n, arms, _chosen(complete)))}
    sound = [name for name in searching if name not in failed]
    complete = _complete(spent, sound)
    seeds = _chosen(complete)
    untested = [name for name in fixed if not _scored_alike(name, arms, seeds)]
    tested = [name for name in fixed if name not in untested]
    refuse_few(complete, sound, tested, [*absent, *untested, *failed])
    most = min(complete[seed] for seed in seeds)
    common = min(most, terms.limit)
    chosen = {
        (name, seed): _paid(arms[name, seed], spent[name, seed], common)
        for name in sound
        for seed in seeds
    }
    others = {(name, s): arm for (name, s), arm in arms.items() if name in (*failed, *fixed)}
    return Selection(
        seeds=seeds,
        arms=chosen | {key: arm for key, arm in others.items() if key[1] in seeds},
        searching=sound,
        contestants=[*sound, *tested],
        common=common,
        notes=(
            *_notes(terms, absent, {seed for _, seed in arms} - set(seeds), most),
            *(
                f"shown and not tested: {name}, which was not scored to its end in every seed"
                for name in untested
            ),
            *(
                f"shown and not tested: {name}, all of whose candidates of a seed failed; the "
                f"first, {first.id}: {first.reason}"
                for name, first in failed.items()
            ),
        ),
    )


def _arms(candidates: Sequence[Candidate]) -> dict[tuple[str, int], list[Candidate]]:
    """By strategy and seed, those in the order of asking before the first that is missing."""
    found: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.index):
        arm = found.setdefault((candidate.strategy, candidate.seed), [])
        if candidate.index == len(arm):
            arm.append(candidate)
    return found


def _scored_alike(name: str, arms: dict[Key, list[Candidate]], seeds: Sequence[int]) -> bool:
    """Whether as many fixed baselines have a score in every seed as in any, and one at least."""
    counts = {seed: len(scored(arm)) for (strategy, seed), arm in arms.items() if strategy == name}
    most = max(counts.values())
    return most > 0 and {counts.get(seed) for seed in seeds} == {most}


def _failed(name: str, arms: dict[Key, list[Candidate]], seeds: Sequence[int]) -> list[Candidate]:
    """The first arm of a strategy that says nothing of it, as whatever it tried failed; or none."""
    own = (arms[name, seed] for seed in seeds)
    return next((arm for arm in own if all(candidate.failed for candidate in arm)), [])


def _complete(spent: dict[Key, FloatArray], searching: Sequence[str]) -> dict[int, float]:
    """By seed, what every searching arm has spent at least; seeds that some arm lacks are out."""
    none = np.zeros(1)
    least = {
        seed: min(float(spent.get((name, seed), none)[-1]) for name in searching)
        for _, seed in spent
        if searching
    }
    return {seed: amount for seed, amount in least.items() if amount}


def _chosen(complete: dict[int, float]) -> tuple[int, ...]:
    """Of seeds with so many candidates in every arm, those that have at least half of the most."""
    ranked = sorted(complete, key=lambda seed: (-complete[seed], seed))
    number = sum(2 * least >= complete[ranked[0]] for least in complete.values())
    return tuple(sorted(ranked[: max(number, FEWEST)]))


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


def _notes(
    terms: Terms, absent: Sequence[str], seeds: Collection[int], most: float
) -> Iterator[str]:
    """What is left out: strategies, seeds, candidates."""
    if absent:
        yield f"left out: {listed(absent)}, of which nothing is recorded"
    if seeds:
        yield (
            f"left out: seed{'s' * (len(seeds) > 1)} {listed([str(s) for s in sorted(seeds)])}, in "
            "which some arms have less than half of their candidates"
        )
    if most < terms.limit:
        unit = "candidate" if terms.device_seconds is None else "device-second"
        yield (
            f"compared at the first {count(most, unit)} of every arm, the most that all have; "
            f"the budget is {terms.limit:g}"
        )
    if terms.halved is not None:
        yield (
            f"left out: candidates after the first {terms.halved}, which only arms have that "
            "schedule.halve_arms did not stop"
        )
