"""What the arms of each seed of a study are given: foundation, features, what is known of tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.config import StudyConfig
from search.strategies import TaskKnowledge
from search.study.foundation import (
    Foundation,
    Run,
    Say,
    build_foundation,
    feature_cache,
    task_knowledge,
)
from trainers.proxy import FeatureCache


@dataclass(frozen=True, kw_only=True, eq=False)
class Supplies:
    """What the arms of a seed score their candidates on, and what their strategies may know.

    Attributes:
        knowledge: Of the tasks.
        base: Tasks, trunk and teachers; None where scores are simulated.
        cache: Features that the proxy reads; None where scores are simulated.
    """

    knowledge: TaskKnowledge
    base: Foundation | None = None
    cache: FeatureCache | None = None


def supplies_by_seed(config: StudyConfig, run: Run, say: Say) -> dict[int, Supplies]:
    """Make or load what the arms of each of the study's seeds are given.

    Args:
        config: The study.
        run: Where training and forward passes run.
        say: Called with one line per thing that was done.

    Returns:
        By seed; one and the same for all seeds where they share a foundation, or none has any.
    """
    if config.evaluator == "simulated":
        return dict.fromkeys(config.seeds, Supplies(knowledge=config.simulated.knowledge))
    made: dict[Foundation, Supplies] = {}
    found = foundations(config, config.seeds, run, say)
    for seed, (base, cache) in found.items():
        if base not in made:
            knowledge = task_knowledge(config.of_seed(seed), base, run, say)
            made[base] = Supplies(knowledge=knowledge, base=base, cache=cache)
    return {seed: made[base] for seed, (base, _) in found.items()}


def foundations(
    config: StudyConfig, seeds: Sequence[int], run: Run, say: Say
) -> dict[int, tuple[Foundation, FeatureCache]]:
    """Make or load trunk, teachers and features for arms of these seeds.

    Args:
        config: The study.
        seeds: Different ones, at least one.
        run: Where training and forward passes run.
        say: Called with one line per thing that was done.

    Returns:
        By seed; one and the same for all seeds where the config says that they share it.
    """
    if config.foundations == "shared":
        base = build_foundation(config, run, say)
        return dict.fromkeys(seeds, (base, feature_cache(config, base, run, say)))
    bases: dict[int, Foundation] = {}
    for seed in seeds:
        say(f"foundation of seed {seed}")
        loaded = next(iter(bases.values())).tasks if bases else None
        bases[seed] = build_foundation(config.of_seed(seed), run, say, loaded)
    return {
        seed: (base, feature_cache(config.of_seed(seed), base, run, say, len(bases) - number))
        for number, (seed, base) in enumerate(bases.items(), start=1)
    }
