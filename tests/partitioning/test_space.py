import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning.baselines import BASELINES, independent, share_all, share_half
from partitioning.masks import ChannelGroup
from partitioning.sharing import (
    SharingMatrixError,
    realised,
    refine,
    refine_backward,
    round_to_channels,
    vector_to_matrix,
)
from partitioning.solver_config import MAX_TASKS, SolverConfig
from partitioning.space import SPACES, SharingSpace, SpaceConfig
from partitioning.space_config import SETTINGS

TASKS = ("cats", "dogs", "birds")
FIRST = ChannelGroup(name="stage3.block0.hidden", width=16)
SECOND = ChannelGroup(name="stage3.block1.hidden", width=16)
WIDE = ChannelGroup(name="stage3.stream", width=24, kind="stream")
GROUPS = (FIRST, SECOND, WIDE)
CONFIGS = {
    "global": SpaceConfig(),
    "per_group": SpaceConfig(per_group=True),
    "backward": SpaceConfig(backward=True),
    "both": SpaceConfig(per_group=True, backward=True),
}


def make_space(config=None, *, tasks=TASKS, groups=GROUPS, kind="sharing"):
    return SPACES[kind](
        tasks=tasks, groups=groups, config=config or SpaceConfig(), solver=SolverConfig()
    )


# Every kind of space, each with whatever changes the shape of what it decodes to.
CONTRACT = {
    **CONFIGS,
    "orders": SpaceConfig(kind="unit_order"),
    "orders_per_group": SpaceConfig(kind="unit_order", per_group=True),
    "orders_in_levels": SpaceConfig(kind="unit_order", levels=(0.5, 1.0)),
    "block_levels": SpaceConfig(kind="block_level", units=2),
    "block_levels_in_levels": SpaceConfig(kind="block_level", levels=(0.25, 0.5, 1.0)),
}


def test_every_kind_is_under_contract():
    assert {config.kind for config in CONTRACT.values()} == SPACES.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", CONTRACT)
def test_every_space_keeps_the_contract(name):
    config = CONTRACT[name]
    space = make_space(config, kind=config.kind)
    names = space.names()
    assert len(names) == len(set(names)) == space.dim == len(space.concerns)
    # Exactly the forward entries of the diagonal say how many channels a task uses.
    uses = [d for d, entry in enumerate(names) if entry.split("/")[-1].startswith("use[")]
    assert list(space.use_dims) == uses
    for entry, concerned in zip(names, space.concerns, strict=True):
        named = re.split(r"[\[\],]", entry)
        assert [task in named for task in TASKS] == [t in concerned for t in range(3)]
    vector = np.random.default_rng(0).random(space.dim)
    before = vector.copy()
    decoded, again = space.decode(vector), pickle.loads(pickle.dumps(space)).decode(vector)
    assert np.array_equal(vector, before)
    assert decoded.masks == again.masks
    assert decoded.masks.tasks == TASKS
    assert decoded.masks.groups == GROUPS
    assert len(decoded.masks.networks) == 3 * len(config.levels)
    assert (decoded.masks.backward is not None) == config.backward
    keys = {g.name for g in GROUPS} if config.kind == "sharing" else set()
    if config.backward:
        keys |= {f"{g.name}.backward" for g in GROUPS}
    assert set(decoded.solutions) == set(decoded.target) == keys
    assert decoded.realisable.shape == (space.dim,)
    assert ((decoded.realisable >= 0) & (decoded.realisable <= 1)).all()
    encoded = space.encode(share_all(3))
    assert encoded.shape == (space.dim,)
    assert ((encoded >= 0) & (encoded <= 1)).all()
    assert np.array_equal(space.decode(encoded).realisable, encoded)
    highest = [space.decode(encoded).masks.row(task, len(config.levels) - 1) for task in TASKS]
    assert (space.decode(encoded).masks.use()[highest] == 1).all()
    with pytest.raises(ValueError, match=rf"\(dim,\) = \({space.dim},\), got \(1,\)"):
        space.decode(np.zeros(1))
    with pytest.raises(ValueError, match=re.escape(f"{names[-1]} = nan")):
        space.decode([*np.zeros(space.dim - 1), np.nan])


def test_names_and_dimensions():
    entries = ["use[cats]", "use[dogs]", "use[birds]"]
    entries += ["overlap[cats,dogs]", "overlap[cats,birds]", "overlap[dogs,birds]"]
    assert make_space().names() == entries
    assert make_space().use_dims == (0, 1, 2)
    both = [*entries, *(f"backward_{entry}" for entry in entries)]
    assert make_space(CONFIGS["backward"]).names() == both
    space = make_space(CONFIGS["both"])
    assert space.names() == [f"{group.name}/{entry}" for group in GROUPS for entry in both]
    assert space.use_dims == (0, 1, 2, 12, 13, 14, 24, 25, 26)


