"""What is made of a config: the range of cost of its space."""

from typing import Any

import numpy as np
import pytest

from search.config import COSTS
from search.strategies import TaskFacts, TaskKnowledge
from search.study import build_space, cost_range
from tests.helpers.studies import simulated
from trainers.cost import costs

CLASSES = (2, 9, 30, 4)
KNOWLEDGE = TaskKnowledge(
    tasks=tuple(
        TaskFacts(name=name, classes=classes, images=9, teacher_accuracy=0.9)
        for name, classes in zip("abcd", CLASSES, strict=True)
    )
)
SPACES: list[dict[str, Any]] = [
    {},
    {"use": [0.2, 1.0]},
    {"use": [0.5, 0.5]},
    {"kind": "unit_order", "units": 4},
    {"kind": "block_level", "units": 4},
]


@pytest.mark.parametrize("cost", [name for name in COSTS if name != "latency"])
@pytest.mark.parametrize("space", SPACES)
def test_no_vector_costs_less_than_the_least(cost: str, space: dict[str, Any]) -> None:
    config = simulated(
        tasks=[{"name": name} for name in "abcd"], space=space, objective={"cost": cost}
    )
    least, most = cost_range(config, KNOWLEDGE)
    built = build_space(config)
    rows = np.repeat(CLASSES, len(config.space.levels)).tolist()
    draws = np.random.default_rng(0).random((20, built.dim))
    draws[5:10, list(built.use_dims)] = 0
    draws[10:12] = [[0.0], [1.0]]
    found = [
        getattr(costs(config.network, built.decode(v).masks, rows), COSTS[cost].attribute)
        for v in draws
    ]
    assert min(found) >= least - 1e-9
    if space.get("use") != [0.5, 0.5]:
        assert max(found) <= most + 1e-9
