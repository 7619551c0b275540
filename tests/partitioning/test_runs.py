"""`space.multiple_of`: masks in runs of channels, solved for and proven in runs."""

from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning.baselines import share_all
from partitioning.masks import ChannelGroup
from partitioning.sharing import round_to_channels
from partitioning.solver_config import SolverConfig
from partitioning.space import SPACES, SpaceConfig

TASKS = ("cats", "dogs", "birds")
#: 64 channels are 8 runs of 8, 20 are two runs and one of 4, and 5 are less than one.
HIDDEN = ChannelGroup(name="stage3.0.conv1", width=64)
UNEVEN = ChannelGroup(name="stage3.1.conv1", width=20)
NARROW = ChannelGroup(name="stem.conv1", width=5)
PAIRS = ChannelGroup(name="grouped", width=16, channels=2)
HEADS = ChannelGroup(name="blocks.0.attn", width=6, kind="heads", channels=64)
STREAM = ChannelGroup(name="stage3", width=36, kind="stream")
GROUPS = (HIDDEN, UNEVEN, NARROW, PAIRS, HEADS, STREAM)
#: Of each group, how many units each run has, in runs of 8 channels.
RUNS = {
    HIDDEN.name: [8] * 8, UNEVEN.name: [8, 8, 4], NARROW.name: [5], PAIRS.name: [4] * 4,
    HEADS.name: [1] * 6, STREAM.name: [8, 8, 8, 8, 4],
}  # fmt: skip
CONFIGS = {
    "sharing": SpaceConfig(multiple_of=8),
    "per_group": SpaceConfig(multiple_of=8, per_group=True),
    "backward": SpaceConfig(multiple_of=8, backward=True),
    "unit_order": SpaceConfig(multiple_of=8, kind="unit_order", units=3),
    "in_levels": SpaceConfig(multiple_of=8, kind="unit_order", units=3, levels=(0.5, 1.0)),
    "block_level": SpaceConfig(multiple_of=8, kind="block_level", units=2),
}


def make_space(config, groups):
    return SPACES[config.kind](tasks=TASKS, groups=groups, config=config, solver=SolverConfig())


def groups_of(config):
    """Groups with runs enough for the units of a nested space."""
    least = 1 if config.kind == "sharing" else config.units
    return tuple(group for group in GROUPS if len(RUNS[group.name]) >= least)


def in_runs(group, masks_RC):
    """(R, runs): which runs masks have; whole runs only."""
    ends = np.cumsum(RUNS[group.name])
    assert ends[-1] == group.width == masks_RC.shape[1]
    parts = np.split(masks_RC, ends[:-1], axis=1)
    assert all((part.all(axis=1) == part.any(axis=1)).all() for part in parts)
    return np.stack([part.all(axis=1) for part in parts], axis=1)


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_masks_come_in_whole_runs(name, data):
    config = CONFIGS[name]
    groups = groups_of(config)
    space = make_space(config, groups)
    vector = data.draw(arrays(float, space.dim, elements=st.floats(0, 1)))
    masks = space.decode(vector).masks
    for side in (masks.forward, masks.backward) if config.backward else (masks.forward,):
        for group in groups:
            in_runs(group, side[group.name])


@pytest.mark.parametrize("name", CONFIGS)
def test_runs_are_masked_as_units_of_a_narrower_group_are(name):
    """Decoding knows of runs alone: masks are those of a group with as many units, drawn out."""
    config = CONFIGS[name]
    plain = SpaceConfig(
        kind=config.kind, per_group=config.per_group, backward=config.backward,
        units=config.units, levels=config.levels,
    )  # fmt: skip
    groups = groups_of(config)
    narrow = tuple(
        ChannelGroup(name=group.name, width=len(RUNS[group.name]), kind=group.kind)
        for group in groups
    )
    space, wanted = make_space(config, groups), make_space(plain, narrow)
    assert space.names() == wanted.names()
    vector = np.random.default_rng(3).random(space.dim)
    found, expected = space.decode(vector), wanted.decode(vector)
    for group in groups:
        assert np.array_equal(
            in_runs(group, found.masks.forward[group.name]), expected.masks.forward[group.name]
        )
    assert np.array_equal(found.realisable, expected.realisable)


