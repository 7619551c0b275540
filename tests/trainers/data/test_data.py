"""Configs and labels that are refused, and which rows become which split."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.parquet_tasks import drawn_rows, load, refused, write_task
from trainers.data import DataConfig, TaskConfig, check_tasks
from trainers.data.sources import DataError
from trainers.data.splitting import stratified


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a/b"}, "name must be letters, .* the first a letter or digit, got 'a/b'"),
        ({"name": ""}, "the first a letter or digit, got ''"),
        ({"source": "parqet"}, "got 'parqet'; did you mean 'parquet'"),
        ({"source": "zzz"}, "one of toy, parquet, hub, folder, npz, got 'zzz'$"),
        ({"validation": None}, "validation is null and validation_fraction"),
        ({"validation_fraction": 0.1}, "got validation='validation' and validation_fraction=0.1"),
        (
            {"validation": None, "validation_fraction": 0.0},
            r"must be in \(0, 1\), or null, got 0\.0",
        ),
        (
            {"validation": None, "validation_fraction": 1.0},
            r"must be in \(0, 1\), or null, got 1\.0",
        ),
        ({"validation": "test"}, "different splits, .* got train, test, test"),
        ({"train": "validation"}, "different splits"),
        ({"limit": 1}, "limit must be at least 2 images, or null, got 1"),
        ({"shift": -1}, "shift must be at least 0 pixels, got -1"),
    ],
)
def test_task_config_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TaskConfig(**{"name": "animals"} | fields)
    assert "name" in fields or "'animals'" in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ()}, "at least one task"),
        ({"tasks": (TaskConfig(name="a"),) * 2}, "listed once, got a more than once"),
        ({"input_size": 4}, "at least 8 pixels, got 4"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"tasks": (TaskConfig(name="a", shift=32),)}, "'a': shift must be smaller .* 32, got 32"),
    ],
)
def test_data_config_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"tasks": (TaskConfig(name="a"),)} | fields)


def test_configs_cannot_be_changed_and_take_keywords_only() -> None:
    task = TaskConfig(name="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        TaskConfig("a")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (
            {"train": [1, 1, 1], "validation": [1, 0]},
            "ab",
            "at least two classes, all 3 training labels are 1",
        ),
        ({"train": [0, 1], "validation": [0, 2]}, "ab", "from 0 to 1, row 1 has 2 .1 such rows"),
        ({"train": [0, 1, -1, -1], "validation": [0, 1]}, "ab", "row 2 has -1 .2 such rows"),
        ({"train": [0, 1], "validation": [0, -1]}, None, "must be 0 or more, row 1 has -1"),
        ({"train": [0, 1, 3], "validation": [0, 2]}, None, "training split, 2 does not"),
        ({"train": [], "validation": [0, 1]}, "ab", r"train\.parquet: .* empty"),
        ({"train": [0, 1], "validation": []}, "ab", r"validation\.parquet: .* empty"),
    ],
)
def test_labels_are_checked_before_anything_is_decoded(
    labels: dict[str, list[int]], names: str | None, message: str, tmp_path: Path
) -> None:
    write_task(tmp_path, names=names, **labels)
    with pytest.raises(DataError, match=message):
        raise DataError(refused(tmp_path))


def test_splits_with_other_classes_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, names=["cat", "dog"], train=[0, 1])
    write_task(tmp_path, names=["dog", "cat"], validation=[0, 1])
    message = refused(tmp_path)
    assert "must be those of the training split, cat, dog, got dog, cat" in message
    write_task(tmp_path, names=None, validation=[1, 0])  # no names: nothing to contradict
    assert load(tmp_path).splits["validation"].labels.tolist() == [1, 0]


def test_unlabelled_test_split_is_refused_and_may_be_left_out(tmp_path: Path) -> None:
    write_task(tmp_path, names="ab", train=[0, 1], validation=[0, 1], test=[-1, -1])
    assert "set test to null" in refused(tmp_path, test="test")
    assert list(load(tmp_path).splits) == ["train", "validation"]


def test_declared_class_that_no_training_image_has_keeps_its_number(tmp_path: Path) -> None:
    write_task(tmp_path, names="abc", train=[0, 2], validation=[2, 1])
    task = load(tmp_path)
    assert task.classes == ("a", "b", "c")
    assert task.num_classes == 3
    assert task.splits["validation"].labels.tolist() == [2, 1]


def test_first_bad_task_is_named(tmp_path: Path) -> None:
    write_task(tmp_path, name="good", train=[0, 1], validation=[0, 1])
    tasks = tuple(TaskConfig(name=name, test=None) for name in ("good", "bad"))
    with pytest.raises(DataError, match=r"'bad': folder .*bad does not exist"):
        check_tasks(DataConfig(tasks=tasks, root=str(tmp_path)))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=8),
    part=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_stratified_keeps_every_class_and_its_share(
    sizes: list[int], part: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = len(sizes) + round(part * (len(labels) - len(sizes)))
    rows = stratified(labels, count, np.random.default_rng(seed))
    assert len(rows) == count
    assert (np.diff(rows) > 0).all()
    taken = np.bincount(labels[rows], minlength=len(sizes))
    assert (taken >= 1).all()
    # Every class takes its quantiles below one threshold t: between t n and t n + 1 images.
    share = np.array(sizes) / len(labels)
    assert (taken <= count * share + 1 + 1e-9).all()
    assert (taken >= (count - len(sizes)) * share - 1 - 1e-9).all()


def test_held_out_validation_is_stratified_seeded_and_apart(tmp_path: Path) -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    write_task(tmp_path, train=labels, test=[0, 1])
    fields = {"validation": None, "validation_fraction": 0.2, "test": "test"}
    task = load(tmp_path, **fields)
    train, validation = (drawn_rows(task.splits[name]) for name in ("train", "validation"))
    assert sorted(train + validation) == list(range(100))
    assert task.splits["validation"].labels.bincount().tolist() == pytest.approx([12, 6, 2], abs=1)
    for name, rows in (("train", train), ("validation", validation)):
        assert task.splits[name].labels.tolist() == [labels[row] for row in rows]
    assert drawn_rows(load(tmp_path, **fields).splits["validation"]) == validation
    assert drawn_rows(load(tmp_path, seed=1, **fields).splits["validation"]) != validation
    assert list(task.splits) == ["train", "validation", "test"]


def test_limit_cuts_training_images_only(tmp_path: Path) -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 2
    write_task(tmp_path, train=labels, validation=[0, 1, 2])
    task = load(tmp_path, limit=20)
    rows = drawn_rows(task.splits["train"])
    assert len(set(rows)) == len(rows) == 20
    assert task.splits["train"].labels.tolist() == [labels[row] for row in rows]
    assert set(task.splits["train"].labels.tolist()) == {0, 1, 2}
    assert len(task.splits["validation"]) == 3
    assert drawn_rows(load(tmp_path, limit=20).splits["train"]) == rows
    assert drawn_rows(load(tmp_path, limit=20, seed=1).splits["train"]) != rows
    assert len(load(tmp_path, limit=1000).splits["train"]) == len(labels)


def test_limit_and_held_out_validation_do_not_overlap(tmp_path: Path) -> None:
    write_task(tmp_path, train=[0, 1] * 50)
    task = load(tmp_path, validation=None, validation_fraction=0.3, limit=20)
    train, validation = (drawn_rows(task.splits[name]) for name in ("train", "validation"))
    assert (len(train), len(validation)) == (20, 30)
    assert not set(train) & set(validation)


def test_too_small_limits_and_fractions_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, train=[0, 1, 2] * 3, validation=[0, 1])
    assert "limit must be at least 3" in refused(tmp_path, limit=2)
    held_out = {"validation": None}
    assert "leaves 0 and 9" in refused(tmp_path, validation_fraction=0.01, **held_out)
    assert "leaves 8 and 1" in refused(tmp_path, validation_fraction=0.9, **held_out)
