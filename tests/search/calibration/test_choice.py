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


def space(*, exact_use: bool = False, **changed: Any) -> SharingSpace:
    config, solver = SpaceConfig(**changed), SolverConfig(exact_use=exact_use)
    return SharingSpace(tasks=TASKS, groups=GROUPS, config=config, solver=solver)


def test_drawn_candidates_differ_in_use_and_in_sharing() -> None:
    found = np.array(draw(space(), 16, 3))
    even_N = (np.arange(16) + 0.5) / 16
    np.testing.assert_allclose(found[:, :3].mean(axis=1), even_N, atol=1e-12)
    sharing_N = found[:, 3:].mean(axis=1)
    np.testing.assert_allclose(np.sort(sharing_N), even_N, atol=1e-12)
    assert abs(np.corrcoef(even_N, sharing_N)[0, 1]) < 0.4
    # Entries of a vector differ, too.
    assert found[4:12, :3].std(axis=1).min() > 0.02
    assert not np.allclose(found, draw(space(), 16, 4))


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
    # Where little is to be shared masks may use less than is asked, unless they must not.
    drawn_from = space(exact_use=True, **changed)
    low, high = changed.get("use", (0.05, 1.0))
    vectors = draw(drawn_from, 8, 0)
    uses = [drawn_from.decode(vector).masks.mean_use() for vector in vectors]
    # Whole channels of groups of 8 and 16: a use is off by at most a sixteenth of them, and
    # groups of different width weigh differently.
    assert min(uses) >= low - 0.1
    assert max(uses) <= high + 0.1
    wanted = low + (high - low) * (np.arange(8) + 0.5) / 8
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
    masks = [own.decode(vector).masks for vector in draw(own, 8, 9)]
    record = [recorded(i, m) for i, m in enumerate(masks)]
    record += [recorded(8, masks[0]), recorded(9, None), recorded(10, masks[1], error="boom")]
    config = CalibrationConfig(candidates=12)
    chosen = choose(record, own, config)
    assert [c.candidate for c in chosen] == [f"es-0-{i}" for i in range(8)] + [None] * 4
    assert [c.masks for c in chosen[:8]] == masks
    few = choose(record, own, replace(config, candidates=4, trained_twice=2))
    assert [c.candidate for c in few] == ["es-0-0", "es-0-2", "es-0-5", "es-0-7"]
    drawn = choose([], own, config)
    assert len({c.masks for c in drawn}) == 12
