"""Unit orders and block levels: brute force over small spaces, and properties."""

import math
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning.baselines import equal_use, independent, share_all, share_half
from partitioning.masks import ChannelGroup, Masks, VirtualNetwork
from partitioning.nested import NestedSpace, level_counts, unit_masks
from partitioning.sharing import SharingMatrixError, realised
from partitioning.solver_config import SolverConfig
from partitioning.space_config import SpaceConfig

TASKS = ("cats", "dogs", "birds")
FIRST = ChannelGroup(name="stage3.block0.hidden", width=12)
SECOND = ChannelGroup(name="stage3.block1.hidden", width=14)
STREAM = ChannelGroup(name="stage3.stream", width=9, kind="stream")
GROUPS = (FIRST, SECOND, STREAM)
CONFIGS = {
    "orders": SpaceConfig(kind="unit_order"),
    "orders_per_group": SpaceConfig(kind="unit_order", per_group=True, use=(0.0, 1.0)),
    "orders_in_levels": SpaceConfig(kind="unit_order", levels=(0.25, 0.6, 1.0), use=(0.3, 0.9)),
    "block_levels": SpaceConfig(kind="block_level", units=3, use=(0.0, 1.0)),
    "block_levels_in_levels": SpaceConfig(kind="block_level", levels=(0.5, 1.0)),
}
SPACES_AND_VECTORS = st.sampled_from(sorted(CONFIGS)).flatmap(
    lambda name: st.tuples(
        st.just(name), arrays(float, make_space(CONFIGS[name]).dim, elements=st.floats(0, 1))
    )
)


def make_space(config, *, tasks=TASKS, groups=GROUPS):
    return NestedSpace(tasks=tasks, groups=groups, config=config, solver=SolverConfig())


def units_of(masks_RC, num_units):
    """Which units (R, U) masks use; whole units only."""
    unit_C = np.array(
        [math.floor(c * num_units / masks_RC.shape[1]) for c in range(len(masks_RC.T))]
    )
    parts = [masks_RC[:, unit_C == unit] for unit in range(num_units)]
    assert all((part.all(axis=1) == part.any(axis=1)).all() for part in parts)
    assert max(part.shape[1] for part in parts) - min(part.shape[1] for part in parts) <= 1
    return np.stack([part.all(axis=1) for part in parts], axis=1)


@settings(max_examples=150, deadline=None)
@given(SPACES_AND_VECTORS)
def test_what_is_decoded_is_what_the_entries_say(drawn):
    name, vector = drawn
    config = CONFIGS[name]
    space = make_space(config)
    entries = dict(zip(space.names(), vector, strict=True))
    masks = space.decode(vector).masks
    per_group = config.per_group or config.kind == "block_level"
    allowed = [
        n for n in range(config.units + 1)
        if config.use[0] <= n / config.units <= config.use[1]
    ]  # fmt: skip
    for group in GROUPS:
        prefix = f"{group.name}/" if per_group else ""
        used_RU = units_of(masks.forward[group.name], config.units)
        for task in TASKS:
            share = entries[f"{prefix}use[{task}]"]
            count = allowed[min(int(share * len(allowed)), len(allowed) - 1)]
            if group.kind == "stream":
                count = max(1, count)
            order = list(range(config.units))
            if config.kind == "unit_order":
                order.sort(key=lambda u: -entries[f"{prefix}priority[{task},unit{u}]"])
            for level, of_count in enumerate(config.levels):
                least = min(1, count)
                wanted = max(least, math.floor(of_count * count + 0.5))
                got = used_RU[masks.row(task, level)]
                assert set(np.flatnonzero(got)) == set(order[:wanted])


@settings(max_examples=100, deadline=None)
@given(SPACES_AND_VECTORS)
def test_higher_levels_have_all_of_the_lower_ones(drawn):
    name, vector = drawn
    masks = make_space(CONFIGS[name]).decode(vector).masks
    levels = range(len(CONFIGS[name].levels))
    assert masks.networks == tuple(
        VirtualNetwork(task=task, level=level) for task in TASKS for level in levels
    )
    for group, task, (low, high) in product(GROUPS, TASKS, pairwise(levels)):
        rows_RC = masks.forward[group.name]
        assert not (rows_RC[masks.row(task, low)] & ~rows_RC[masks.row(task, high)]).any()


@settings(max_examples=100, deadline=None)
@given(SPACES_AND_VECTORS)
def test_the_realisable_vector_means_the_same_and_stays(drawn):
    name, vector = drawn
    space = make_space(CONFIGS[name])
    decoded = space.decode(vector)
    again = space.decode(decoded.realisable)
    assert again.masks == decoded.masks
    assert np.array_equal(again.realisable, decoded.realisable)


