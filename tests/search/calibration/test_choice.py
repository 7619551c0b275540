"""Which candidates a calibration takes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from partitioning import ChannelGroup, Masks, SharingSpace, SolverConfig, SpaceConfig
from search.calibration.choice import choose, draw, evenly_over_cost, trained_twice
from search.candidates import Candidate, Decoding
from search.config.sections import CalibrationConfig

TASKS = ("a", "b", "c")
GROUPS = (ChannelGroup(name="one", width=8), ChannelGroup(name="two", width=16))


def space(**changed: Any) -> SharingSpace:
    config = SpaceConfig(**changed)
    return SharingSpace(tasks=TASKS, groups=GROUPS, config=config, solver=SolverConfig())


def test_drawn_candidates_are_those_of_the_recipe() -> None:
    rng = np.random.default_rng(3)
    expected = []
    for _ in range(2):
        for u in np.linspace(0.12, 0.96, 8):
            s = min(u - 0.05, 1 - u, 0.3)
            use = u + s * rng.uniform(-1, 1, 3)
            use += u - use.mean()
            use = np.clip(use, 0.05, 1)
            v = rng.uniform(size=6)
            v[:3] = (use - 0.05) / 0.95
            expected.append(v)
    found = draw(space(), (0.05, 1.0), 16, 3)
    assert np.allclose(found, expected, rtol=0, atol=1e-12)
    assert np.allclose(draw(space(), (0.05, 1.0), 8, 3), expected[:8], rtol=0, atol=1e-12)
    # Of a round that is not whole, uses apart: the second round's first, middle and last.
    some = draw(space(), (0.05, 1.0), 10, 3)
    assert np.allclose(some[8:], [expected[8], expected[15]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "changed",
    [
        {"per_group": True},
        {"backward": True},
        {"per_group": True, "backward": True},
        {"use": (0.2, 0.6)},
        {"use": (0.5, 0.5)},
    ],
)
def test_any_space_can_be_drawn_from(changed: dict[str, Any]) -> None:
    drawn_from = space(**changed)
    low, high = bounds = changed.get("use", (0.05, 1.0))
    vectors = draw(drawn_from, bounds, 8, 0)
    uses = [drawn_from.decode(vector).masks.mean_use() for vector in vectors]
    # Whole channels of groups of 8 and 16: a use is off by at most a sixteenth of them, and
    # groups of different width weigh differently.
    assert min(uses) >= low - 0.1
    assert max(uses) <= high + 0.1
    wanted = low + (high - low) * np.linspace(0.07, 0.91, 8) / 0.95
    assert np.abs(np.array(uses) - wanted).max() < 0.12


def test_candidates_lie_evenly_over_cost() -> None:
    rng = np.random.default_rng(0)
    cost = np.concatenate([rng.normal(0.5, 0.02, 90), rng.uniform(0.1, 1, 10)])
    chosen = evenly_over_cost(cost, 9)
    assert len(set(chosen)) == 9
    assert {int(cost.argmin()), int(cost.argmax())} <= set(chosen)
    # Most candidates cost .5; of the chosen ones no more do than elsewhere.
    assert sum(abs(cost[i] - 0.5) < 0.05 for i in chosen) <= 3
    assert evenly_over_cost(cost[:4], 9) == [0, 1, 2, 3]
    assert evenly_over_cost(np.full(5, 0.3), 3) == [0, 1, 2]
    assert evenly_over_cost(np.array([]), 3) == []


def test_those_trained_twice_lie_evenly_over_use() -> None:
    use = np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    assert trained_twice(use, 3) == [1, 2, 0]
    assert trained_twice(use, 0) == []


def recorded(index: int, masks: Masks | None, **changed: Any) -> Candidate:
    candidate = Candidate(
        strategy="es", seed=0, index=index, vector=(0.5,) * 6, names=tuple(space().names()),
        quality=0.5, cost=0.5, decoding=Decoding(masks=masks, realised={}) if masks else None,
    )  # fmt: skip
    return replace(candidate, **changed)


def test_the_records_candidates_come_first() -> None:
    own = space()
    masks = [own.decode(vector).masks for vector in draw(own, (0.05, 1.0), 8, 9)]
    record = [recorded(i, m) for i, m in enumerate(masks)]
    record += [recorded(8, masks[0]), recorded(9, None), recorded(10, masks[1], error="boom")]
    config = CalibrationConfig(candidates=12)
    chosen = choose(record, own, (0.05, 1.0), config)
    assert [c.candidate for c in chosen] == [f"es-0-{i}" for i in range(8)] + [None] * 4
    assert [c.masks for c in chosen[:8]] == masks
    few = choose(record, own, (0.05, 1.0), replace(config, candidates=4, trained_twice=2))
    assert [c.candidate for c in few] == ["es-0-0", "es-0-2", "es-0-5", "es-0-7"]
    drawn = choose([], own, (0.05, 1.0), config)
    assert len({c.masks for c in drawn}) == 12
