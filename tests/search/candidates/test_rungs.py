"""Who goes on to the next rung, against the definition and by hand; recorded curves replayed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.candidates import Rung, crowding, hypervolume, promoted
from search.candidates.pareto import ranks
from search.candidates.rungs import replay

NAN, INF = float("nan"), float("inf")
# A coarse grid makes ties and duplicates common.
coordinates = st.integers(0, 6).map(lambda tenths: tenths / 10)
wild = st.one_of(coordinates, st.sampled_from([NAN, INF, -INF]))
points = st.lists(st.tuples(coordinates, coordinates), max_size=14)
wild_points = st.lists(st.tuples(wild, wild), max_size=14)
keeps = st.sampled_from([0.05, 0.2, 0.25, 1 / 3, 0.5, 0.7, 1.0])

Points = list[tuple[float, float]]


def split(pairs: Points) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


def peeled(pairs: Points) -> list[int]:
    """Ranks by taking one front after the other away."""
    found = [len(pairs)] * len(pairs)
    left = [i for i, pair in enumerate(pairs) if not any(map(math.isnan, pair))]
    for rank in range(len(pairs)):
        front = [i for i in left if not any(dominates(pairs[j], pairs[i]) for j in left)]
        for i in front:
            found[i] = rank
        left = [i for i in left if i not in front]
    return found


def room(pairs: Points) -> list[float]:
    """Crowding distances by looking for every member's neighbours."""
    found = []
    for i, pair in enumerate(pairs):
        total = 0.0
        for side in (0, 1):
            values = [p[side] for p in dict.fromkeys(pairs)]
            below = [v for v in values if v < pair[side]]
            above = [v for v in values if v > pair[side]]
            if not below or not above:
                total = INF
            else:
                total += (min(above) - max(below)) / (max(values) - min(values))
        found.append(0.0 if pair in pairs[:i] else total)
    return found


@given(pairs=wild_points)
def test_ranks_against_the_definition(pairs: Points) -> None:
    assert ranks(*split(pairs)).tolist() == peeled(pairs)


@given(pairs=points)
def test_crowding_against_the_definition(pairs: Points) -> None:
    front = [pair for pair, rank in zip(pairs, peeled(pairs), strict=True) if rank == 0]
    assert crowding(*split(front)) == pytest.approx(room(front))


def test_crowding_by_hand() -> None:
    quality, cost = [0.0, 0.2, 0.6, 1.0], [0.0, 0.3, 0.9, 1.0]
    assert crowding(quality, cost) == pytest.approx([INF, 0.6 + 0.9, 0.8 + 0.7, INF])
    assert crowding([], []).shape == (0,)
    assert crowding([0.5], [0.5]).tolist() == [INF]
    with pytest.raises(ValueError, match="must be finite"):
        crowding([NAN], [0.5])


@given(pairs=wild_points, keep=keeps, before=points)
def test_who_goes_on(pairs: Points, keep: float, before: Points) -> None:
    going = promoted(*split(pairs), keep, before)
    alive = [all(map(math.isfinite, pair)) for pair in pairs]
    assert going.sum() == min(math.ceil(round(keep * len(pairs), 9)), sum(alive))
    assert not any(g and not a for g, a in zip(going, alive, strict=True))


@given(pairs=points.filter(bool), before=points)
def test_the_first_to_go_on_adds_most(pairs: Points, before: Points) -> None:
    (first,) = np.flatnonzero(promoted(*split(pairs), 0.01, before))
    worst, best = np.min([*pairs, *before], axis=0), np.max([*pairs, *before], axis=0)
    width = np.where(best > worst, best - worst, 1)

    def volume(those: Points) -> float:
        quality, cost = ((np.array(those).reshape(-1, 2) - worst) / width).T
        return hypervolume(quality, cost, (-0.1, 1.1))

    gains = [volume([*before, pair]) - volume(before) for pair in pairs]
    if max(gains) < 1e-9:  # nobody adds anything to those before: among themselves
        gains = [volume([pair]) for pair in pairs]
    assert gains[first] == pytest.approx(max(gains))


def test_brackets_together_spread_along_the_front() -> None:
    """Of the same candidates twice, others go on the second time."""
    cost = np.linspace(0, 1, 9)
    quality = np.sqrt(cost)
    first = promoted(quality, cost, 0.2)
    gone = list(zip(quality[first], cost[first], strict=True))
    second = promoted(quality, cost, 0.2, gone)
    assert np.flatnonzero(first).tolist() == [1, 3]
    assert np.flatnonzero(second).tolist() == [4, 6]


