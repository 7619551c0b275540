"""Tasks of some of a dataset's classes, and of several classes as one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from search.study.basis import data_basis
from tests.helpers.parquet_tasks import drawn_rows, load, refused, write_task
from tests.helpers.sources import SIZE, config_of, encode, structs, write_table
from tests.helpers.sources import load as load_from
from tests.helpers.sources import refused as refused_from
from trainers.data import DataConfig, Task, TaskConfig, load_task, load_tasks, loading

#: Labels of six classes in no order.
LABELS = {
    "train": [5, 0, 3, 1, 4, 2, 2, 0, 5, 1, 3, 4, 0],
    "validation": [4, 3, 2, 1, 0, 5],
    "test": [0, 1, 2, 3, 4, 5, 5],
}
#: Other datasets' classes.
FIVE = ("ant", "bee", "cat", "dog", "elk")


def rows_and_labels(task: Task) -> dict[str, list[tuple[int, int]]]:
    """Of every split, which image of the dataset's split each is, and its label."""
    return {
        name: list(zip(drawn_rows(split), split.labels.tolist(), strict=True))
        for name, split in task.splits.items()
    }


@pytest.mark.parametrize(
    ("fields", "classes", "label_of"),
    [
        ({}, "a b c d e f", {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}),
        ({"classes": (0, 6)}, "a b c d e f", {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}),
        ({"classes": (0, 2)}, "a b", {0: 0, 1: 1}),
        ({"classes": (2, 5)}, "c d e", {2: 0, 3: 1, 4: 2}),
        ({"classes": (4, 6)}, "e f", {4: 0, 5: 1}),
        ({"merge": 2}, "a-b c-d e-f", {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}),
        ({"merge": 3}, "a-c d-f", {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 1}),
        ({"merge": 4}, "a-d e-f", {0: 0, 1: 0, 2: 0, 3: 0, 4: 1, 5: 1}),
        ({"merge": 5}, "a-e f", {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 1}),
        ({"only": ("e", "b", "f")}, "e b f", {4: 0, 1: 1, 5: 2}),
        ({"only": ("f", "c", "a"), "merge": 2}, "f-c a", {5: 0, 2: 0, 0: 1}),
        ({"classes": (1, 6), "merge": 2}, "b-c d-e f", {1: 0, 2: 0, 3: 1, 4: 1, 5: 2}),
        ({"classes": (1, 5), "merge": 3}, "b-d e", {1: 0, 2: 0, 3: 0, 4: 1}),
    ],
)
def test_images_of_the_classes_are_kept_in_every_split(
    fields: dict[str, object], classes: str, label_of: dict[int, int], tmp_path: Path
) -> None:
    write_task(tmp_path, names="abcdef", **LABELS)
    task = load(tmp_path, test="test", **fields)
    assert task.classes == tuple(name.replace("-", " to ") for name in classes.split(" "))
    assert rows_and_labels(task) == {
        split: [(row, label_of[label]) for row, label in enumerate(labels) if label in label_of]
        for split, labels in LABELS.items()
    }


def test_what_was_chosen_is_said(tmp_path: Path) -> None:
    write_task(tmp_path, names="abcdef", **LABELS)
    assert "classes 0 to" not in load(tmp_path).summary()
    assert "merged" not in load(tmp_path, classes=(2, 5)).summary()
    found = load(tmp_path, classes=(2, 5))
    assert "3 classes (c, d, e), 6 / 3 images" in found.summary()
    assert "classes 2 to 4 of 6" in found.understood.notes
    assert "2 of 6 classes" in load(tmp_path, only=("e", "b")).understood.notes
    found = load(tmp_path, merge=4)
    assert "6 classes merged into 2" in found.understood.notes
    found = load(tmp_path, classes=(1, 6), merge=2)
    assert "classes 1 to 5 of 6; 5 classes merged into 3" in found.summary()
    assert "3 classes (b to c, d to e, f)" in found.summary()


