import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from partitioning import FloatArray
from search.strategies import Outcome, Problem
from search.strategies.batches import Batches
from search.strategies.coordinates import random_vectors
from search.strategies.es.evolution import Evolution, EvolutionSettings, evolution
from search.strategies.es.gradients import ascent

DIM = 6
USE = (0, 1, 2)
# As published: one weight, and all directions count.
SETTINGS = EvolutionSettings(directions=5, diagonal_l2=(0.05,))
Quality = Callable[[FloatArray], float]


def make_problem(seed: int = 0, use_dims: tuple[int, ...] = USE, initial: int = 4) -> Problem:
    return Problem(
        dim=DIM,
        names=tuple(f"entry[{i}]" for i in range(DIM)),
        use_dims=use_dims,
        seed=seed,
        baselines={},
        initial=initial,
    )


def small(**changes: Any) -> EvolutionSettings:
    return dataclasses.replace(SETTINGS, **changes)


def generation(
    strategy: Batches[Evolution], quality: Quality, start: int, failed: tuple[int, ...] = ()
) -> list[FloatArray]:
    """Answers one generation; `failed` counts from its start. Returns its vectors."""
    vectors = strategy.ask(1000)
    strategy.tell(
        [
            Outcome(index=start + i, vector=vector, quality=None, cost=None, error="lost")
            if i in failed
            else Outcome(index=start + i, vector=vector, quality=quality(vector), cost=0.5)
            for i, vector in enumerate(vectors)
        ]
    )
    return vectors


def centre_of(strategy: Batches[Evolution]) -> FloatArray:
    assert strategy.learner.centre is not None
    return strategy.learner.centre.copy()


def wavy(vector: FloatArray) -> float:
    return float(0.5 + 0.1 * np.sin(7.0 * vector + np.arange(DIM)).mean())


def literal_step(
    centre: FloatArray,
    pairs: list[tuple[FloatArray, FloatArray]],
    deltas: list[FloatArray],
    *,
    alpha: float,
    weight: float,
    best: int,
) -> FloatArray:
    """Lines 6 and 7 in plain loops."""

    def reward(x: FloatArray) -> float:
        return wavy(x) - weight * sum(float(x[i]) ** 2 for i in USE) / len(USE)

    rows = [
        (reward(plus), reward(minus), delta)
        for (plus, minus), delta in zip(pairs, deltas, strict=True)
    ]
    rows = sorted(rows, key=lambda row: -max(row[:2]))[:best]
    rewards = [r for row in rows for r in row[:2]]
    mean = sum(rewards) / len(rewards)
    sigma = (sum((r - mean) ** 2 for r in rewards) / len(rewards)) ** 0.5
    result = centre.copy()
    for r_plus, r_minus, delta in rows:
        result += alpha / (len(rows) * sigma) * (r_plus - r_minus) * delta
    return np.clip(result, 0.0, 1.0)


@pytest.mark.parametrize("best", [1, 3, 5])
@pytest.mark.parametrize("failed", [(), (3,), (0, 1, 6)])
def test_a_step_is_the_published_equation(best: int, failed: tuple[int, ...]) -> None:
    # Small enough that no perturbation is clipped, so that directions can be read off.
    nu, alpha, weight = 1e-3, 0.05, 0.3
    settings = small(best=best, step_size=nu, learning_rate=alpha, diagonal_l2=(weight,))
    strategy = evolution(make_problem(), settings)
    generation(strategy, wavy, 0)
    before = centre_of(strategy)
    vectors = generation(strategy, wavy, 4, failed)
    pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
    for plus, minus in pairs:
        np.testing.assert_allclose((plus + minus) / 2, before, atol=1e-14)
    alive = [k for k in range(5) if not {2 * k, 2 * k + 1} & set(failed)]
    expected = literal_step(
        before,
        [pairs[k] for k in alive],
        [(pairs[k][0] - pairs[k][1]) / (2 * nu) for k in alive],
        alpha=alpha,
        weight=weight,
        best=best,
    )
    assert np.abs(expected - before).max() > 0.01
    np.testing.assert_allclose(centre_of(strategy), expected, rtol=0, atol=1e-9)


