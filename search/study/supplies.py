"""What the arms of each seed of a study are given: foundation, features, what is known of tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.config import StudyConfig
from search.strategies import TaskKnowledge
from search.study.basis import Check, accept, program_basis
from search.study.features import feature_cache
from search.study.foundation import Foundation, Run, build_foundation, task_knowledge
from search.study.latency import searched_latency
from search.study.shelf import Say
from trainers.data import Task
from trainers.export import LatencyTable
from trainers.proxy import FeatureCache


@dataclass(frozen=True, kw_only=True, eq=False)
class Supplies:
    """What the arms of a seed score their candidates on, and what their strategies may know.

    Attributes:
        knowledge: Of the tasks.
        base: Tasks, trunk and teachers; None where scores are simulated.
        cache: Features that the proxy reads; None where scores are simulated.
        latency: Of the network's layers, where it is the study's cost.
    """

    knowledge: TaskKnowledge
    base: Foundation | None = None
    cache: FeatureCache | None = None
    latency: LatencyTable | None = None


def supplies_by_seed(
    config: StudyConfig, run: Run, say: Say, check: Check = accept
) -> dict[int, Supplies]:
    """Make or load what the arms of each of the study's seeds are given.

    Args:
        config: The study.
        run: Where training and forward passes run.
        say: Called with one line per thing that was done.
        check: Called with digests of all that scores depend on, before anything is computed of it.

    Returns:
        By seed; one and the same for all seeds where they share a foundation, or none has any.
    """
    check(program_basis(config))
    latency = searched_latency(config, run, say, check)
    if config.evaluator == "simulated":
        supplies = Supplies(knowledge=config.simulated.knowledge, latency=latency)
        return dict.fromkeys(config.seeds, supplies)
    made: dict[Foundation, Supplies] = {}
    found = foundations(config, config.seeds, run, say, check)
    for seed, (base, cache) in found.items():
        if base not in made:
            knowledge = task_knowledge(config.of_seed(seed), base, run, say)
            made[base] = Supplies(knowledge=knowledge, base=base, cache=cache, latency=latency)
    return {seed: made[base] for seed, (base, _) in found.items()}


def foundations(
    config: StudyConfig,
    seeds: Sequence[int],
    run: Run,
    say: Say,
    check: Check = accept,
    tasks: Mapping[str, Task] | None = None,
) -> dict[int, tuple[Foundation, FeatureCache]]:
    """Make or load trunk, teachers and features for arms of these seeds.

    Args:
        config: The study.
        seeds: Different ones, at least one.
        run: Where training and forward passes run.
        say: Called with one line per thing that was done.
        check: Called with digests of all that scores depend on, before anything is computed of it.
        tasks: The tasks if they are loaded already.

    Returns:
        By seed; one and the same for all seeds where the config says that they share it.
    """
    if config.foundations == "shared":
        base = build_foundation(config, run, say, tasks, check)
        return dict.fromkeys(seeds, (base, feature_cache(config, base, run, say, check=check)))
    bases: dict[int, Foundation] = {}
    for seed in seeds:
        say(f"foundation of seed {seed}")
        bases[seed] = build_foundation(config.of_seed(seed), run, say, tasks, check)
        tasks = bases[seed].tasks
    return {
        seed: (
            base,
            feature_cache(config.of_seed(seed), base, run, say, len(bases) - number, check),
        )
        for number, (seed, base) in enumerate(bases.items(), start=1)
    }