def test_classes_without_declared_names_are_in_the_order_of_their_labels(tmp_path: Path) -> None:
    write_task(tmp_path, train=[30, 7, 100, 20, 7], validation=[100, 20, 30, 7])
    task = load(tmp_path, classes=(1, 3))
    assert task.classes == ("20", "30")
    assert rows_and_labels(task) == {"train": [(0, 1), (3, 0)], "validation": [(1, 0), (2, 1)]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": (-1, 2)}, r"classes must be .* at least 2 above it, or null, got \[-1, 2\]"),
        ({"classes": (1, 2)}, r"got \[1, 2\]"),
        ({"classes": (1, 1)}, r"got \[1, 1\]"),
        ({"classes": (5, 2)}, r"got \[5, 2\]"),
        ({"classes": (0,)}, r"got \[0\]"),
        ({"merge": 0}, "merge must be at least 1, got 0"),
        ({"only": ("a", "b", "a")}, "only must be two or more different names, or null"),
        ({"only": ("a",)}, "only must be two or more different names"),
        ({"only": ("a", "b"), "classes": (0, 2)}, "classes or only says which classes"),
    ],
)
def test_settings_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TaskConfig(name="animals", **fields)
    assert "'animals'" in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": (0, 7)}, "has 6 classes, so that classes must be within [0, 6], got [0, 7]"),
        ({"classes": (4, 7)}, "has 6 classes, so that classes must be within [0, 6], got [4, 7]"),
        ({"classes": (6, 8)}, "has 6 classes, so that classes must be within [0, 6], got [6, 8]"),
        ({"only": ("a", "bb")}, "only: the dataset has no class 'bb'; did you mean 'b'?"),
        ({"only": ("a", "zzz")}, "has no class 'zzz'; it has a, b, c, d, e, f"),
        ({"merge": 6}, "merge must leave at least two classes of 6, got 6"),
        ({"classes": (1, 4), "merge": 3}, "at least two classes of 3, got 3"),
    ],
)
def test_classes_that_are_not_there_are_refused(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_task(tmp_path, names="abcdef", **LABELS)
    assert message in refused(tmp_path, **fields)


def test_every_split_has_images_of_the_classes_and_training_of_two(tmp_path: Path) -> None:
    write_task(tmp_path, names="abcdef", train=[0, 1, 2, 2, 5], validation=[0, 2, 5])
    write_task(tmp_path, names="abcdef", test=[4, 5])
    both = {"test": "test", "classes": (0, 4)}
    assert "test must have an image of its classes (a, b, c, d)" in refused(tmp_path, **both)
    found = refused(tmp_path, classes=(2, 5))
    assert "at least two of its classes must have training images, all 2 are of c" in found
    found = refused(tmp_path, classes=(3, 5), test="test")
    assert "train and validation must have an image of its classes (d, e)" in found
    assert "all 4 are of a to c" in refused(tmp_path, classes=(0, 5), merge=3)


def test_missing_classes_are_those_of_the_task(tmp_path: Path) -> None:
    write_task(tmp_path, names="abcdef", train=[0, 1, 2, 3, 5], validation=[0, 1, 3, 5])
    assert "train has no image of 1 of the classes (e)" in load(tmp_path).summary()
    assert "has no image" not in load(tmp_path, classes=(0, 2)).summary()
    task = load(tmp_path, classes=(1, 4))
    assert "train has no" not in task.summary()
    assert "validation has no image of 1 of the classes (c)" in task.summary()
    assert "has no image" not in load(tmp_path, merge=2).summary()


def test_limit_is_of_the_images_that_are_left(tmp_path: Path) -> None:
    labels = [0] * 40 + [1] * 30 + [2] * 20 + [3] * 10
    write_task(tmp_path, names="abcd", train=labels, validation=[0, 1, 2, 3])
    task = load(tmp_path, classes=(1, 4), limit=12)
    rows = drawn_rows(task.splits["train"])
    assert len(set(rows)) == 12
    assert task.splits["train"].labels.tolist() == [labels[row] - 1 for row in rows]
    assert task.splits["train"].labels.bincount().tolist() == pytest.approx([6, 4, 2], abs=1)
    assert len(load(tmp_path, classes=(1, 4), limit=60).splits["train"]) == 60
    assert len(load(tmp_path, classes=(1, 4), limit=80).splits["train"]) == 60
    # Of merged classes one image is enough.
    assert "limit must be at least 3, one" in refused(tmp_path, classes=(1, 4), limit=2)
    task = load(tmp_path, merge=2, limit=2)
    assert task.splits["train"].labels.tolist() == [0, 1]
    task = load(tmp_path, merge=2, limit=50)
    assert task.splits["train"].labels.bincount().tolist() == pytest.approx([35, 15], abs=1)


def test_validation_is_held_out_of_the_images_that_are_left(tmp_path: Path) -> None:
    labels = [0] * 40 + [1] * 30 + [2] * 20
    write_task(tmp_path, names="abc", train=labels)
    held_out = {"validation": None, "validation_fraction": 0.2}
    task = load(tmp_path, classes=(1, 3), **held_out)
    train, validation = (drawn_rows(task.splits[name]) for name in ("train", "validation"))
    assert sorted(train + validation) == list(range(40, 90))
    assert task.splits["validation"].labels.bincount().tolist() == pytest.approx([6, 4], abs=1)
    for split in task.splits.values():
        assert split.labels.tolist() == [labels[row] - 1 for row in drawn_rows(split)]


@pytest.mark.parametrize("source", ["parquet", "folder"])
def test_splits_are_drawn_from_the_images_that_are_left(source: str, tmp_path: Path) -> None:
    images = noise(100)
    labels = np.arange(100) % 5
    if source == "parquet":
        write_table(tmp_path / "t" / "all.parquet", structs(images), labels, FIVE)
    else:
        write_folder(tmp_path / "t", images, labels)
    task = load_from(TaskConfig(name="t", source=source, classes=(1, 4)), tmp_path)
    assert task.classes == ("bee", "cat", "dog")
    found = [
        (image.permute(1, 2, 0).numpy().tobytes(), label + 1)
        for split in task.splits.values()
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    ]
    wanted = [(images[k].tobytes(), labels[k]) for k in range(100) if 1 <= labels[k] < 4]
    assert sorted(found) == sorted(wanted)
    for name, count in (("train", 16), ("validation", 2), ("test", 2)):
        assert task.splits[name].labels.bincount().tolist() == [count] * 3
    merged = load_from(TaskConfig(name="t", source=source, merge=3), tmp_path)
    assert merged.classes == ("ant to cat", "dog to elk")
    assert merged.splits["test"].labels.bincount().tolist() == [6, 4]


def noise(count: int) -> np.ndarray:
    """Images uint8 (N, S, S, 3), no two alike."""
    return np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def write_folder(place: Path, images: np.ndarray, labels: np.ndarray, kind: str = "PNG") -> None:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = place / FIVE[label] / f"{np.sum(labels[:index] == label):03}.{kind.lower()}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image, kind))


def write(source: str, top: Path, kept: range = range(5)) -> str:
    """A dataset of the five classes, or of some; its path."""
    arrays = {}
    for split, count in (("train", 40), ("validation", 10), ("test", 15)):
        labels = np.arange(count) % 5
        mine = np.isin(labels, kept)
        images, labels = noise(count)[mine], labels[mine]
        if source == "folder":
            write_folder(top / "five" / split, images, labels)
        elif source == "npz":
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        else:
            names = tuple(FIVE[k] for k in kept)
            file = f"data/{split}-00000-of-00001.parquet"
            write_table(top / "five" / file, structs(images), labels - kept[0], names)
    if source == "npz":
        top.mkdir(parents=True, exist_ok=True)
        np.savez(top / "five.npz", **arrays)
    return "five.npz" if source == "npz" else "five"


@pytest.mark.parametrize("source", ["parquet", "hub", "folder", "npz"])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_task_of_some_classes_is_that_of_a_dataset_of_those(
    source: str, is_mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images, labels, names and digests, of every source."""
    monkeypatch.setattr(loading, "MAPPED_ABOVE", 1000 if is_mapped else 10**9)
    path = write(source, tmp_path / "whole")
    write(source, tmp_path / "part", range(1, 4))

    def load_one(place: str, **fields: object) -> Task:
        task = TaskConfig(**{"name": "t", "source": source, "path": path} | fields)
        return load_task(task, config_of(task, tmp_path / place), tmp_path / f"kept-{place}")

    for merge in (1, 2):
        found = load_one("whole", classes=(1, 4), merge=merge)
        wanted = load_one("part", merge=merge)
        assert (found.splits["train"].path is not None) == is_mapped
        for name, split in wanted.splits.items():
            assert torch.equal(found.splits[name].images, split.images)
            assert torch.equal(found.splits[name].labels, split.labels)
        assert found.classes == wanted.classes
        assert torch.equal(found.mean, wanted.mean)
        assert found.fingerprint() == wanted.fingerprint()
        assert data_basis({"t": found}) == data_basis({"t": wanted})
    others = [load_one("whole", **fields) for fields in ({}, {"classes": (0, 3)}, {"merge": 2})]
    assert len({task.fingerprint() for task in (found, wanted, *others)}) == 4
    too_many = TaskConfig(name="t", source=source, path=path, classes=(3, 6))
    assert "has 5 classes" in refused_from(too_many, tmp_path / "whole")


@pytest.mark.parametrize("is_mapped", [False, True])
def test_toy_tasks_have_classes_and_merge_too(
    is_mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MAPPED_ABOVE", 1000 if is_mapped else 10**9)
    whole = TaskConfig(name="all", source="toy", path="shapes")
    part = TaskConfig(name="some", source="toy", path="shapes", classes=(2, 7), merge=2)
    config = DataConfig(tasks=(whole, part), input_size=SIZE)
    tasks = load_tasks(config, tmp_path)
    assert tasks["some"].classes == ("square to hexagon", "star to cross", "ring")
    for name, split in tasks["all"].splits.items():
        rows = torch.nonzero((split.labels >= 2) & (split.labels < 7)).flatten()
        assert torch.equal(tasks["some"].splits[name].images, split.images[rows])
        assert torch.equal(tasks["some"].splits[name].labels, (split.labels[rows] - 2) // 2)


def test_files_of_other_classes_are_others_however_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classes whose files have the same names, sizes and times, as copies at once may have."""
    monkeypatch.setattr(loading, "MAPPED_ABOVE", 1000)
    for split, count in (("train", 20), ("validation", 10)):
        write_folder(tmp_path / "five" / split, noise(count), np.arange(count) % 5, "BMP")
    files = [*(tmp_path / "five").glob("*/*/*")]
    for file in files:
        os.utime(file, (0, 0))
    found = []
    for classes in ((0, 2), (2, 4), (0, 2)):
        task = TaskConfig(name="t", source="folder", path="five", test=None, classes=classes)
        config = config_of(task, tmp_path)
        mapped, memory = load_task(task, config, tmp_path / "kept"), load_task(task, config)
        for name, split in memory.splits.items():
            assert torch.equal(mapped.splits[name].images, split.images)
        found.append(mapped.splits["train"].path)
    assert found[0] == found[2] != found[1]