def test_a_single_task_has_a_single_entry():
    space = make_space(tasks=("cats",), groups=(ChannelGroup(name="only", width=1),))
    assert (space.dim, space.names()) == (1, ["use[cats]"])
    assert space.decode([1.0]).masks.use().tolist() == [1.0]


def test_forward_entries_run_over_their_bounds():
    config = SpaceConfig(use=(0.2, 0.6), overlap=(0.5, 1.0))
    space = make_space(config)
    low = refine(np.array([[0.2, 0.5, 0.5], [0.5, 0.2, 0.5], [0.5, 0.5, 0.2]]))
    assert np.allclose(space.decode(np.zeros(6)).target[FIRST.name], low)
    high = np.full((3, 3), 0.6)
    assert np.allclose(space.decode(np.ones(6)).target[FIRST.name], high)
    middle = space.decode(np.full(6, 0.5)).target[FIRST.name]
    # use 0.4: overlap from 0 to 0.4, raw 0.75 of it
    assert middle[0, 0] == pytest.approx(0.4)
    assert middle[0, 1] == pytest.approx(0.3)


@settings(max_examples=25, deadline=None)
@given(arrays(float, 12, elements=st.floats(0, 1)))
def test_decoded_masks_fit_their_targets_and_reports(vector):
    space = make_space(CONFIGS["backward"])
    decoded = space.decode(vector)
    for group in GROUPS:
        for side, name in (
            (decoded.masks.forward, group.name),
            (decoded.masks.backward, f"{group.name}.backward"),
        ):
            M = side[group.name].astype(int)
            goal = round_to_channels(decoded.target[name], group.width)
            assert decoded.solutions[name].deviation == np.abs(M @ M.T - goal).sum()
            assert np.array_equal(decoded.solutions[name].masks_TC, side[group.name])
    raw = vector_to_matrix(vector[6:], 3)
    forward_realised = decoded.masks.realised(FIRST.name)
    target = decoded.target[f"{FIRST.name}.backward"]
    assert np.allclose(target, refine_backward(raw, forward_realised))


def test_equal_groups_get_equal_masks():
    decoded = make_space(CONFIGS["backward"]).decode(np.random.default_rng(1).random(12))
    for side in (decoded.masks.forward, decoded.masks.backward):
        assert np.array_equal(side[FIRST.name], side[SECOND.name])
    assert decoded.solutions[FIRST.name] is decoded.solutions[SECOND.name]
    space = make_space(CONFIGS["per_group"])
    vector = np.tile(np.random.default_rng(1).random(6), 3)
    decoded = space.decode(vector)
    assert np.array_equal(decoded.masks.forward[FIRST.name], decoded.masks.forward[SECOND.name])


def test_per_group_entries_move_their_group_alone():
    space = make_space(CONFIGS["per_group"])
    vector = np.full(space.dim, 0.5)
    base = space.decode(vector).masks
    vector[space.names().index(f"{SECOND.name}/use[dogs]")] = 1.0
    moved = space.decode(vector).masks
    assert np.array_equal(base.forward[FIRST.name], moved.forward[FIRST.name])
    assert np.array_equal(base.forward[WIDE.name], moved.forward[WIDE.name])
    assert moved.realised(SECOND.name)[1, 1] == 1.0 > base.realised(SECOND.name)[1, 1]


def test_backward_entries_freeze_weights():
    space = make_space(CONFIGS["backward"])
    vector = np.concatenate([space.encode(share_all(3))[:6], [1.0, 0.5, 0.0, 1.0, 1.0, 1.0]])
    masks = space.decode(vector).masks
    assert masks.use().tolist() == [1.0, 1.0, 1.0]
    assert masks.backward[FIRST.name].sum(axis=1).tolist() == [16, 8, 0]


