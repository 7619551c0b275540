import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.candidates import REFERENCE, hypervolume, knee, non_dominated

NAN, INF = float("nan"), float("inf")
# A coarse grid makes ties and duplicates common.
coordinates = st.integers(-2, 12).map(lambda tenths: tenths / 10)
points = st.lists(st.tuples(coordinates, coordinates), max_size=12)
wild = st.one_of(coordinates, st.sampled_from([NAN, INF, -INF]))
wild_points = st.lists(st.tuples(wild, wild), max_size=8)


def split(pairs: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


@given(pairs=wild_points)
def test_front_against_the_definition(pairs: list[tuple[float, float]]) -> None:
    expected = [
        not any(map(math.isnan, b)) and not any(dominates(a, b) for a in pairs) for b in pairs
    ]
    assert non_dominated(*split(pairs)).tolist() == expected


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], []),
        ([(0.5, 0.5)], [True]),
        ([(NAN, 0.1)], [False]),
        ([(0.5, 0.5), (0.5, 0.5), (0.4, 0.6)], [True, True, False]),
        ([(0.5, 0.5), (0.5, 0.4)], [False, True]),
        ([(0.5, 0.5), (0.6, 0.5)], [False, True]),
        ([(0.5, 0.5), (NAN, 0.0), (1.0, NAN)], [True, False, False]),
        ([(0.9, 1.0), (0.8, 0.5), (0.85, 0.7)], [True, True, True]),
        ([(INF, 1.0), (0.5, 0.5), (0.4, -INF)], [True, True, True]),
        ([(-INF, 0.6), (0.5, 0.5)], [False, True]),
    ],
)
def test_fronts(pairs: list[tuple[float, float]], expected: list[bool]) -> None:
    front = non_dominated(*split(pairs))
    assert front.dtype == np.bool_
    assert front.tolist() == expected


@pytest.mark.parametrize(
    ("pairs", "reference", "expected"),
    [
        ([], REFERENCE, 0.0),
        ([(1.0, 0.1)], REFERENCE, 0.9),
        ([(1.0, 0.0)], REFERENCE, 1.0),
        ([(0.8, 0.6)], REFERENCE, 0.8 * 0.4),
        ([(0.8, 0.6), (0.8, 0.6)], REFERENCE, 0.8 * 0.4),
        # Two rectangles less where they overlap.
        ([(0.8, 0.6), (0.4, 0.1)], REFERENCE, 0.8 * 0.4 + 0.4 * 0.9 - 0.4 * 0.4),
        ([(0.8, 0.6), (0.4, 0.1), (0.3, 0.7)], REFERENCE, 0.52),
        # Another reference moves both sides, and the ideal with it.
        ([(0.8, 0.6)], (0.5, 0.7), 0.3 * 0.1 / (0.5 * 0.7)),
        ([(1.0, 0.0)], (0.5, 0.7), 1.0),
        ([(-0.1, 0.6)], REFERENCE, 0.0),
        ([(0.8, 1.2)], REFERENCE, 0.0),
        ([(0.8, 1.0)], REFERENCE, 0.0),
        ([(0.0, 0.5)], REFERENCE, 0.0),
        ([(0.8, 0.6), (-0.5, 0.1), (0.9, 1.5)], REFERENCE, 0.32),
        ([(0.8, -0.9)], REFERENCE, 0.8 * 1.9),
        ([(NAN, 0.5), (0.5, NAN)], REFERENCE, 0.0),
        ([(NAN, 0.5), (0.8, 0.6)], REFERENCE, 0.32),
        ([(INF, 0.5)], REFERENCE, INF),
        ([(0.5, -INF)], REFERENCE, INF),
        ([(-INF, 0.5), (0.5, INF), (0.8, 0.6)], REFERENCE, 0.32),
        ([(INF, INF)], REFERENCE, 0.0),
        ([(INF, 1.1)], REFERENCE, 0.0),
    ],
)
def test_hypervolume_of_rectangles(
    pairs: list[tuple[float, float]], reference: tuple[float, float], expected: float
) -> None:
    assert hypervolume(*split(pairs), reference) == pytest.approx(expected, abs=1e-12)


def test_the_default_reference() -> None:
    assert REFERENCE == (0.0, 1.0)
    assert hypervolume([1.0], [0.9]) == pytest.approx(0.1)


