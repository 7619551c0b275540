"""Masks of the papers on virtual networks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partitioning import ChannelGroup, neighbours_first, split_units, virtual_masks

GROUPS = (ChannelGroup(name="a", width=8), ChannelGroup(name="b", width=12, kind="stream"))


def test_the_order_of_three_tasks_is_the_papers() -> None:
    """Kim et al. 2019, eq. 3."""
    assert (neighbours_first(3) + 1).tolist() == [[1, 2, 3], [2, 1, 3], [3, 2, 1]]


@given(st.integers(1, 9))
def test_an_order_begins_with_the_task_and_has_every_unit(num_tasks: int) -> None:
    order = neighbours_first(num_tasks)
    assert order[:, 0].tolist() == list(range(num_tasks))
    assert (np.sort(order, axis=1) == np.arange(num_tasks)).all()
    if num_tasks > 1:  # a neighbour comes next
        assert (np.abs(order[:, 1] - order[:, 0]) == 1).all()


@given(st.integers(1, 6).flatmap(lambda units: st.tuples(
    st.lists(st.floats(0.05, 1), min_size=units, max_size=units), st.integers(units, 40),
)))  # fmt: skip
def test_units_are_runs_of_about_their_share(drawn: tuple[list[float], int]) -> None:
    weights, width = drawn
    shares = np.array(weights) / sum(weights)
    unit_C = split_units(width, shares.tolist())
    assert (np.diff(unit_C) >= 0).all()
    counts = np.bincount(unit_C, minlength=len(shares))
    assert counts.min() >= 1
    if (shares * width >= 1.5).all():
        assert np.abs(counts - shares * width).max() <= 1


def test_levels_are_nested_and_shares_unequal() -> None:
    masks = virtual_masks(["x", "y", "z"], GROUPS, [[1, 2, 3]] * 3, shares=(0.5, 0.25, 0.25))
    used = masks.forward["a"].reshape(3, 3, 8)
    assert used.sum(axis=2).tolist() == [[4, 6, 8], [2, 6, 8], [2, 4, 8]]
    assert (used[:, :-1] <= used[:, 1:]).all()
    assert masks.forward["b"].sum(axis=1).tolist() == [6, 9, 12, 3, 9, 12, 3, 6, 12]


@pytest.mark.parametrize(
    ("counts", "changed", "message"),
    [
        ([[1, 2]], {}, "must be"),
        ([[-1, 2], [1, 2]], {}, "levels must use 0 to 2 units"),
        ([[2, 1], [1, 2]], {}, "levels must use 0 to 2 units, ascending"),
        ([[1, 3], [1, 2]], {}, "levels must use 0 to 2 units"),
        ([[1, 2]] * 2, {"order_TU": np.array([[0, 0], [1, 0]])}, "an order must have each unit"),
        ([[1, 2]] * 2, {"shares": (1.0,)}, "shares must be given for 2 units"),
        ([[1, 2]] * 2, {"shares": (0.7, 0.7)}, "group a: shares of units"),
    ],
)
def test_wrong_masks(counts: list[list[int]], changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        virtual_masks(["x", "y"], GROUPS, counts, **changed)  # type: ignore[arg-type]


def test_a_group_needs_a_channel_for_each_unit() -> None:
    small = (ChannelGroup(name="small", width=2),)
    with pytest.raises(ValueError, match="group small: a group needs a channel for each of 3"):
        virtual_masks(["x", "y", "z"], small, [[1, 2, 3]] * 3)
