import pickle

import numpy as np
import pytest

from partitioning.masks import ChannelGroup, Masks, VirtualNetwork
from partitioning.sharing import realised

HIDDEN = ChannelGroup(name="stage3.block0.hidden", width=4)
STREAM = ChannelGroup(name="stage3.stream", width=2, kind="stream")
CATS, DOGS = VirtualNetwork(task="cats"), VirtualNetwork(task="dogs")


def bools(*rows):
    return np.array([[character == "1" for character in row] for row in rows])


def make(**changes):
    content = {
        "networks": (CATS, DOGS),
        "groups": (HIDDEN, STREAM),
        "forward": {HIDDEN.name: bools("1110", "0011"), STREAM.name: bools("10", "10")},
        "backward": {HIDDEN.name: bools("1000", "0011"), STREAM.name: bools("10", "00")},
    }
    return Masks(**{**content, **changes})


def nested(lower, upper):
    networks = (VirtualNetwork(task="cats", level=1), VirtualNetwork(task="cats", level=0))
    return Masks(networks=networks, groups=(HIDDEN,), forward={HIDDEN.name: bools(upper, lower)})


def test_what_masks_say_of_themselves():
    masks = make()
    assert masks.tasks == ("cats", "dogs")
    assert (masks.row("cats"), masks.row("dogs")) == (0, 1)
    assert masks.group("stage3.stream") is STREAM
    assert np.array_equal(masks.realised(HIDDEN.name), [[0.75, 0.25], [0.25, 0.5]])
    assert np.array_equal(masks.realised(HIDDEN.name), realised(masks.forward[HIDDEN.name]))
    assert masks.use().tolist() == [4 / 6, 3 / 6]
    assert masks.mean_use() == pytest.approx(7 / 12)
    assert masks.union(HIDDEN.name).tolist() == [True, True, True, True]
    assert masks.union(STREAM.name).tolist() == [True, False]


def test_units_of_several_channels_count_for_as_many():
    """Channels that each network uses, and each pair has in common, counted one by one."""
    heads = ChannelGroup(name="blocks.0.attn", width=3, kind="heads", channels=64)
    sides = {
        HIDDEN.name: bools("1110", "0011"), STREAM.name: bools("10", "11"),
        heads.name: bools("110", "010"),
    }  # fmt: skip
    masks = make(groups=(HIDDEN, STREAM, heads), forward=sides, backward=None)
    repeats = {HIDDEN.name: 1, STREAM.name: 1, heads.name: 64}
    channels_RC = np.concatenate(
        [sides[group.name].repeat(repeats[group.name], axis=1) for group in masks.groups], axis=1
    )
    assert channels_RC.shape == (2, 4 + 2 + 3 * 64)
    assert masks.use().tolist() == [(3 + 1 + 128) / 198, (2 + 2 + 64) / 198]
    assert masks.mean_use() == pytest.approx(channels_RC.mean())
    assert masks.mean_realised() == pytest.approx(realised(channels_RC))
    assert np.array_equal(masks.realised(heads.name), realised(sides[heads.name])), "of units"


@pytest.mark.parametrize(
    ("width", "channels", "multiple_of", "run"),
    [(64, 1, 1, 1), (64, 1, 8, 8), (20, 1, 8, 8), (64, 2, 8, 4), (3, 64, 8, 1), (64, 12, 8, 2),
     (64, 3, 8, 8), (5, 1, 8, 5), (1, 1, 8, 1), (64, 4, 6, 3)],
)  # fmt: skip
def test_a_run_is_the_fewest_units_that_make_a_multiple(width, channels, multiple_of, run):
    """Or the whole group, where that has fewer."""
    group = ChannelGroup(name="a", width=width, channels=channels)
    assert group.run(multiple_of) == run
    fewest = next(n for n in range(1, 65) if n * channels % multiple_of == 0)
    assert run == min(width, fewest)


def test_levels_have_rows_of_their_own_and_tasks_count_once():
    masks = nested(lower="1000", upper="1100")
    assert masks.tasks == ("cats",)
    assert masks.row("cats", level=1) == 0
    assert masks.row("cats") == 1
    assert masks.use().tolist() == [0.5, 0.25]


def test_networks_are_named_by_task_and_level():
    assert [str(VirtualNetwork(task="cats", level=level)) for level in (0, 2)] == ["cats", "cats@2"]


def test_networks_of_one_name_are_refused():
    networks = (VirtualNetwork(task="cats@2"), VirtualNetwork(task="cats", level=2))
    with pytest.raises(ValueError, match="more than once: cats@2"):
        make(networks=networks)