@settings(max_examples=40, deadline=None)
@given(arrays(bool, (3, 16), elements=st.booleans()), st.sampled_from(sorted(CONFIGS)))
def test_what_masks_realise_is_encoded_and_decoded_exactly(masks_TC, name):
    P = realised(masks_TC)
    config = SpaceConfig(
        use=(0.0, 1.0), per_group=CONFIGS[name].per_group, backward=CONFIGS[name].backward
    )
    space = make_space(config, groups=(FIRST, SECOND))
    decoded = space.decode(space.encode(P))
    for group in (FIRST, SECOND):
        assert np.array_equal(decoded.masks.realised(group.name), P)
        assert np.allclose(decoded.target[group.name], P, atol=1e-12, rtol=0)
        if config.backward:
            forward, backward = decoded.masks.forward, decoded.masks.backward
            assert np.array_equal(backward[group.name], forward[group.name])


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("num_tasks", [1, 4, 6])
def test_baselines_come_back_from_their_vectors(baseline, num_tasks):
    P = BASELINES[baseline](num_tasks, 72, np.random.default_rng(1))
    tasks = [f"task{number}" for number in range(num_tasks)]
    space = make_space(tasks=tasks, groups=(ChannelGroup(name="group", width=72),))
    masks = space.decode(space.encode(P)).masks
    assert np.array_equal(masks.realised("group") * 72, round_to_channels(P, 72))


def test_halves_round_as_they_would_have_without_a_vector():
    P = np.full((3, 3), 0.4)
    P[np.diag_indices(3)] = 0.7
    for width in (5, 15, 25, 35, 45):
        space = make_space(groups=(ChannelGroup(name="group", width=width),))
        target = space.decode(space.encode(P)).target["group"]
        assert np.array_equal(round_to_channels(target, width), np.rint(np.round(P * width, 6)))


def test_what_lies_outside_the_bounds_is_refused_by_name():
    space = make_space(SpaceConfig(use=(0.1, 0.5), overlap=(0.0, 0.5)))
    with pytest.raises(
        SharingMatrixError, match=r"use\[cats\] must lie within space\.use = \[0\.1, 0\.5\], got 1"
    ):
        space.encode(share_all(3))
    with pytest.raises(SharingMatrixError, match=r"overlap\[cats,dogs\] .*space\.overlap.* got 1;"):
        space.encode(np.full((3, 3), 0.3))
    assert space.encode(independent(3))[3:].tolist() == [0.0, 0.0, 0.0]


def test_a_pair_without_a_choice_fits_any_bounds():
    # Tasks that use everything share everything, whatever the raw entry.
    space = make_space(SpaceConfig(overlap=(0.2, 0.5)))
    vector = space.encode(share_all(3))
    assert np.array_equal(space.decode(vector).target[FIRST.name], np.ones((3, 3)))


def test_fixed_bounds_are_encoded():
    space = make_space(SpaceConfig(use=(0.5, 0.5)))
    P = np.full((3, 3), 0.25) + 0.25 * np.eye(3)
    assert np.allclose(space.decode(space.encode(P)).target[FIRST.name], P)


def test_impossible_matrices_are_refused_by_name():
    P = np.full((3, 3), 0.5)
    P[0, 1] = P[1, 0] = 0.9
    with pytest.raises(SharingMatrixError, match=r"P\[cats, dogs\]"):
        make_space().encode(P)
    with pytest.raises(SharingMatrixError, match=r"\(3, 3\) for the tasks"):
        make_space().encode(share_all(2))


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.zeros(5), r"\(dim,\) = \(6,\), got \(5,\)"),
        (np.array([0.5, 0.5, 0.5, 0.5, np.nan, 0.5]), r"overlap\[cats,birds\] = nan"),
        (np.array([0.5, 1.5, 0.5, 0.5, 0.5, 0.5]), r"use\[dogs\] = 1\.5"),
        (np.array([0.5, 0.5, -0.5, 0.5, 0.5, 0.5]), r"use\[birds\] = -0\.5"),
    ],
)
def test_wrong_vectors_are_refused_by_name(vector, message):
    with pytest.raises(ValueError, match=message):
        make_space().decode(vector)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (
            {"kind": "other"},
            r"space\.kind must be one of sharing, unit_order, block_level, got 'other'",
        ),
        ({"units": 3}, r"space\.units is a setting of unit_order and block_level, .*kind sharing"),
        ({"levels": (0.5, 1.0)}, r"space\.levels is a setting of unit_order and block_level"),
        ({"kind": "unit_order", "overlap": (0.0, 0.5)}, r"space\.overlap .*of sharing.*unit_order"),
        ({"kind": "block_level", "backward": True}, r"space\.backward is a setting of sharing"),
        (
            {"kind": "block_level", "per_group": True},
            r"space\.per_group is a setting of sharing and unit_order, .*kind block_level .*True",
        ),
        ({"kind": "unit_order", "units": 0}, r"space\.units must be at least 1, got 0"),
        ({"kind": "unit_order", "levels": ()}, r"space\.levels must be shares .*got \[\]"),
        ({"kind": "unit_order", "levels": (0.5,)}, r"space\.levels .*ascend to 1, got \[0\.5\]"),
        ({"kind": "unit_order", "levels": (0.0, 1.0)}, r"space\.levels must be shares above 0"),
        ({"kind": "unit_order", "levels": (0.7, 0.5, 1.0)}, r"space\.levels"),
        ({"kind": "block_level", "levels": (1.0, 1.0)}, r"space\.levels"),
        ({"kind": "block_level", "levels": (float("nan"), 1.0)}, r"space\.levels"),
        ({"kind": "block_level", "use": (0.3, 0.4)}, r"space\.use .*whole number of the 4 units"),
        ({"kind": "block_level", "use": (0.0, 0.2)}, r"space\.use .*4 units, from 1; got \[0\.0"),
        ({"use": (0.8, 0.2)}, r"space\.use must be \[lowest, highest\].*got \[0\.8, 0\.2\]"),
        ({"overlap": (1.0, 0.0)}, r"space\.overlap must be \[lowest, highest\]"),
        ({"use": (-0.1, 0.2)}, r"space\.use"),
        ({"overlap": (0.0, 1.1)}, r"space\.overlap"),
        ({"use": (0.1, float("nan"))}, r"space\.use"),
        ({"use": (0.0, 0.0)}, r"space\.use must leave tasks some channels"),
        ({"use": (0.1, 0.2, 0.3)}, r"space\.use"),
    ],
)
def test_wrong_settings_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        SpaceConfig(**settings_)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "tasks must be at least one"),
        ({"tasks": ("cats", "cats")}, r"tasks must .* differ, got \['cats', 'cats'\]"),
        ({"groups": ()}, "groups must be at least one"),
        ({"groups": (FIRST, FIRST)}, "groups must .* differ"),
        ({"tasks": [str(n) for n in range(MAX_TASKS + 1)]}, "at most 40 tasks, got 41"),
    ],
)
def test_wrong_tasks_and_groups_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_space(**changes)