def test_the_best_directions_are_those_of_the_best_single_reward() -> None:
    directions_KD = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    rewards_K2 = np.array([[-9.0, 4.0], [2.0, 2.5], [3.0, -5.0]])
    # The first and third: (-13, 0) / 2 + (8, 8) / 2, over the deviation of their four rewards.
    sigma = math.sqrt(np.square(np.array([-9.0, 4.0, 3.0, -5.0]) + 1.75).mean())
    step_D = ascent(directions_KD, rewards_K2, 2)
    np.testing.assert_allclose(step_D, np.array([-2.5, 4.0]) / sigma)
    np.testing.assert_array_equal(
        ascent(directions_KD, rewards_K2, 3), ascent(directions_KD, rewards_K2, 9)
    )


@pytest.mark.parametrize(("directions", "default"), [(20, 10), (19, 10), (12, 8), (5, 5)])
def test_half_of_many_directions_count_by_default(directions: int, default: int) -> None:
    centres = []
    for best in (None, default, default - 1):
        strategy = evolution(make_problem(), small(directions=directions, best=best))
        generation(strategy, wavy, 0)
        generation(strategy, wavy, 4)
        centres.append(centre_of(strategy))
    np.testing.assert_array_equal(centres[0], centres[1])
    assert not np.array_equal(centres[0], centres[2])


def test_directions_are_standard_normal_and_new_in_every_step() -> None:
    nu = 1e-4
    strategy = evolution(make_problem(), small(directions=400, step_size=nu))
    generation(strategy, wavy, 0)
    deltas = []
    for step in range(2):
        vectors = np.array(generation(strategy, wavy, 4 + 800 * step))
        deltas.append((vectors[::2] - vectors[1::2]) / (2 * nu))
    for delta_KD in deltas:
        # 2,400 draws: 5 standard errors of the mean and of the standard deviation.
        assert abs(delta_KD.mean()) < 5 / 2400**0.5
        assert abs(delta_KD.std() - 1.0) < 5 / 4800**0.5
    assert np.abs(np.corrcoef(deltas[0].ravel(), deltas[1].ravel())[0, 1]) < 5 / 2400**0.5


def test_only_what_could_be_realised_moves_the_centre() -> None:
    """The last entry has no effect: whatever is proposed, 0.5 is what is realised of it."""

    def realised(vector: FloatArray) -> FloatArray:
        return np.append(vector[:-1], 0.5)

    def run(realisable: bool) -> list[FloatArray]:
        strategy = evolution(make_problem(), small(realisable=realisable, learning_rate=0.5))
        centres, start = [], 0
        for _ in range(4):
            vectors = strategy.ask(1000)
            strategy.tell(
                [
                    Outcome(
                        index=start + i,
                        vector=vector,
                        quality=wavy(realised(vector)),
                        cost=0.5,
                        realisable=realised(vector),
                    )
                    for i, vector in enumerate(vectors)
                ]
            )
            start += len(vectors)
            centres.append(centre_of(strategy))
        return centres

    with_it, without = run(True), run(False)
    assert [centre[-1] for centre in with_it] == [0.5] * 4
    assert len({float(centre[-1]) for centre in without}) == 4
    assert not np.array_equal(with_it[0][:-1], with_it[1][:-1])


def test_directions_depend_on_the_seed() -> None:
    directions = []
    for seed in (0, 1):
        strategy = evolution(make_problem(seed), small(step_size=1e-4))
        generation(strategy, wavy, 0)
        vectors = np.array(strategy.ask(10))
        directions.append((vectors[::2] - vectors[1::2]) / 2e-4)
    assert np.abs(directions[0] - directions[1]).max() > 1.0


