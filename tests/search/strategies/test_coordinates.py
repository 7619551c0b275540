"""The whole range of mean use is equally likely, in every space; and what points mean."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partitioning import FloatArray
from search.config import parse_config
from search.strategies import STRATEGIES
from search.strategies.coordinates import Coordinates, in_steps, random_vectors, uses_of_mean
from search.study import build_space, build_strategy
from tests.helpers.strategies import evaluate, make_problem

SPACES: dict[str, dict[str, Any]] = {
    "sharing": {},
    "sharing, a part of the range": {"use": [0.2, 0.7]},
    "sharing per group": {"per_group": True},
    "sharing with backward masks": {"backward": True},
    "unit order": {"kind": "unit_order"},
    "unit order per group": {"kind": "unit_order", "per_group": True},
    "unit order with levels": {"kind": "unit_order", "units": 8, "levels": [0.5, 1.0]},
    "block level": {"kind": "block_level"},
    "block level that may skip": {"kind": "block_level", "use": [0.0, 1.0]},
}
NUM = 120


def mean_uses(
    space: dict[str, Any], settings: dict[str, Any], tasks: int, num: int = NUM
) -> FloatArray:
    """Mean use of what a strategy proposes, as a share of the range that is searched, (N,)."""
    config = parse_config(
        {
            "name": "even",
            "trunk": {"dataset": {"name": "hues", "source": "toy"}},
            "tasks": [{"name": f"task{i}", "source": "toy"} for i in range(tasks)],
            "backbone": {"model": "resnet14", "args": {"width": 16}},
            "space": space,
            "solver": {"gap": 0.05},
            "strategies": {"tried": {"kind": "random"} | settings},
            "initial": num,
        }
    )
    found = build_space(config)
    vectors = build_strategy(config, "tried", 0, found, {}).ask(num)
    # The least and the most: all uses at their bounds, all overlaps full.
    ends = [np.ones(found.dim), np.ones(found.dim)]
    ends[0][list(found.use_dims)] = 0.0
    low, high = (found.decode(end).masks.mean_use() for end in ends)
    use_N = np.array([found.decode(vector).masks.mean_use() for vector in vectors])
    return (use_N - low) / (high - low)


@pytest.mark.parametrize(("space", "tasks"), list(product(SPACES, (3, 7))))
def test_random_search_covers_the_range_of_use_evenly(space: str, tasks: int) -> None:
    share_N = np.sort(mean_uses(SPACES[space], {}, tasks))
    grid_N = (np.arange(NUM) + 0.5) / NUM
    # Uses come in steps: of three tasks and four units in tenths of the range.
    assert np.abs(share_N - grid_N).max() < 0.08
    tenths = np.histogram(np.clip(share_N, 0, 1), bins=5, range=(0, 1))[0]
    assert tenths.min() >= 0.12 * NUM
    assert tenths.max() <= 0.28 * NUM


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "sobol"},
        {"kind": "tpe", "startup": 200},
        {"kind": "gp", "startup": 200, "window": 200},
        {"kind": "nsga2", "population": 32},
        {"kind": "nsga3", "population": 32},
        {"kind": "cma_es", "population": 32},
        {"kind": "es"},
        {"kind": "policy_gradient"},
        {"kind": "regularised_evolution", "population": 32},
        {"kind": "local_refinement"},
        {"kind": "task_models"},
    ],
    ids=lambda settings: settings["kind"],
)
def test_others_begin_evenly(settings: dict[str, Any]) -> None:
    share_N = np.sort(mean_uses({}, settings, 7, num=32))
    grid_N = (np.arange(32) + 0.5) / 32
    assert np.abs(share_N - grid_N).max() < 0.12


@pytest.mark.parametrize(
    ("kind", "drawing"),
    [
        ("tpe", {"startup": 200, "batch": 32}),
        ("gp", {"startup": 200, "window": 200, "batch": 32}),
        ("nsga2", {"population": 32, "mutation": 1.0}),
        ("nsga3", {"population": 32, "mutation": 1.0}),
        ("cma_es", {"population": 32}),
    ],
)
def test_samplers_search_mean_use_unless_told_otherwise(kind: str, drawing: dict[str, Any]) -> None:
    """What they draw after the first batch, with settings by which they draw and do not model."""
    problem = replace(make_problem(dim=9), use_dims=tuple(range(9)), initial=32)
    spread = {}
    for uniform in (False, True):
        settings = STRATEGIES[kind].settings(uniform=uniform, **drawing)
        strategy = STRATEGIES[kind].build(problem, settings)
        strategy.tell([evaluate(i, vector) for i, vector in enumerate(strategy.ask(32))])
        spread[uniform] = np.std([vector.mean() for vector in strategy.ask(32)])
    # CMA-ES draws around its best.
    assert spread[False] > (0.16 if kind == "cma_es" else 0.2)
    assert spread[True] < 0.15


@pytest.mark.parametrize("space", SPACES)
def test_uniform_search_does_not(space: str) -> None:
    share_N = mean_uses(SPACES[space], {"uniform": True}, 7)
    assert ((share_N > 0.25) & (share_N < 0.75)).mean() > 0.7


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=9).map(np.array),
    st.floats(0, 1),
)
def test_uses_have_the_mean_that_is_asked_for(use_n: FloatArray, mean: float) -> None:
    moved_n = uses_of_mean(use_n, mean)
    assert moved_n.mean() == pytest.approx(mean, abs=1e-9) or not use_n.any()
    assert moved_n.min() >= -1e-12
    assert moved_n.max() <= 1 + 1e-12
    assert (np.diff(moved_n[np.argsort(use_n, kind="stable")]) >= -1e-9).all()


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=9).map(np.array),
    st.integers(1, 8),
)
def test_steps_have_the_mean_to_a_step(use_n: FloatArray, steps: int) -> None:
    step_n = np.floor(in_steps(use_n, steps) * steps)
    wanted_n = (steps - 1) * use_n
    assert step_n.min() >= 0
    assert step_n.max() <= steps - 1
    assert abs(step_n.sum() - wanted_n.sum()) <= 0.5 + 1e-9
    assert np.abs(step_n - wanted_n).max() <= 1 + 1e-9


def test_every_vector_has_a_point() -> None:
    coordinates = Coordinates(problem=make_problem())
    uses = list(coordinates.problem.use_dims)
    for vector in np.random.default_rng(0).random((20, coordinates.problem.dim)):
        point = np.concatenate([[vector[uses].mean()], vector])
        np.testing.assert_allclose(coordinates.vector(point), vector, atol=1e-12)


def test_points_depend_on_seed_and_index_alone() -> None:
    coordinates = Coordinates(problem=make_problem(seed=7))
    forward = [coordinates.point(i) for i in range(5)]
    backward = [coordinates.point(i) for i in reversed(range(5))][::-1]
    np.testing.assert_array_equal(forward, backward)
    other = Coordinates(problem=make_problem(seed=8)).points(0, 5)
    assert not np.isclose(forward, other).any()


def test_even_the_first_few_leave_no_large_gap() -> None:
    for seed in range(20):
        problem = make_problem(seed=seed)
        vectors = np.array(random_vectors(problem, 0, 8))
        mean_N = np.sort(vectors[:, list(problem.use_dims)].mean(axis=1))
        gaps = np.diff(np.concatenate([[0.0], mean_N, [1.0]]))
        assert gaps.max() < 0.25