@settings(max_examples=100, deadline=None)
@given(SPACES_AND_VECTORS, st.data())
def test_an_entry_moves_its_own_task_alone_and_use_upwards(drawn, data):
    name, vector = drawn
    space = make_space(CONFIGS[name])
    position = data.draw(st.integers(0, space.dim - 1))
    moved = vector.copy()
    moved[position] = data.draw(st.floats(vector[position], 1))
    before, after = space.decode(vector).masks, space.decode(moved).masks
    for row, network in enumerate(before.networks):
        if TASKS.index(network.task) not in space.concerns[position]:
            for group in GROUPS:
                assert np.array_equal(
                    before.forward[group.name][row], after.forward[group.name][row]
                )
    if position in space.use_dims:
        for group in GROUPS:
            assert not (before.forward[group.name] & ~after.forward[group.name]).any()
    else:
        assert np.array_equal(before.use() > 0, after.use() > 0)


def test_an_entry_of_a_group_moves_that_group_alone():
    space = make_space(CONFIGS["block_levels"])
    vector = np.full(space.dim, 0.5)
    base = space.decode(vector).masks
    vector[space.names().index(f"{SECOND.name}/use[dogs]")] = 1.0
    moved = space.decode(vector).masks
    for group in GROUPS:
        same = np.array_equal(base.forward[group.name], moved.forward[group.name])
        assert same == (group != SECOND)


def reachable(space, steps):
    grid = np.linspace(0, 1, steps)
    return {space.decode(vector).masks for vector in product(grid, repeat=space.dim)}


@pytest.mark.parametrize("levels", [(1.0,), (1 / 3, 2 / 3, 1.0)])
def test_every_order_of_units_is_reached_and_nothing_else(levels):
    config = SpaceConfig(kind="unit_order", units=3, levels=levels)
    group = ChannelGroup(name="group", width=3)
    found = reachable(make_space(config, tasks=("cats",), groups=(group,)), 4)
    expected = set()
    for order, count in product(permutations(range(3)), (1, 2, 3)):
        counts = [max(1, round(level * count)) for level in levels]
        rows_RC = np.array([[c in order[:n] for c in range(3)] for n in counts])
        networks = tuple(VirtualNetwork(task="cats", level=level) for level in range(len(levels)))
        expected.add(Masks(networks=networks, groups=(group,), forward={"group": rows_RC}))
    # One level has a set of units, as many levels as units have the order, too.
    assert found == expected
    assert len(found) == (7 if len(levels) == 1 else 3 + 6 + 6)


def test_every_choice_of_block_levels_is_reached_and_nothing_else():
    config = SpaceConfig(kind="block_level", units=2, use=(0.0, 1.0))
    groups = (ChannelGroup(name="a", width=2), ChannelGroup(name="b", width=5))
    found = reachable(make_space(config, tasks=("cats", "dogs"), groups=groups), 4)
    expected = set()
    for levels in product(range(3), repeat=4):
        counts = np.array(levels).reshape(2, 2)
        forward = {
            "a": np.arange(2) < np.array([0, 1, 2])[counts[0]][:, None],
            "b": np.arange(5) < np.array([0, 3, 5])[counts[1]][:, None],
        }
        networks = (VirtualNetwork(task="cats"), VirtualNetwork(task="dogs"))
        expected.add(Masks(networks=networks, groups=groups, forward=forward))
    assert found == expected
    assert len(found) == 81


def test_uses_are_evenly_split():
    config = SpaceConfig(kind="block_level", units=4, use=(0.25, 0.75))
    space = make_space(config, tasks=("cats",), groups=(FIRST,))
    uses = [space.decode([use]).masks.mean_use() for use in np.arange(30) / 30]
    assert uses == [0.25] * 10 + [0.5] * 10 + [0.75] * 10
    assert space.decode([1.0]).masks.mean_use() == 0.75


def test_the_orders_of_deep_virtual_networks():
    """Kim et al. 2019, eq. 3: three units, tasks and levels."""
    config = SpaceConfig(kind="unit_order", units=3, use=(1.0, 1.0), levels=(1 / 3, 2 / 3, 1.0))
    space = make_space(config, groups=(FIRST,))
    priority = {0: [1.0, 0.5, 0.0], 1: [0.5, 1.0, 0.0], 2: [0.0, 0.5, 1.0]}
    vector = [0.3, 0.0, 0.9, *priority[0], *priority[1], *priority[2]]
    masks = space.decode(vector).masks
    used_RU = units_of(masks.forward[FIRST.name], 3)
    orders = {0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 1, 0)}
    for task, level in product(range(3), range(3)):
        units = np.flatnonzero(used_RU[masks.row(TASKS[task], level)])
        assert set(units) == set(orders[task][: level + 1])


def test_equal_priorities_take_the_lower_unit_first():
    space = make_space(SpaceConfig(kind="unit_order", use=(0.5, 0.5)))
    masks = space.decode(np.full(space.dim, 0.5)).masks
    assert units_of(masks.forward[FIRST.name], 4).tolist() == [[True, True, False, False]] * 3