@given(pairs=points)
def test_hypervolume_against_counted_cells(pairs: list[tuple[float, float]]) -> None:
    # Coordinates lie on a grid of tenths: the area is the number of dominated cells, each of
    # which is dominated if its middle is.
    quality, cost = split(pairs)
    middle_quality = (np.arange(12) + 0.5) / 10
    middle_cost = -0.2 + (np.arange(12) + 0.5) / 10
    cells = np.zeros((12, 12), dtype=bool)
    for q, c in zip(quality, cost, strict=True):
        cells |= (middle_quality[:, None] < q) & (middle_cost[None, :] > c)
    assert hypervolume(quality, cost) == pytest.approx(cells.sum() / 100, abs=1e-9)


@settings(max_examples=30)
@given(pairs=points, new=st.tuples(coordinates, coordinates))
def test_hypervolume_grows_only_with_new_ground(
    pairs: list[tuple[float, float]], new: tuple[float, float]
) -> None:
    before, after = hypervolume(*split(pairs)), hypervolume(*split([*pairs, new]))
    if any(dominates(old, new) or old == new for old in pairs):
        assert after == pytest.approx(before)
    else:
        inside = new[0] > REFERENCE[0] and new[1] < REFERENCE[1]
        assert (after > before + 1e-9) == inside


def test_hypervolume_of_many_points_on_a_line() -> None:
    cost = np.linspace(0.0, 1.0, 1001)
    # Below the front quality = cost over [0, 1].
    assert hypervolume(cost, cost) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0.5, 0.5)], 0),
        # Two members lie on their own chord: the better one.
        ([(0.5, 0.2), (0.9, 0.8)], 1),
        ([(0.9, 0.8), (0.5, 0.2)], 0),
        # A right angle.
        ([(0.0, 0.0), (0.9, 0.1), (1.0, 1.0)], 1),
        # Scales differ by far: still the corner.
        ([(0.001, 100.0), (0.0019, 101.0), (0.002, 900.0)], 1),
        # Nothing above the chord: the better end.
        ([(0.1, 0.0), (0.2, 0.9), (1.0, 1.0)], 2),
        # A straight front, whose heights are rounding errors.
        ([(0.1, 0.3), (0.2, 0.6), (0.3, 0.9), (0.7, 2.1)], 3),
        # Two equal bends: the better one.
        ([(0.0, 0.0), (0.5, 0.25), (0.75, 0.5), (1.0, 1.0)], 2),
        # Dominated candidates do not move the ends.
        ([(0.0, 5.0), (0.4, 0.1), (0.8, 0.3), (0.9, 0.9), (0.1, 0.1)], 2),
        # The first of equals.
        ([(0.0, 0.0), (0.9, 0.1), (0.9, 0.1), (1.0, 1.0)], 1),
        ([(0.5, 0.5), (0.5, 0.5)], 0),
        ([(NAN, 0.0), (INF, 0.2), (0.5, -INF), (0.4, 0.4)], 3),
    ],
)
def test_knees(pairs: list[tuple[float, float]], expected: int) -> None:
    assert knee(*split(pairs)) == expected


def test_the_knee_of_a_quarter_circle_is_at_45_degrees() -> None:
    angle = np.linspace(0.0, np.pi / 2, 91)
    quality, cost = np.sin(angle), 1.0 - np.cos(angle)
    assert knee(quality, cost) == 45
    shuffled = np.random.default_rng(0).permutation(91)
    assert shuffled[knee(quality[shuffled], cost[shuffled])] == 45


@given(pairs=wild_points)
def test_a_knee_is_on_the_front(pairs: list[tuple[float, float]]) -> None:
    finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if not finite:
        with pytest.raises(ValueError, match="at least one candidate with finite scores"):
            knee(*split(pairs))
        return
    chosen = knee(*split(pairs))
    assert pairs[chosen] in finite
    assert not any(dominates(other, pairs[chosen]) for other in finite)
    assert pairs.index(pairs[chosen]) == chosen


def test_wrong_shapes_and_references_are_refused() -> None:
    for function in (non_dominated, hypervolume, knee):
        with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(2,\) and \(1,\)"):
            function([0.1, 0.2], [0.1])
        with pytest.raises(ValueError, match=r"must both have shape \(N,\), got \(\) and \(\)"):
            function(0.1, 0.2)
        with pytest.raises(ValueError, match=r"got \(1, 1\)"):
            function([[0.1]], [[0.2]])
    for reference in ((NAN, 1.0), (0.0, INF), (1.0, 1.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match="must have a quality below 1 and a cost above 0"):
            hypervolume([0.1], [0.2], reference)


def test_arguments_are_not_modified() -> None:
    quality, cost = np.array([0.5, NAN, 0.7]), np.array([0.1, 0.2, 0.3])
    for array in (quality, cost):
        array.setflags(write=False)
    assert non_dominated(quality, cost).tolist() == [True, False, True]
    assert hypervolume(quality, cost) > 0.0
    assert knee(quality, cost) == 2