def test_unknown_rows_and_groups_are_named():
    with pytest.raises(KeyError, match=r"no virtual network cats \(level 1\); there are: cats"):
        make().row("cats", level=1)
    with pytest.raises(KeyError, match=r"no channel group stage4; there are: stage3"):
        make().realised("stage4")
    with pytest.raises(KeyError, match="no channel group stage4"):
        make().union("stage4")


def test_equality_is_by_content():
    assert make() == make()
    assert hash(make()) == hash(make())
    assert make().digest() == make().digest()
    assert make() != "masks"


@pytest.mark.parametrize(
    "other",
    [
        make(backward=None),
        make(networks=(CATS, VirtualNetwork(task="birds"))),
        make(networks=(CATS, VirtualNetwork(task="dogs", level=1))),
        make(forward={HIDDEN.name: bools("1111", "0011"), STREAM.name: bools("10", "10")}),
        make(backward={HIDDEN.name: bools("0000", "0011"), STREAM.name: bools("10", "00")}),
        make(groups=(ChannelGroup(name=HIDDEN.name, width=4, kind="stream"), STREAM)),
        make(groups=(STREAM, HIDDEN)),
        make(groups=(ChannelGroup(name=HIDDEN.name, width=4, channels=2), STREAM)),
    ],
)
def test_any_other_content_is_another_digest(other):
    assert make() != other
    assert make().digest() != other.digest()


def test_the_digest_stays_the_same_for_good():
    # It names candidates and cache entries: a change would orphan what was stored before.
    assert make().digest() == "53504c9967d0ee539db988a3e16f67161df59293326cb41223fe176233b6e682"


def test_arrays_are_copied_and_read_only():
    forward = bools("1110", "0011")
    masks = Masks(networks=(CATS, DOGS), groups=(HIDDEN,), forward={HIDDEN.name: forward})
    forward[0, 3] = True
    assert not masks.forward[HIDDEN.name][0, 3]
    with pytest.raises(ValueError, match="read-only"):
        masks.forward[HIDDEN.name][0, 3] = True


def test_masks_travel_between_processes():
    assert pickle.loads(pickle.dumps(make())) == make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": ()}, "at least one virtual network"),
        ({"groups": ()}, "at least one virtual network and one channel group"),
        ({"networks": (CATS, CATS)}, r"networks must differ, got more than once: cats"),
        ({"groups": (HIDDEN, HIDDEN)}, r"groups must differ, got more than once: stage3\.block0"),
        (
            {"forward": {HIDDEN.name: bools("1110", "0011")}},
            r"forward masks must be given for the groups .*stage3\.stream.*, got \['stage3\.block0",
        ),
        (
            {"forward": {HIDDEN.name: bools("111", "001"), STREAM.name: bools("10", "10")}},
            r"group stage3\.block0\.hidden: forward masks .* = \(2, 4\), got bool of .* \(2, 3\)",
        ),
        (
            {"forward": {HIDDEN.name: bools("1110"), STREAM.name: bools("10", "10")}},
            r"\(2, 4\), got bool of shape \(1, 4\)",
        ),
        (
            {"forward": {HIDDEN.name: np.ones((2, 4)), STREAM.name: bools("10", "10")}},
            r"boolean \(R, C\) = \(2, 4\), got float64",
        ),
        (
            {"backward": {HIDDEN.name: bools("1000", "1011"), STREAM.name: bools("10", "00")}},
            r"group stage3\.block0\.hidden: .*but dogs has channel 0 in its backward",
        ),
    ],
)
def test_what_are_no_masks_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_level_must_have_every_channel_of_the_lower_ones():
    with pytest.raises(ValueError, match=r"hidden: cats@1 must have every channel of cats"):
        nested(lower="1010", upper="1100")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ChannelGroup(name="", width=1), "needs a name"),
        (lambda: ChannelGroup(name="a", width=0), "group a: width must be at least 1, got 0"),
        (
            lambda: ChannelGroup(name="a", width=1, channels=0),
            "a: channels must be at least 1, got 0",
        ),
        (lambda: ChannelGroup(name="a", width=1, kind="x"), "group a: kind must be one of .*'x'"),
        (lambda: VirtualNetwork(task=""), "needs a task"),
        (lambda: VirtualNetwork(task="cats", level=-1), "task cats: level must be at least 0"),
    ],
)
def test_wrong_groups_and_networks_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