def test_failure_of_all_pairs_skips_the_step_and_draws_new_directions() -> None:
    strategy = evolution(make_problem(), small())
    generation(strategy, wavy, 0)
    before = centre_of(strategy)
    first = generation(strategy, wavy, 4, failed=(0, 2, 5, 7, 8))  # one of every pair
    np.testing.assert_array_equal(strategy.learner.centre, before)
    second = strategy.ask(1000)
    assert len(second) == 10
    assert not any(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_equal_rewards_say_nothing() -> None:
    strategy = evolution(make_problem(), small(diagonal_l2=(0.0,)))
    generation(strategy, wavy, 0)
    before = centre_of(strategy)
    generation(strategy, lambda _: 0.1, 4)
    np.testing.assert_array_equal(strategy.learner.centre, before)


def test_the_start_is_the_best_of_the_initial_batch_by_quality_less_pull() -> None:
    initial = random_vectors(make_problem(), 0, 8)
    use = [float(np.square(vector[list(USE)]).mean()) for vector in initial]
    greedy = int(np.argmax(use))
    # Quality prefers the vector that uses most, by a little less than the pull costs it.
    qualities = {i: 0.5 * use[i] for i in range(8)}
    for weight, expected in ((0.4, greedy), (0.6, int(np.argmin(use)))):
        strategy = evolution(make_problem(initial=8), small(diagonal_l2=(weight,)))
        vectors = strategy.ask(8)
        np.testing.assert_array_equal(np.array(vectors), np.array(initial))
        strategy.tell(
            [
                Outcome(index=i, vector=vector, quality=qualities[i], cost=0.5)
                for i, vector in enumerate(vectors)
            ]
        )
        np.testing.assert_array_equal(strategy.learner.centre, initial[expected])


def test_a_failed_candidate_is_no_start() -> None:
    strategy = evolution(make_problem(), small())
    vectors = generation(strategy, lambda v: 0.1 + float(v[0]), 0, failed=(0, 1, 3))
    np.testing.assert_array_equal(strategy.learner.centre, vectors[2])


def test_where_the_initial_batch_fails_another_one_is_drawn() -> None:
    strategy = evolution(make_problem(), small())
    generation(strategy, wavy, 0, failed=(0, 1, 2, 3))
    assert strategy.learner.centre is None
    vectors = generation(strategy, wavy, 4)
    expected = random_vectors(make_problem(), 4, 4)
    np.testing.assert_array_equal(np.array(vectors), np.array(expected))
    assert strategy.learner.centre is not None


@pytest.mark.parametrize("bounds", ["clip", "sigmoid"])
def test_the_pull_lowers_what_quality_does_not_need(bounds: str) -> None:
    strategy = evolution(make_problem(), small(directions=16, bounds=bounds, diagonal_l2=(0.01,)))
    index, others = 0, []
    for _ in range(30):
        vectors = generation(strategy, lambda _: 0.7, index)
        index += len(vectors)
        others.append(centre_of(strategy)[3:])
    assert (centre_of(strategy)[list(USE)] < 0.15).all()
    # The others are not pulled: they walk about the whole range, over twelve seeds with means
    # from 0.18 to 0.70.
    assert np.mean(others) > 0.15


@pytest.mark.parametrize("bounds", ["clip", "sigmoid"])
@pytest.mark.parametrize(("slope", "weight"), [(0.2, 0.4), (0.2, 0.125), (0.01, 0.02)])
def test_quality_and_pull_balance_where_calculus_says(
    bounds: str, slope: float, weight: float
) -> None:
    # The maximum of mean(slope * u) - weight * mean(u^2) over the uses is slope / (2 weight).
    settings = small(directions=16, diagonal_l2=(weight,), learning_rate=0.05, bounds=bounds)

    def quality(vector: FloatArray) -> float:
        return slope * float(vector[list(USE)].mean())

    strategy = evolution(make_problem(), settings)
    index, centres = 0, []
    for step in range(60):
        index += len(generation(strategy, quality, index))
        if step >= 30:
            centres.append(centre_of(strategy)[list(USE)])
    # Steps keep their length, so the centre walks about the optimum; over twelve seeds its mean
    # was at most 0.009 off.
    assert np.mean(centres) == pytest.approx(slope / (2 * weight), abs=0.03)


def test_a_greater_pull_sweeps_the_front_downwards() -> None:
    def saturating(vector: FloatArray) -> float:
        return float((1 - np.exp(-4 * vector[list(USE)])).mean())

    uses = []
    for weight in (0.0, 0.1, 0.5, 2.0):
        strategy = evolution(make_problem(), small(diagonal_l2=(weight,)))
        index, centres = 0, []
        for _ in range(40):
            index += len(generation(strategy, saturating, index))
            centres.append(centre_of(strategy)[list(USE)])
        uses.append(np.mean(centres[20:]))
    # By calculus, 4 exp(-4 u) = 2 weight u, and the upper bound without a pull. Over twelve seeds
    # the largest difference was 0.037.
    np.testing.assert_allclose(uses, [1.0, 0.8036, 0.5133, 0.3005], atol=0.05)


def test_the_scale_and_the_zero_of_quality_do_not_matter() -> None:
    centres = []
    for scale, shift in ((1.0, 0.0), (0.01, 5.0)):

        def quality(vector: FloatArray, scale: float = scale, shift: float = shift) -> float:
            return scale * wavy(vector) + shift

        strategy = evolution(make_problem(), small(diagonal_l2=(0.3 * scale,)))
        index = 0
        for _ in range(4):
            index += len(generation(strategy, quality, index))
        centres.append(centre_of(strategy))
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-8)


