import json
import os
import pickle
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning.masks import ChannelGroup, MaskFileError, Masks, VirtualNetwork

GROUPS = (
    ChannelGroup(name="stage3.block0.hidden", width=3),
    ChannelGroup(name="stage3.stream", width=2, kind="stream", channels=3),
)


def make_masks(rng=None, *, backward=True):
    rng = rng or np.random.default_rng(0)
    forward = {group.name: rng.random((2, group.width)) < 0.7 for group in GROUPS}
    return Masks(
        networks=(VirtualNetwork(task="cats"), VirtualNetwork(task="dögs")),
        groups=GROUPS,
        forward=forward,
        backward={name: m & (rng.random(m.shape) < 0.5) for name, m in forward.items()}
        if backward
        else None,
    )


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "masks.json"
    make_masks().save(path)
    return path


@pytest.mark.parametrize("backward", [True, False])
def test_what_is_saved_is_loaded(tmp_path, backward):
    masks = make_masks(backward=backward)
    masks.save(tmp_path / "masks.json")
    loaded = Masks.load(tmp_path / "masks.json", groups=GROUPS, tasks=["cats", "dögs"])
    assert loaded == masks
    assert loaded.groups == masks.groups
    assert loaded.networks == masks.networks
    assert (loaded.backward is None) == (not backward)


@settings(deadline=None)
@given(st.data())
def test_any_masks_survive_the_file(tmp_path_factory, data):
    levels, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    steps = data.draw(arrays(bool, (levels, width)))
    masks = Masks(
        networks=tuple(
            VirtualNetwork(task=data.draw(st.shared(st.text(min_size=1), key="task")), level=level)
            for level in range(levels)
        ),
        groups=(ChannelGroup(name="group", width=width),),
        forward={"group": np.logical_or.accumulate(steps)},
    )
    path = tmp_path_factory.mktemp("masks") / "masks.json"
    masks.save(path)
    assert Masks.load(path) == masks


def test_the_file_can_be_read_by_a_person(saved):
    content = json.loads(saved.read_text())
    assert (content["format"], content["version"]) == ("apportion-masks", 2)
    assert content["networks"][1] == {"task": "dögs", "level": 0}
    first = content["groups"][0]
    assert (first["name"], first["width"], first["kind"]) == ("stage3.block0.hidden", 3, "hidden")
    assert [group["channels"] for group in content["groups"]] == [1, 3]
    rows = ["".join("01"[int(c)] for c in row) for row in make_masks().forward[first["name"]]]
    assert first["forward"] == rows


def test_saving_again_replaces_the_file_and_leaves_nothing_else(saved):
    make_masks(backward=False).save(saved)
    assert Masks.load(saved) == make_masks(backward=False)
    assert os.listdir(saved.parent) == [saved.name]


def test_a_full_disk_leaves_the_file_as_it_was(saved):
    # A limit on file sizes fails a write in the middle just as a full disk does.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            make_masks(backward=False).save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Masks.load(saved) == make_masks()
    assert os.listdir(saved.parent) == [saved.name]