def test_without_runs_every_unit_is_its_own():
    groups = (UNEVEN, HEADS)
    vector = np.random.default_rng(0).random(6)
    default, one = (make_space(c, groups) for c in (SpaceConfig(), SpaceConfig(multiple_of=1)))
    assert one.decode(vector).masks == default.decode(vector).masks
    assert one.decode(vector).solutions[UNEVEN.name].masks_TC.shape == (3, 20)


def test_heads_are_not_widened():
    """64 channels of a head are a multiple of 8 already; of 12, two heads are."""
    vector = np.random.default_rng(1).random(6)
    (with_runs, without) = (
        make_space(SpaceConfig(multiple_of=n), (HEADS,)).decode(vector).masks for n in (8, 1)
    )
    assert with_runs == without
    slim = ChannelGroup(name="attn", width=6, kind="heads", channels=12)
    decoded = make_space(SpaceConfig(multiple_of=8), (slim,)).decode(vector)
    assert decoded.solutions["attn"].masks_TC.shape == (3, 3)


@settings(max_examples=25, deadline=None)
@given(arrays(float, 12, elements=st.floats(0, 1)))
def test_deviation_and_bound_are_in_runs(vector):
    space = make_space(CONFIGS["backward"], GROUPS)
    decoded = space.decode(vector)
    for group, suffix in product(GROUPS, ("", ".backward")):
        side = decoded.masks.backward if suffix else decoded.masks.forward
        solution = decoded.solutions[f"{group.name}{suffix}"]
        runs_TC = in_runs(group, side[group.name])
        assert np.array_equal(solution.masks_TC, runs_TC)
        goal = round_to_channels(decoded.target[f"{group.name}{suffix}"], runs_TC.shape[1])
        M = runs_TC.astype(int)
        assert solution.deviation == np.abs(M @ M.T - goal).sum()
        assert solution.proven == (solution.deviation == solution.bound)
        assert solution.proven


@pytest.mark.parametrize("seed", range(4))
def test_no_masks_in_runs_are_nearer(seed):
    """All masks of three tasks over the three runs of 20 channels, by brute force."""
    vector = np.random.default_rng(seed).random(6)
    decoded = make_space(CONFIGS["sharing"], (UNEVEN,)).decode(vector)
    goal = round_to_channels(decoded.target[UNEVEN.name], 3)
    subsets = list(product([0, 1], repeat=3))
    least = min(
        np.abs(M.T @ M - goal).sum()
        for M in map(np.array, combinations_with_replacement(subsets, 3))
    )
    solution = decoded.solutions[UNEVEN.name]
    assert (solution.deviation, solution.bound, solution.proven) == (least, least, True)


@pytest.mark.parametrize("name", CONFIGS)
def test_sharing_everything_has_every_channel(name):
    """Those of a last run, too."""
    config = CONFIGS[name]
    space = make_space(config, groups_of(config))
    masks = space.decode(space.encode(share_all(3))).masks
    highest = [masks.row(task, len(config.levels) - 1) for task in TASKS]
    assert (masks.use()[highest] == 1).all()


def test_equal_widths_of_other_runs_are_solved_for_apart():
    twice = ChannelGroup(name="twice", width=64, channels=2)
    decoded = make_space(CONFIGS["sharing"], (HIDDEN, twice)).decode(np.full(6, 0.4))
    assert decoded.solutions[HIDDEN.name].masks_TC.shape == (3, 8)
    assert decoded.solutions["twice"].masks_TC.shape == (3, 16)


def test_more_units_than_runs_are_refused():
    config = SpaceConfig(kind="unit_order", units=4, multiple_of=8)
    with pytest.raises(ValueError, match=r"space\.units .*, got 4 for stage3\.1\.conv1 with 3$"):
        make_space(config, (HIDDEN, UNEVEN))


@pytest.mark.parametrize("wrong", [0, -8])
def test_a_multiple_must_be_of_channels(wrong):
    message = rf"space\.multiple_of must be at least 1 channel.*, got {wrong}"
    with pytest.raises(ValueError, match=message):
        SpaceConfig(multiple_of=wrong)