def test_names():
    space = make_space(SpaceConfig(kind="unit_order", units=2), tasks=("cats", "dogs"))
    entries = ["use[cats]", "use[dogs]"]
    entries += [f"priority[{task},unit{unit}]" for task in ("cats", "dogs") for unit in (0, 1)]
    assert space.names() == entries
    assert space.concerns == ((0,), (1,), (0,), (0,), (1,), (1,))
    space = make_space(SpaceConfig(kind="unit_order", units=2, per_group=True))
    assert len(space.names()) == 3 * 9
    assert space.use_dims == (0, 1, 2, 9, 10, 11, 18, 19, 20)
    space = make_space(CONFIGS["block_levels"], tasks=("cats", "dogs"))
    assert space.names() == [f"{g.name}/use[{task}]" for g in GROUPS for task in ("cats", "dogs")]
    assert space.use_dims == tuple(range(6))


def test_a_residual_stream_keeps_a_unit():
    space = make_space(CONFIGS["block_levels"])
    masks = space.decode(np.zeros(space.dim)).masks
    assert masks.forward[FIRST.name].sum() == masks.forward[SECOND.name].sum() == 0
    assert masks.forward[STREAM.name].sum(axis=1).tolist() == [3, 3, 3]


@pytest.mark.parametrize("kind", ["unit_order", "block_level"])
@pytest.mark.parametrize("levels", [(1.0,), (0.5, 1.0)])
def test_what_comes_in_whole_units_is_encoded_and_decoded_exactly(kind, levels):
    groups = (ChannelGroup(name="a", width=6), ChannelGroup(name="b", width=12))
    space = make_space(SpaceConfig(kind=kind, units=6, levels=levels), groups=groups)
    for P in (share_all(3), equal_use(3, 0.5), np.minimum.outer([1, 2, 6], [1, 2, 6]) / 6):
        masks = space.decode(space.encode(P)).masks
        highest = [masks.row(task, len(levels) - 1) for task in TASKS]
        for group in groups:
            assert np.array_equal(realised(masks.forward[group.name][highest]), P)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, (3, 4), elements=st.booleans()))
def test_every_sharing_of_units_is_encoded(units_TU):
    space = make_space(SpaceConfig(kind="unit_order", use=(0.0, 1.0)), groups=(FIRST,))
    P = realised(units_TU)
    encoded = space.encode(P)
    decoded = space.decode(encoded)
    assert np.array_equal(decoded.masks.realised(FIRST.name), P)
    assert np.array_equal(decoded.realisable, encoded)


@pytest.mark.parametrize("share", [independent, share_half])
def test_baselines_of_whole_units_are_encoded_where_orders_are_free(share):
    space = make_space(SpaceConfig(kind="unit_order", units=6), groups=(FIRST,))
    masks = space.decode(space.encode(share(3))).masks
    assert np.allclose(masks.realised(FIRST.name), share(3))
    with pytest.raises(SharingMatrixError, match="no first units of a fixed order share as P asks"):
        make_space(SpaceConfig(kind="block_level", units=6), groups=(FIRST,)).encode(share(3))


@pytest.mark.parametrize(
    ("P", "changes", "message"),
    [
        (equal_use(3, 0.3), {}, r"P\[cats, cats\] must be a whole number of 4 units, got 0\.3"),
        (share_all(3), {"use": (0.2, 0.6)}, r"use\[cats\] must lie within space\.use .*got 1;"),
        (equal_use(3, 0.25), {"use": (0.5, 1.0)}, r"use\[cats\] .*got 0\.25; widen space\.use"),
        (0.5 * np.eye(3), {}, "no units of the tasks share as P asks"),
        (share_all(2), {}, r"\(3, 3\) for the tasks"),
    ],
)
def test_what_cannot_be_reached_is_refused(P, changes, message):
    with pytest.raises(SharingMatrixError, match=message):
        make_space(SpaceConfig(kind="unit_order", **changes)).encode(P)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "tasks must be at least one"),
        ({"tasks": ("cats", "cats")}, "tasks must .* differ"),
        ({"groups": ()}, "groups must be at least one"),
        (
            {"groups": (FIRST, ChannelGroup(name="b", width=3))},
            r"space\.units .*got 4 for b with 3",
        ),
    ],
)
def test_wrong_tasks_and_groups_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_space(SpaceConfig(kind="unit_order"), **changes)


def test_shares_that_are_nearly_whole_are_whole():
    assert level_counts(np.array([3]), (0.3333, 0.6667, 1.0)).tolist() == [[1, 2, 3]]
    assert level_counts(np.array([1, 3]), (0.5, 1.0)).tolist() == [[1, 1], [2, 3]]
    assert SpaceConfig(kind="block_level", units=3, use=(1 / 3, 2 / 3)).unit_range == (1, 2)
    assert SpaceConfig(kind="block_level", units=10, use=(0.3, 0.7)).unit_range == (3, 7)


def test_units_of_unequal_width_differ_by_one_channel():
    masks_RC = unit_masks(np.array([[0, 1, 2, 3]]), np.array([[1, 2, 3, 4]]), 10)
    assert masks_RC.sum(axis=1).tolist() == [3, 5, 8, 10]