def test_a_missing_folder_or_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        make_masks().save(tmp_path / "none" / "masks.json")
    with pytest.raises(FileNotFoundError):
        Masks.load(tmp_path / "none.json")


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="other"), 'lacks "format": "apportion-masks"'),
        (lambda c: c.pop("format"), 'lacks "format": "apportion-masks"'),
        (lambda c: c.update(version=1), "holds masks of version 1, .* reads version 2: "),
        (lambda c: c.pop("version"), "made before versions were kept"),
        (lambda c: c.pop("networks"), '"networks" is missing'),
        (lambda c: c.update(groups={}), '"groups" must be of type list, got {}'),
        (lambda c: c.update(networks=[]), "at least one virtual network"),
        (lambda c: c.update(networks=[1, 2]), '"task" is missing in 1'),
        (lambda c: c["networks"][0].update(level="0"), "\"level\" must be of type int, got '0'"),
        (lambda c: c["networks"][0].update(level=True), '"level" must be of type int, got True'),
        (lambda c: c["networks"][0].update(level=-1), "task cats: level must be at least 0"),
        (lambda c: c["networks"][1].update(task="cats"), "more than once: cats"),
        (lambda c: c["networks"].pop(), r"= \(1, 3\), got bool of shape \(2, 3\)"),
        (lambda c: c["groups"][0].update(name="stage3.stream"), "more than once: stage3.stream"),
        (lambda c: c["groups"][0].update(kind="other"), "hidden: kind must be one of .*'other'"),
        (lambda c: c["groups"][0].pop("kind"), "hidden: kind must be one of .*None"),
        (lambda c: c["groups"][0].update(width=4), r"hidden: forward masks, row 0 must be .* 4 ch"),
        (lambda c: c["groups"][0].update(width=10**15), "row 0 must be a string"),
        (lambda c: c["groups"][0].pop("channels"), '"channels" is missing'),
        (lambda c: c["groups"][0].update(channels=0), "hidden: channels must be at least 1, got 0"),
        (lambda c: c["groups"][0].update(channels=1.0), '"channels" must be of type int, got 1.0'),
        (lambda c: c["groups"][0].pop("forward"), '"forward" is missing'),
        (lambda c: c["groups"][0].pop("backward"), "backward masks must be given for the groups"),
        (lambda c: c["groups"][0]["forward"].append("111"), r"got bool of shape \(3, 3\)"),
        (lambda c: c["groups"][0].update(forward=["102", "111"]), "row 0 .* characters 0 or 1"),
        (lambda c: c["groups"][0].update(forward=["111", [1, 1, 1]]), r"row 1 .* got \[1, 1, 1\]"),
        (lambda c: c["groups"][0].update(forward=["000", "000"]), "subsets of forward masks"),
    ],
)
def test_other_content_is_refused_with_the_reason(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(MaskFileError, match=message) as error:
        Masks.load(saved)
    assert str(saved) in str(error.value)


def test_masks_for_other_groups_are_refused(saved):
    wider = (ChannelGroup(name=GROUPS[0].name, width=64), GROUPS[1])
    with pytest.raises(MaskFileError, match=r"hidden \(3 channels.*wanted .*hidden \(64 channels"):
        Masks.load(saved, groups=wider)
    of_two = (ChannelGroup(name=GROUPS[0].name, width=3, channels=2), GROUPS[1])
    with pytest.raises(MaskFileError, match=r"wanted .*hidden \(3 units of 2 channels"):
        Masks.load(saved, groups=of_two)
    renamed = (ChannelGroup(name="stage4.block0.hidden", width=3), GROUPS[1])
    with pytest.raises(MaskFileError, match=r"wanted stage4\.block0\.hidden"):
        Masks.load(saved, groups=renamed)
    with pytest.raises(MaskFileError, match=r"wanted stage3\.block0\.hidden"):
        Masks.load(saved, groups=GROUPS[:1])


@pytest.mark.parametrize("tasks", [["cats"], ["cats", "birds"], ["dögs", "cats"]])
def test_masks_for_other_tasks_are_refused(saved, tasks):
    with pytest.raises(MaskFileError, match=f"tasks cats, dögs; wanted {', '.join(tasks)}"):
        Masks.load(saved, tasks=tasks)


class Intruder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_is_refused_and_not_run(tmp_path, protocol):
    path, trace = tmp_path / "masks.json", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Intruder(str(trace)), protocol=protocol))
    with pytest.raises(MaskFileError, match="not JSON"):
        Masks.load(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b"null", b'{"format": "apportion-mas']
)
def test_what_is_no_file_of_masks_is_refused(tmp_path, content):
    path = tmp_path / "masks.json"
    path.write_bytes(content)
    with pytest.raises(MaskFileError, match="is no file of masks"):
        Masks.load(path)


def test_a_truncated_file_is_refused_wherever_it_ends(saved):
    whole = saved.read_bytes().rstrip()
    for length in range(0, len(whole), 7):
        saved.write_bytes(whole[:length])
        with pytest.raises(MaskFileError):
            Masks.load(saved)