# Three tasks with half of the channels each and none in common: no masks do that.
IMPOSSIBLE = np.concatenate([np.full(3, (0.5 - 0.05) / 0.95), np.zeros(3)])


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_realisable_stays_as_it_is(name):
    space = make_space(CONFIGS[name])
    vector = space.encode(share_half(3))
    assert np.array_equal(space.decode(vector).realisable, vector)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_not_realisable_comes_back_nearest(name):
    space = make_space(replace(CONFIGS[name], use=(0.0, 1.0)))
    rng = np.random.default_rng(0)
    vector = rng.random(space.dim)
    vector[:6] = [0.5, 0.5, 0.5, 0, 0, 0]  # as IMPOSSIBLE, within these bounds
    decoded = space.decode(vector)
    assert decoded.realisable.shape == (space.dim,)
    assert ((decoded.realisable >= 0) & (decoded.realisable <= 1)).all()
    assert not np.allclose(decoded.realisable[:6], vector[:6], atol=1e-3)
    again = space.decode(decoded.realisable)
    assert np.allclose(again.realisable, decoded.realisable, atol=1e-6)
    # With channels enough the masks of both are equally far from the proposal.
    target = decoded.target[FIRST.name]
    assert np.abs(again.target[FIRST.name] - target).sum() == pytest.approx(0.5, abs=1e-6)
    if CONFIGS[name].backward:
        assert np.array_equal(decoded.realisable[6:12], vector[6:12])


def test_what_is_realisable_is_looked_for_within_the_bounds():
    config = SpaceConfig(use=(0.5, 0.5), overlap=(0.0, 0.1))
    space = make_space(config)
    decoded = space.decode(np.zeros(6))
    assert ((decoded.realisable >= 0) & (decoded.realisable <= 1)).all()
    assert np.array_equal(decoded.realisable[:3], np.zeros(3))  # there is nothing to choose


def test_settings_of_the_solver_reach_it():
    space = SharingSpace(
        tasks=TASKS, groups=GROUPS, config=SpaceConfig(), solver=SolverConfig(exact_use=True)
    )
    decoded = space.decode(IMPOSSIBLE)
    assert np.diag(decoded.masks.realised(FIRST.name)).tolist() == [0.5] * 3
    assert np.array_equal(decoded.realisable[:3], IMPOSSIBLE[:3])


def test_without_time_nothing_is_said_of_what_is_realisable():
    hurried = SolverConfig(time_limit=1e-9)
    space = SharingSpace(tasks=TASKS, groups=GROUPS, config=SpaceConfig(), solver=hurried)
    assert space.decode(IMPOSSIBLE).realisable is None


def test_the_sharing_space_is_registered():
    assert SPACES["sharing"] is SharingSpace
