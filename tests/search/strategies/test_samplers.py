"""What is particular to Optuna's samplers, regularised evolution, local refinement and Sobol."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest

from partitioning import FloatArray
from search.strategies import Outcome, Problem, Strategy
from search.strategies.batches import Batches
from search.strategies.local_refinement import LocalRefinement, LocalRefinementSettings
from search.strategies.optuna_samplers.memory_study import MemoryStudy, quiet
from search.strategies.optuna_samplers.models import GpSettings, TpeSettings, tpe
from search.strategies.optuna_samplers.populations import (
    CmaEsSettings,
    Nsga2Settings,
    Nsga3Settings,
    Population,
    cma_es,
    nsga2,
    nsga3,
)
from search.strategies.regularised_evolution import (
    RegularisedEvolution,
    RegularisedEvolutionSettings,
)
from search.strategies.sobol import SobolSettings, sobol_points
from search.strategies.window import window

DIM = 6


def make_problem(initial: int = 8) -> Problem:
    names = tuple(f"entry[{i}]" for i in range(DIM))
    return Problem(dim=DIM, names=names, use_dims=(), seed=0, baselines={}, initial=initial)


def outcome(index: int, vector: FloatArray, quality: float, cost: float = 0.5) -> Outcome:
    return Outcome(index=index, vector=vector, quality=quality, cost=cost)


def failed(index: int, vector: FloatArray) -> Outcome:
    return Outcome(index=index, vector=vector, quality=None, cost=None, error="out of memory")


def step(strategy: Strategy, start: int, score: Callable[[int, FloatArray], Outcome]) -> FloatArray:
    """One generation, asked and told; returns its vectors, shape (n, d)."""
    vectors = strategy.ask(1000)
    strategy.tell([score(start + i, vector) for i, vector in enumerate(vectors)])
    return np.array(vectors)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: nsga2(p, Nsga2Settings(population=4, mutation=0.0)),
        lambda p: nsga3(p, Nsga3Settings(population=4, mutation=0.0)),
    ],
)
def test_children_of_nsga_descend_from_the_best_of_the_initial_batch(make: Any) -> None:
    strategy = make(make_problem())
    # Only four are not dominated by others: the first of the batch, a front among themselves.
    initial = step(
        strategy,
        0,
        lambda i, v: outcome(
            i, v, 0.5 + 0.1 * i if i < 4 else 0.1, 0.5 + 0.1 * i if i < 4 else 0.9
        ),
    )
    for child in strategy.ask(1000):
        inherited = child == initial  # (8, d)
        assert inherited[:4].any(axis=0).all()


@pytest.mark.parametrize("population", [4, 12])
def test_a_generation_of_nsga_is_filled_up_after_failures(population: int) -> None:
    strategy = nsga2(make_problem(), Nsga2Settings(population=population))
    step(strategy, 0, lambda i, v: failed(i, v) if i < 2 else outcome(i, v, v.mean()))
    # Six are alive: more than a population of 4, and half of one of 12.
    first = step(strategy, 8, lambda i, v: failed(i, v) if i < 11 else outcome(i, v, v.mean()))
    assert len(first) == (4 if population == 4 else 6)
    assert len(strategy.ask(1000)) == 3


def test_a_failure_is_never_told_as_numbers() -> None:
    study = MemoryStudy(DIM, optuna.samplers.NSGAIISampler(population_size=4, seed=0))
    population = Population(study, 4, Outcome.scores)
    (first, vector), (second, _), *_ = population.ask()
    population.tell(first, failed(0, vector))
    population.tell(second, outcome(1, vector, 0.7, 0.4))
    trials = study._study.trials
    assert trials[first].state == optuna.trial.TrialState.FAIL
    assert trials[first].values is None
    assert trials[second].values == [0.7, 0.4]


def test_every_cma_es_starts_from_the_best_by_its_own_reward() -> None:
    settings = CmaEsSettings(cost_weights=(0.0, 1.0), population=4, step_size=1e-6)
    strategy = cma_es(make_problem(), settings)
    initial = step(strategy, 0, lambda i, v: outcome(i, v, 0.5 + 0.05 * i, 0.1 * (i + 1)))
    vectors = np.array(strategy.ask(1000))
    # q - c^2 = 0.5 + 0.05 i - 0.01 (i + 1)^2 is largest for i = 1 and i = 2; 1 comes first.
    by_reward = [0.5 + 0.05 * i - (0.1 * (i + 1)) ** 2 for i in range(8)]
    np.testing.assert_allclose(vectors[::2], np.tile(initial[7], (4, 1)), atol=1e-4)
    best = initial[int(np.argmax(by_reward))]
    np.testing.assert_allclose(vectors[1::2], np.tile(best, (4, 1)), atol=1e-4)


def test_the_window_is_the_best_half_and_the_newest() -> None:
    vector = np.zeros(DIM)
    told = [outcome(i, vector, quality) for i, quality in enumerate([0.1, 0.9, 0.2, 0.8, 0.3, 0.4])]
    assert window(told, 6) == told
    assert [kept.index for kept in window(told, 4)] == [1, 3, 4, 5]
    assert [kept.index for kept in window(told, 3)] == [1, 4, 5]


def test_optuna_says_nothing_and_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    with quiet():
        optuna.create_study()
    step(tpe(make_problem(), TpeSettings()), 0, lambda i, v: outcome(i, v, v.mean()))
    assert capfd.readouterr().err == ""
    assert optuna.logging.get_verbosity() == before


def test_the_old_die_however_good() -> None:
    settings = RegularisedEvolutionSettings(
        population=8, tournament=8, entries=1, step_size=1e-3, batch=4
    )
    problem = make_problem()
    strategy = Batches(problem, RegularisedEvolution(problem, settings))
    # The first is the best by far; all that follow are equal.
    initial = step(strategy, 0, lambda i, v: outcome(i, v, 1.0 if i == 0 else 0.1))

    def parents_are(first: bool, children: FloatArray) -> None:
        near = np.abs(children - initial[0]).max(axis=1) < 0.01
        assert near.all() if first else not near.any()

    parents_are(True, step(strategy, 8, lambda i, v: failed(i, v)))
    parents_are(True, step(strategy, 12, lambda i, v: outcome(i, v, 0.0, 0.9)))
    parents_are(False, step(strategy, 16, lambda i, v: outcome(i, v, 0.0, 0.9)))


def test_steps_shrink_where_they_gain_nothing_and_grow_where_they_do() -> None:
    settings = LocalRefinementSettings(step_size=0.4, smallest=0.1, grow=2.0, shrink=0.5, batch=1)
    problem = make_problem()
    strategy = Batches(problem, LocalRefinement(problem, settings))
    step(strategy, 0, lambda i, v: outcome(i, v, 1.0 if i == 3 else 0.5))
    sizes = []
    for index, quality in enumerate([0.5, 0.5, 0.5, 1.5, 1.6], start=8):
        step(strategy, index, lambda i, v, quality=quality: outcome(i, v, quality))
        sizes += strategy.learner.step_sizes
    # Children start from their parent's: 0.1 doubled, and doubled again.
    np.testing.assert_allclose(sizes, [0.2, 0.1, 0.1, 0.2, 0.4])
    step(strategy, 13, failed)
    assert strategy.learner.step_sizes == [0.2]


def test_steps_start_where_the_front_has_most_room() -> None:
    settings = LocalRefinementSettings(step_size=1e-3, smallest=1e-3, batch=400)
    problem = make_problem(4)
    strategy = Batches(problem, LocalRefinement(problem, settings))
    scores = [0.1, 0.2, 0.3, 0.9]  # the third has a gap beside it, the ends have all the room
    initial = step(strategy, 0, lambda i, v: outcome(i, v, scores[i], scores[i]))
    distance = np.abs(np.array(strategy.ask(400))[:, None] - initial).max(axis=-1)
    counts = np.bincount(distance.argmin(axis=1), minlength=4)
    # Of 16 pairs, the second wins 1 and the third 3: 25 and 75 of 400, +- 5 and 8.
    assert counts[1] < 45 < counts[2]
    assert counts[2] < counts[0] + counts[3]


def test_sobol_points_are_evenly_spread() -> None:
    strategy = sobol_points(make_problem(), SobolSettings())
    points = np.array(strategy.ask(8 + 64))[8:]
    # One in each of 64 equal parts of every entry; uniform points leave a third of them empty.
    parts = np.sort((points * 64).astype(int), axis=0)
    np.testing.assert_array_equal(parts, np.tile(np.arange(64)[:, None], DIM))


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        (TpeSettings, {"batch": 0}, "batch must be at least 1 candidate, got 0"),
        (TpeSettings, {"startup": 20, "window": 19}, "at least startup = 20 outcomes, got 19"),
        (GpSettings, {"startup": 20, "window": 19}, "at least startup = 20 outcomes, got 19"),
        (GpSettings, {"startup": 1}, "startup must be at least 2 outcomes, got 1"),
        (Nsga2Settings, {"population": 1}, "population must be at least 2 candidates, got 1"),
        (Nsga2Settings, {"mutation": 1.5}, r"mutation must be in \[0, 1\], or null, got 1.5"),
        (Nsga3Settings, {"crossover": -0.1}, r"crossover must be in \[0, 1\], got -0.1"),
        (Nsga3Settings, {"divisions": 0}, "divisions must be at least 1, got 0"),
        (CmaEsSettings, {"population": 3}, r"population must be at least 4 \(of fewer, .*, got 3"),
        (CmaEsSettings, {"cost_weights": ()}, r"one or more different numbers, .*, got \[\]"),
        (CmaEsSettings, {"cost_weights": (-1.0,)}, "each finite and not negative, got"),
        (CmaEsSettings, {"step_size": 0.0}, "step_size must be positive and finite, got 0.0"),
        (
            RegularisedEvolutionSettings,
            {"tournament": 33},
            "from 1 to population = 32 candidates, got",
        ),
        (RegularisedEvolutionSettings, {"batch": 0}, "batch must be at least 1 candidate, got 0"),
        (LocalRefinementSettings, {"smallest": 0.5}, "at most step_size = 0.3, got 0.5"),
        (LocalRefinementSettings, {"grow": 0.9}, "grow must be at least 1 and finite, got 0.9"),
        (LocalRefinementSettings, {"shrink": 0.0}, r"shrink must be in \(0, 1\], got 0.0"),
        (LocalRefinementSettings, {"entries": float("nan")}, "entries must be positive"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**given)