@pytest.mark.parametrize(
    ("pairs", "keep", "expected"),
    [
        ([], 0.5, []),
        ([(0.5, 0.5)], 0.01, [True]),  # at least one
        ([(0.5, 0.5), (0.4, 0.6), (0.3, 0.7)], 1.0, [True, True, True]),
        ([(0.5, 0.5), (0.4, 0.6), (0.3, 0.7)], 0.5, [True, True, False]),  # rounded up
        # Of equal ones the first, and a copy adds nothing while another does.
        ([(0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (0.4, 0.6)], 0.25, [True, False, False, False]),
        ([(0.2, 0.2), (0.2, 0.2), (0.5, 0.5), (0.8, 0.8)], 0.75, [True, False, True, True]),
        ([(NAN, 0.1), (0.5, NAN), (0.4, 0.6), (INF, 0.1)], 0.75, [False, False, True, False]),
        ([(NAN, 0.1), (NAN, 0.1)], 1.0, [False, False]),
    ],
)
def test_who_goes_on_by_hand(pairs: Points, keep: float, expected: list[bool]) -> None:
    assert promoted(*split(pairs), keep).tolist() == expected


def test_the_share_is_not_rounded_up_by_an_ulp() -> None:
    quality = np.arange(100) / 100
    assert promoted(quality, 1 - quality, 0.07).sum() == 7


def test_replay_by_hand() -> None:
    # Two brackets, of 4 and 2; keeps 1/2 and 1/2. Costs are equal, so quality alone decides.
    scores = [
        [0.1, 0.2, 0.3],
        [0.4, 0.5, 0.6],
        [0.3, 0.6, 0.7],
        [0.2, 0.9, 0.9],  # would be the best, but is stopped at the first rung
        [0.8, NAN, 0.9],  # fails at the second
        [0.7, 0.7, 0.1],
    ]
    halved = replay(scores, [0.5] * 6, [10, 20, 70], [0.5, 0.5], bracket=4)
    assert halved.reached_N.tolist() == [0, 1, 2, 0, 1, 0]
    assert halved.final_N.tolist() == [False, False, True, False, False, False]
    assert halved.compute == pytest.approx((6 * 10 + 3 * 20 + 1 * 70) / (6 * 70))
    assert halved.hypervolume == pytest.approx(0.7 / 0.9)


@given(pairs=points.filter(bool), size=st.integers(1, 20))
def test_keeping_all_loses_nothing(pairs: Points, size: int) -> None:
    quality, cost = split(pairs)
    halved = replay(np.stack([1 - quality, quality], 1), cost, [1, 3], [1.0], bracket=size)
    assert halved.final_N.all()
    assert halved.compute == pytest.approx(4 / 3)
    if hypervolume(quality, cost):
        assert halved.hypervolume == pytest.approx(1.0)
    else:
        assert math.isnan(halved.hypervolume)


def test_compute_of_whole_brackets_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    steps, keeps = (1, 3, 9), (0.5, 0.25)
    halved = replay(rng.random((64, 3)), rng.random(64), steps, keeps, bracket=16)
    assert halved.compute == pytest.approx((1 + 0.5 * 3 + 0.5 * 0.25 * 9) / 9)


@pytest.mark.parametrize(
    ("scores", "keeps", "bracket", "message"),
    [
        ([[1.0, 2.0]], [0.5, 0.5], 2, r"R - 1 keeps, got \(1, 2\), 1, 2 and 2"),
        ([[1.0]], [0.5], 2, r"shape \(N, R\)"),
        ([[1.0, 2.0]], [0.5], 0, "bracket must be at least 1, got 0"),
    ],
)
def test_curves_that_do_not_fit(
    scores: list[list[float]], keeps: list[float], bracket: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replay(scores, [0.5], [1, 2], keeps, bracket=bracket)


def test_rungs_refuse_what_cannot_be() -> None:
    for settings, message in (
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 5, "keep": 0.0}, "keep must be above 0 and at most 1, got 0.0"),
        ({"steps": 5, "keep": NAN}, "keep must be above 0"),
        ({"steps": 5, "fidelity": "half"}, "fidelity must be one of proxy, full, got 'half'"),
    ):
        with pytest.raises(ValueError, match=message):
            Rung(**settings)  # type: ignore[arg-type]