def test_clipping_reaches_the_corner_and_the_sigmoid_stays_inside() -> None:
    for bounds, highest in (("clip", 1.0), ("sigmoid", 0.98)):
        strategy = evolution(make_problem(), small(bounds=bounds, diagonal_l2=(0.0,)))
        index = 0
        for _ in range(40):
            vectors = np.array(generation(strategy, lambda v: float(v.sum()), index))
            index += len(vectors)
            assert vectors.min() >= 0.0
            assert vectors.max() <= 1.0
            if bounds == "sigmoid" and index > 4:
                assert vectors.min() > 0.0
                assert vectors.max() < 1.0
        assert centre_of(strategy).mean() == pytest.approx(highest, abs=0.05)
        assert centre_of(strategy).max() <= highest + 1e-12


def test_the_best_candidate_beats_random_search() -> None:
    optimum_D = np.linspace(0.2, 0.8, DIM)
    best: dict[str, list[float]] = {"random": [], "es": []}
    for seed in range(5):
        strategy = evolution(make_problem(seed), small(diagonal_l2=(0.0,)))
        index = 0
        found = []
        while index < 124:
            vectors = generation(strategy, lambda v: -float(((v - optimum_D) ** 2).sum()), index)
            index += len(vectors)
            found += [float(((v - optimum_D) ** 2).sum()) for v in vectors]
        best["es"].append(min(found))
        best["random"].append(
            min(
                float(((vector - optimum_D) ** 2).sum())
                for vector in random_vectors(make_problem(seed), 0, index)
            )
        )
    # Over twelve seeds the mean was 0.016 against 0.128, and no single one of ES (0.023 at most)
    # as bad as the best of random search (0.063).
    assert np.mean(best["es"]) < np.mean(best["random"]) / 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"directions": 0}, "directions must be at least 1, got 0"),
        ({"best": 0}, "best must be from 1 to directions = 4, or null, got 0"),
        ({"best": 5}, "best must be from 1 to directions = 4, or null, got 5"),
        ({"step_size": 0.0}, "step_size must be positive and finite, got 0.0"),
        ({"step_size": float("nan")}, "step_size must be positive and finite, got nan"),
        ({"learning_rate": -0.1}, "learning_rate must be positive and finite, got -0.1"),
        (
            {"diagonal_l2": (0.1, -0.1)},
            r"diagonal_l2 must .* each finite and not negative, got \[0.1",
        ),
        ({"diagonal_l2": ()}, r"diagonal_l2 must be one or more numbers, .* got \[\]"),
        ({"turn": 1}, "turn must be at least 2 where several weights .* got 1"),
        ({"turn": 0, "diagonal_l2": (0.1,)}, "turn must be at least 1 step, got 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"bounds": "wrap"}, "bounds must be one of clip, sigmoid, got 'wrap'"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvolutionSettings(**changes)


def test_a_pull_on_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="diagonal_l2 must be 0 in a space without use entries"):
        evolution(make_problem(use_dims=()), SETTINGS)
    strategy = evolution(make_problem(use_dims=()), small(diagonal_l2=(0.0,)))
    generation(strategy, wavy, 0)
    generation(strategy, wavy, 4)
    assert strategy.ask(10)


