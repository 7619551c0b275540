"""A study's parts built from its config: space, baselines, strategies."""

from collections.abc import Mapping

import numpy as np

from partitioning import BASELINES, SPACES, FloatArray, Space
from search.candidates import REFERENCE
from search.config import COSTS, ConfigError, StudyConfig
from search.strategies import STRATEGIES, Problem, Strategy, TaskKnowledge
from trainers.cost import costs
from trainers.export import LatencyTable


def build_space(config: StudyConfig) -> Space:
    """The space that a study searches."""
    space: Space = SPACES[config.space.kind](
        tasks=tuple(task.name for task in config.tasks),
        groups=config.network.groups,
        config=config.space,
        solver=config.solver,
    )
    return space


def cost_range(
    config: StudyConfig, knowledge: TaskKnowledge, latency: LatencyTable | None = None
) -> tuple[float, float]:
    """The least possible cost in a study's space, and that of sharing every channel.

    Every task uses the least that is searched, and shares as much of it as it can, or nothing:
    where tasks have no room for what they should use apart, that costs less.

    Args:
        config: The study.
        knowledge: Of its tasks; where it has none, a class each is taken for their heads.
        latency: Of the network's layers, where that is the study's cost.
    """
    space = build_space(config)
    classes = [facts.classes for facts in knowledge.tasks] or [1] * len(config.tasks)

    def cost(use: float, overlap: float = 1.0) -> float:
        vector = np.full(space.dim, overlap)
        vector[list(space.use_dims)] = use
        masks = space.decode(vector).masks
        rows = np.repeat(classes, len(config.space.levels)).tolist()
        if latency is not None:
            return latency.relative(config.network, masks)
        counted = costs(config.network, masks, rows)
        return float(getattr(counted, COSTS[config.objective.cost].attribute))

    # Where the space does not reach so far, sharing every channel costs 1 by definition.
    return min(cost(0.0), cost(0.0, 0.0)), cost(1.0) if config.space.use[1] == 1 else 1.0


def baselines(config: StudyConfig, space: Space, seed: int) -> dict[str, FloatArray]:
    """The fixed baselines as vectors of the space; those outside its bounds are left out."""
    rng = np.random.default_rng(seed)
    channels = max(group.width for group in config.network.groups)
    vectors: dict[str, FloatArray] = {}
    for name, build in BASELINES.items():
        matrix = build(len(config.tasks), channels, rng)
        try:
            vectors[name] = space.encode(matrix)
        except ValueError:
            continue
    return vectors


def build_strategy(
    config: StudyConfig,
    name: str,
    seed: int,
    space: Space,
    vectors: Mapping[str, FloatArray],
    knowledge: TaskKnowledge | None = None,
) -> Strategy:
    """A fresh strategy of the study.

    Args:
        config: The study.
        name: The strategy's.
        seed: Of its arm.
        space: What it searches.
        vectors: The baselines, as vectors of the space.
        knowledge: What it may know of the tasks; None where nothing has been made yet.
    """
    known = knowledge or TaskKnowledge()
    entry = config.strategies[name]
    problem = Problem(
        dim=space.dim,
        names=tuple(space.names()),
        use_dims=space.use_dims,
        seed=seed,
        baselines=vectors,
        initial=config.initial,
        use_steps=space.use_steps,
        concerns=space.concerns,
        tasks=known.tasks,
        similarity=known.similarity,
        reference=config.objective.reference or REFERENCE,
    )
    strategy: Strategy = STRATEGIES[entry.kind].build(problem, entry.settings)
    return strategy


def check_strategies(config: StudyConfig) -> None:
    """Build every strategy once, so that settings that do not fit the space are refused early.

    Raises:
        ConfigError: Naming the strategy.
    """
    space = build_space(config)
    for seed in config.seeds:
        vectors = baselines(config, space, seed)
        for name in config.strategies:
            try:
                build_strategy(config, name, seed, space, vectors)
            except ValueError as error:
                raise ConfigError(f"strategies.{name}: {error}") from error


def baseline_names(
    config: StudyConfig, name: str, vectors: Mapping[str, FloatArray]
) -> tuple[str, ...]:
    """The baselines that a strategy proposes, in order; none unless it is of that kind."""
    entry = config.strategies[name]
    return (entry.settings.names or tuple(vectors)) if entry.kind == "baselines" else ()
