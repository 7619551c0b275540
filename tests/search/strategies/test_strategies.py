"""The contract every strategy keeps, driven by the registry."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partitioning import FloatArray
from search.strategies import STRATEGIES, Outcome, Problem, Strategy
from search.strategies import Strategy as StrategyProtocol
from search.strategies.agent.policy_gradient import PolicyGradientSettings
from search.strategies.baselines import BaselineSettings
from search.strategies.es.evolution import EvolutionSettings
from search.strategies.local_refinement import LocalRefinementSettings
from search.strategies.optuna_samplers.models import GpSettings, TpeSettings
from search.strategies.optuna_samplers.populations import (
    CmaEsSettings,
    Nsga2Settings,
    Nsga3Settings,
)
from search.strategies.random_search import RandomSettings
from search.strategies.regularised_evolution import RegularisedEvolutionSettings
from search.strategies.sobol import SobolSettings
from search.strategies.task_models.strategy import TaskModelsSettings
from tests.helpers.strategies import INITIAL, NUM, Evaluate, evaluate, make_problem, propose

# Small generations, so that a short run spans several; a new strategy has to join. A variant of a
# strategy has a colon after its kind.
SETTINGS: dict[str, Any] = {
    "random": RandomSettings(),
    "random: uniform": RandomSettings(uniform=True),
    "random: fixed use": RandomSettings(use=(0.3,)),
    "es": EvolutionSettings(directions=3, diagonal_l2=(1.0, 0.1), turn=2),
    "es: one weight, momentum, sigmoid": EvolutionSettings(
        directions=3, diagonal_l2=(0.1,), momentum=0.5, bounds="sigmoid"
    ),
    "es: per task": EvolutionSettings(directions=2, turn=2, per_task=True),
    "policy_gradient": PolicyGradientSettings(
        cost_weights=(0.0, 0.2), samples=3, levels=4, learning_rate=0.2
    ),
    "policy_gradient: continuous": PolicyGradientSettings(
        cost_weights=(0.0, 0.2), samples=3, distribution="continuous", learning_rate=0.2
    ),
    "regularised_evolution": RegularisedEvolutionSettings(population=6, tournament=3, batch=3),
    "local_refinement": LocalRefinementSettings(batch=3),
    "nsga2": Nsga2Settings(population=4),
    "nsga3": Nsga3Settings(population=4),
    "tpe": TpeSettings(batch=6, startup=8, window=10, acquisition=8),
    # A second or more per proposal once it models: in the last batch, unless two have failed.
    "gp": GpSettings(batch=2, startup=19, window=19),
    "cma_es": CmaEsSettings(cost_weights=(0.0, 0.2), population=4),
    "task_models": TaskModelsSettings(batch=5, searches=7, steps=3, fit_steps=2, window=12),
    "sobol": SobolSettings(),
    "baselines": BaselineSettings(),
}
ENDLESS = (
    "random",
    "random: uniform",
    "random: fixed use",
    "sobol",
    "baselines",
)  # they wait for nothing

#: Where candidates fail: this one still models, in the last batch, after three failures.
FAILING = {**SETTINGS, "gp: three failures": GpSettings(batch=2, startup=17, window=17)}


def kind_of(name: str) -> str:
    return name.split(":")[0]


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    """A parameter `name`; the Gaussian process is run only where slow tests are."""
    marked = [pytest.param(n, marks=pytest.mark.slow if kind_of(n) == "gp" else ()) for n in names]
    return pytest.mark.parametrize("name", marked)


every_strategy = each(SETTINGS)
every_random_strategy = each(
    name for name in SETTINGS if name not in ("baselines", "random: uniform", "random: fixed use")
)


def build(name: str, problem: Problem | None = None) -> Strategy:
    return STRATEGIES[kind_of(name)].build(problem or make_problem(), FAILING[name])


def failing(indices: Collection[int], kind: str = "error") -> Evaluate:
    def evaluate_or_fail(index: int, vector: FloatArray) -> Outcome:
        outcome = evaluate(index, vector)
        if index not in indices:
            return outcome
        kinds: dict[str, dict[str, Any]] = {
            "error": {"quality": None, "cost": None, "error": "out of memory"},
            "error with scores": {"error": "late"},
            "nan quality": {"quality": float("nan")},
            "nan cost": {"cost": float("nan")},
            "infinite": {"quality": float("inf")},
            "missing": {"cost": None},
        }
        return dataclasses.replace(outcome, **kinds[kind])

    return evaluate_or_fail


@functools.cache
def proposals_of(name: str) -> FloatArray:
    """What a strategy proposes when nothing disturbs it, shape (NUM, d)."""
    return propose(build(name))


def test_settings_of_every_strategy() -> None:
    assert {kind_of(name) for name in SETTINGS} == set(STRATEGIES)
    for name in SETTINGS:
        entry = STRATEGIES[kind_of(name)]
        assert isinstance(SETTINGS[name], entry.settings)
        assert entry.settings.__dataclass_params__.frozen
        parameters = inspect.signature(entry.settings).parameters.values()
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)
        assert entry.summary
        assert "\n" not in entry.summary
        strategy: StrategyProtocol = entry.build(make_problem(), entry.settings())
        assert len(strategy.ask(1)) == 1


@every_strategy
@pytest.mark.parametrize("dim", [1, 5])
def test_proposals_are_points_of_the_unit_cube(name: str, dim: int) -> None:
    strategy = build(name, make_problem(dim))
    vectors = strategy.ask(3)
    assert len(vectors) == 3
    for vector in vectors:
        assert isinstance(vector, np.ndarray)
        assert vector.shape == (dim,)
        assert vector.dtype == np.float64
        assert vector.flags.writeable
    proposals = propose(build(name, make_problem(dim)))
    assert proposals.shape == (NUM, dim)
    assert proposals.min() >= 0.0
    assert proposals.max() <= 1.0


@every_strategy
def test_same_seed_same_proposals(name: str) -> None:
    np.testing.assert_array_equal(propose(build(name)), propose(build(name)))


@every_random_strategy
def test_another_seed_other_proposals(name: str) -> None:
    first = propose(build(name, make_problem(seed=0)))
    second = propose(build(name, make_problem(seed=1)))
    assert not (first == second).all(axis=1).any()


@every_strategy
def test_global_randomness_is_neither_read_nor_changed(name: str) -> None:
    reference = propose(build(name))
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 (what is tested)
    try:
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
        np.testing.assert_array_equal(propose(build(name)), reference)
        after = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        np.testing.assert_equal(before[1], after[1])
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@every_strategy
def test_number_of_threads_does_not_matter(name: str) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = propose(build(name))
        torch.set_num_threads(2)
        two = propose(build(name))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(one, two)


@every_strategy
def test_outcomes_may_come_out_of_order(name: str) -> None:
    np.testing.assert_array_equal(propose(build(name)), propose(build(name), backwards=True))


@every_strategy
@settings(max_examples=20, deadline=None)
@given(
    asks=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    tells=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    order=st.permutations(range(NUM)),
)
def test_neither_chunks_nor_schedule_matter(
    name: str, asks: list[int], tells: list[int], order: list[int]
) -> None:
    reference = proposals_of(name)
    strategy = build(name)
    proposals: list[FloatArray] = []
    outstanding: dict[int, FloatArray] = {}
    for wanted, back in zip(itertools.cycle(asks), itertools.cycle(tells), strict=False):
        vectors = strategy.ask(min(wanted, NUM - len(proposals)))
        assert len(vectors) <= wanted
        for vector in vectors:
            outstanding[len(proposals)] = vector
            proposals.append(vector)
        if len(proposals) == NUM:
            break
        # Where there is nothing to ask for, something has to come back.
        num_back = back if vectors else max(1, back)
        finished = sorted(outstanding, key=order.index)[:num_back]
        strategy.tell([evaluate(i, outstanding.pop(i)) for i in finished])
    np.testing.assert_array_equal(np.array(proposals), reference)


@each(FAILING)
def test_resumed_at_any_point_equals_uninterrupted(name: str) -> None:
    score = failing({1, 6, 12})
    reference = propose(build(name), score=score)
    # What a crash leaves in the record: any number of outcomes, inside a generation not
    # necessarily the first of it.
    told = sorted(range(NUM), key=lambda i: (i // 4, -i))
    for cut in range(NUM + 1):
        record = set(told[:cut])
        strategy = build(name)
        proposals: list[FloatArray] = []
        lost: list[Outcome] = []
        while len(proposals) < NUM:
            vectors = strategy.ask(min(2, NUM - len(proposals)))
            if not vectors:  # evaluate again what was lost
                strategy.tell(lost)
                lost = []
            for vector in vectors:
                outcome = score(len(proposals), vector)
                if outcome.index in record:
                    strategy.tell([outcome])
                else:
                    lost.append(outcome)
                proposals.append(vector)
        np.testing.assert_array_equal(np.array(proposals), reference, err_msg=f"cut at {cut}")


every_failure = pytest.mark.parametrize(
    "kind", ["error", "error with scores", "nan quality", "nan cost", "infinite", "missing"]
)


@every_failure
@each(name for name in FAILING if name not in SETTINGS)
def test_failures_are_tolerated_where_a_model_is_fitted(name: str, kind: str) -> None:
    test_failures_are_tolerated(name, kind, {5, 9, 13})


@every_strategy
@every_failure
@pytest.mark.parametrize(
    "indices",
    [{0}, {5, 9, 13}, set(range(6)), set(range(4, 16)), set(range(NUM))],
    ids=["the first", "some", "the first generation", "two generations", "all"],
)
def test_failures_are_tolerated(name: str, kind: str, indices: set[int]) -> None:
    assert all(failing(indices, kind)(i, np.zeros(5)).failed for i in indices)
    proposals = propose(build(name), score=failing(indices, kind))
    assert np.isfinite(proposals).all()
    assert proposals.min() >= 0.0
    assert proposals.max() <= 1.0
    # However a candidate failed, it has failed.
    np.testing.assert_array_equal(proposals, propose(build(name), score=failing(indices)))
    # A strategy that has learnt nothing still does not repeat itself.
    assert len(np.unique(proposals, axis=0)) > NUM // 2


@every_strategy
def test_arguments_stay_as_they_are_and_proposals_belong_to_the_caller(name: str) -> None:
    reference = propose(build(name))
    strategy = build(name)
    index = 0
    while index < NUM:
        vectors = strategy.ask(NUM - index)
        outcomes = []
        for i, vector in enumerate(vectors, start=index):
            np.testing.assert_array_equal(vector, reference[i])
            kept = vector.copy()
            kept.setflags(write=False)  # writing to it would raise
            outcomes.append(evaluate(i, kept))
            vector[:] = np.nan
        index += len(vectors)
        before = list(outcomes)
        strategy.tell(outcomes)
        assert outcomes == before
        for outcome in outcomes:
            np.testing.assert_array_equal(outcome.vector, reference[outcome.index])


@every_strategy
def test_outcomes_of_nothing_outstanding_are_refused(name: str) -> None:
    strategy = build(name)
    first, second = strategy.ask(2)
    with pytest.raises(ValueError, match=r"candidate 2 is not outstanding.*2 candidates asked"):
        strategy.tell([evaluate(0, first), evaluate(2, second)])
    with pytest.raises(ValueError, match="candidate 1 was proposed as"):
        strategy.tell([evaluate(1, first)])
    with pytest.raises(ValueError, match="candidate 0 is not outstanding"):
        strategy.tell([evaluate(0, first), evaluate(0, first)])
    # Nothing of the refused batches was taken in.
    strategy.tell([evaluate(0, first), evaluate(1, second)])
    with pytest.raises(ValueError, match="candidate 0 is not outstanding"):
        strategy.tell([evaluate(0, first)])
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        strategy.ask(-1)


@every_strategy
def test_asking_for_none_and_telling_nothing_change_nothing(name: str) -> None:
    strategy = build(name)
    assert strategy.ask(0) == []
    strategy.tell([])
    np.testing.assert_array_equal(propose(strategy), propose(build(name)))


@each(name for name in SETTINGS if name not in ENDLESS)
def test_a_generation_is_waited_for(name: str) -> None:
    strategy = build(name)
    first = strategy.ask(100)
    assert 0 < len(first) < 100
    strategy.tell([evaluate(i, vector) for i, vector in enumerate(first[:-1])])
    assert strategy.ask(100) == []
    strategy.tell([evaluate(len(first) - 1, first[-1])])
    assert strategy.ask(100)


def test_uniform_proposals_are_uniform() -> None:
    num = 2000
    proposals = propose(build("random: uniform", make_problem(2)), num)
    # Kolmogorov-Smirnov: 1.95 / sqrt(N) is exceeded once in 1,000 seeds; this one is fixed.
    grid = (np.arange(num) + 0.5) / num
    assert np.abs(np.sort(proposals, axis=0) - grid[:, None]).max() < 1.95 / num**0.5
    correlation = np.mean((proposals[:, 0] - 0.5) * (proposals[:, 1] - 0.5)) * 12.0
    assert abs(correlation) < 3.5 / num**0.5


def test_fixed_uses_stay_and_everything_else_is_uniform() -> None:
    problem = make_problem()
    uniform = propose(build("random: uniform"))
    for use in ((0.3,), (0.3, 1.0)):
        found = propose(STRATEGIES["random"].build(problem, RandomSettings(use=use)))
        np.testing.assert_array_equal(found[:, [0, 1]], np.broadcast_to(use, (NUM, 2)))
        # However large uses are, the rest is the same.
        np.testing.assert_array_equal(found[:, 2:], uniform[:, 2:])


def test_wrong_fixed_uses_are_refused() -> None:
    for use, message in {
        (): "use must be one or more numbers, each in .*or null, got",
        (0.3, 1.2): r"use must be .*each in \[0, 1\], or null, got \[0.3, 1.2\]",
        (float("nan"),): "use must be .*each in",
    }.items():
        with pytest.raises(ValueError, match=message):
            RandomSettings(use=use)
    with pytest.raises(ValueError, match="uniform must be false where use is given"):
        RandomSettings(uniform=True, use=(0.3,))
    three = RandomSettings(use=(0.3, 0.3, 0.3))
    with pytest.raises(ValueError, match=r"one for each of the 2 use entries .*got 3"):
        STRATEGIES["random"].build(make_problem(), three)
    without = dataclasses.replace(make_problem(), use_dims=())
    with pytest.raises(ValueError, match="use must be null in a space without use entries"):
        STRATEGIES["random"].build(without, RandomSettings(use=(0.3,)))


@every_random_strategy
def test_all_start_from_what_random_search_proposes_first(name: str) -> None:
    np.testing.assert_array_equal(propose(build(name), INITIAL), propose(build("random"), INITIAL))


def test_baselines_are_proposed_in_order_and_then_no_more() -> None:
    problem = make_problem()
    strategy = build("baselines", problem)
    proposals = propose(strategy, len(problem.baselines))
    np.testing.assert_array_equal(proposals, np.array(list(problem.baselines.values())))
    assert strategy.ask(5) == []

    chosen = BaselineSettings(names=("fixed_3", "fixed_1"))
    strategy = STRATEGIES["baselines"].build(problem, chosen)
    vectors = strategy.ask(5)
    expected = [problem.baselines["fixed_3"], problem.baselines["fixed_1"]]
    np.testing.assert_array_equal(np.array(vectors), np.array(expected))
    assert strategy.ask(5) == []


def test_wrong_baselines_are_refused() -> None:
    unknown = BaselineSettings(names=("fixd_3",))
    with pytest.raises(ValueError, match="unknown baseline 'fixd_3': did you mean 'fixed_3'"):
        STRATEGIES["baselines"].build(make_problem(), unknown)
    with pytest.raises(ValueError, match="fixed_1 is listed more than once"):
        BaselineSettings(names=("fixed_1", "fixed_2", "fixed_1"))
    empty = dataclasses.replace(make_problem(), baselines={})
    with pytest.raises(ValueError, match="no baseline to propose"):
        STRATEGIES["baselines"].build(empty, BaselineSettings())