def test_momentum_is_a_heavy_ball() -> None:
    # The same directions and nearly flat rewards, so that the step of a place hardly depends on
    # momentum: what a second step moves further is the share of the first.
    def quality(vector: FloatArray) -> float:
        return float(vector @ np.arange(1.0, DIM + 1.0))

    def places(momentum: float) -> list[FloatArray]:
        settings = small(diagonal_l2=(0.0,), learning_rate=1e-3, step_size=1e-3, momentum=momentum)
        strategy, index, centres = evolution(make_problem(), settings), 0, []
        for _ in range(4):
            index += len(generation(strategy, quality, index))
            centres.append(centre_of(strategy))
        return centres

    plain, heavy = places(0.0), places(0.5)
    np.testing.assert_array_equal(plain[:2], heavy[:2])
    steps = np.diff(plain, axis=0)
    np.testing.assert_allclose(heavy[2], plain[2] + 0.5 * steps[0], atol=1e-12)
    np.testing.assert_allclose(heavy[3] - heavy[2], steps[2] + 0.5 * (heavy[2] - heavy[1]))


def test_weights_take_turns_from_the_best_known() -> None:
    weights, turn = (3.0, 0.1, 1.0), 2
    strategy = evolution(make_problem(), small(diagonal_l2=weights, turn=turn, momentum=0.5))
    known = list(generation(strategy, wavy, 0))
    for step in range(9):
        weight = weights[step // turn % 3]
        assert strategy.learner.weight == weight
        if step % turn == 0:
            reward = [wavy(v) - weight * float(np.square(v[list(USE)]).mean()) for v in known]
            np.testing.assert_array_equal(strategy.learner.centre, known[int(np.argmax(reward))])
        before = centre_of(strategy)
        known += generation(strategy, wavy, len(known))
        if (step + 1) % turn:
            assert np.abs(centre_of(strategy) - before).max() > 0.01


def test_one_search_of_several_weights_covers_the_front() -> None:
    def saturating(vector: FloatArray) -> float:
        return float((1 - np.exp(-4 * vector[list(USE)])).mean())

    weights = (2.0, 0.5, 0.1)
    strategy, index = evolution(make_problem(), small(diagonal_l2=weights)), 0
    uses: dict[float, list[float]] = {weight: [] for weight in weights}
    while index < 500:
        weight = strategy.learner.weight
        index += len(generation(strategy, saturating, index))
        if index > 250 and strategy.learner.weight == weight:
            uses[weight].append(float(centre_of(strategy)[list(USE)].mean()))
    # By calculus, 4 exp(-4 u) = 2 weight u, as for single weights. Over twelve seeds the largest
    # difference was 0.044.
    means = [np.mean(uses[weight]) for weight in weights]
    np.testing.assert_allclose(means, [0.3005, 0.5133, 0.8036], atol=0.08)
