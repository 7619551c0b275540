"""Datasets of which a part vanished in silence, or which were taken for whole and were not."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.folders import load, picture, refused, write, write_rows, write_splits
from tests.helpers.sources import SIZE, SPLITS, encode, pictures, write_table
from trainers.data.sources import DataError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("ending", "form"),
    [(".tif", "TIFF"), (".gif", "GIF"), (".ppm", "PPM"), (".JPEG", "JPEG"), (".jp2", "JPEG2000"),
     (".jfif", "JPEG"), (".TGA", "TGA"), (".qoi", "QOI"), ("", "PNG")],
)  # fmt: skip
def test_every_ending_that_pillow_knows_is_read(ending: str, form: str, tmp_path: Path) -> None:
    write_splits(tmp_path, "cat", "dog")
    for split in SPLITS:
        for index in range(4):
            write(tmp_path / "t" / split / "bird" / f"{index}{ending}", picture(form))
    task = load(tmp_path)
    assert task.classes == ("bird", "cat", "dog")
    assert len(task.splits["train"]) == 12


def test_images_at_any_depth_below_the_class(tmp_path: Path) -> None:
    write_splits(tmp_path, "n01", "n02")
    for split in SPLITS:
        write(tmp_path / "t" / split / "n03" / "images" / "0.JPEG", picture("JPEG"))
        write(tmp_path / "t" / split / "n03" / "n03_boxes.txt", b"0 0 1 1")
    task = load(tmp_path)
    assert task.classes == ("n01", "n02", "n03")
    assert "train: left out 1 files (1 .txt)" in task.summary()


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    train = tmp_path / "t" / "train"
    for index in range(3):
        write(train / "a" / f"{index}.heic", b"something")
    write(train / "b" / "notes", b"read me")
    write(train / "stray.png")
    write(train / ".hidden.png", b"")
    (train / "empty").mkdir()
    summary = load(tmp_path).summary()
    assert "train: left out 4 files (3 .heic, 1 no ending)" in summary
    assert "left out 1 files outside the classes (1 .png)" in summary
    assert "left out 1 empty class folders (empty)" in summary


def test_what_is_no_split_is_named(tmp_path: Path) -> None:
    """A second training file, or folder, was passed over without a word."""
    write_splits(tmp_path, "cat", "dog")
    write(tmp_path / "t" / "extra" / "cat" / "0.png")
    assert "left out 1 beside its splits (extra)" in load(tmp_path).summary()
    for name in (*SPLITS, "train_2", "train-extra"):
        images = [picture() for _ in range(4)]
        write_table(tmp_path / "p" / f"{name}.parquet", images, [0, 1, 0, 1])
    said = load(tmp_path, source="parquet", path="p").summary()
    assert "left out 2 beside its splits (train-extra, train_2)" in said


def test_class_of_unread_files_only_is_refused(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    write(tmp_path / "t" / "train" / "c" / "0.heic", b"something")
    assert "train/c can be read as an image, its 1 files are 1 .heic" in refused(tmp_path)


def test_split_without_classes_says_where_images_are_looked_for(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    write(tmp_path / "flat" / "train" / "0.png")
    for split in ("validation", "test"):
        (tmp_path / "t" / split).rename(tmp_path / "flat" / split)
    message = refused(tmp_path, path="flat")
    assert "images lie in" in message
    assert "train/CLASS/" in message
    assert "found 1 .png" in message


@pytest.mark.parametrize("fault", ["no bytes", "link to nothing"])
def test_empty_file_is_found_before_anything_is_decoded(fault: str, tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    file = tmp_path / "t" / "test" / "b" / "2.png"
    file.unlink()
    file.symlink_to("absent.png") if fault == "link to nothing" else file.write_bytes(b"")
    message = refused(tmp_path)
    assert f"{file} is empty or leads nowhere (1 such of 8 images)" in message


def test_same_images_in_two_formats_are_refused(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    for index in range(4):
        for name in "ab":
            write(tmp_path / "t" / "train" / name / f"{index}.jpg", picture("JPEG"))
    assert "of all classes" in refused(tmp_path)
    assert "are there twice, as .jpg and as .png" in refused(tmp_path)


def test_one_class_in_two_formats_is_refused(tmp_path: Path) -> None:
    """A conversion that was stopped half-way doubled a class."""
    write_splits(tmp_path, "a", "b")
    for index in range(4):
        write(tmp_path / "t" / "train" / "a" / f"{index}.jpg", picture("JPEG"))
    said = refused(tmp_path)
    assert "the images of the class 'a' below" in said
    assert "are there twice, as .jpg and as .png" in said


def test_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    (tmp_path / "t" / "train" / "a" / "again").symlink_to(tmp_path / "t" / "train" / "a")
    assert len(load(tmp_path).splits["train"]) == 8


def test_class_folders_without_splits_are_divided(tmp_path: Path) -> None:
    for name, count in {"oak": 40, "elm": 20, "yew": 3}.items():
        for index in range(count):
            write(tmp_path / "t" / name / f"{index:02}.jpg", picture("PNG"))
    task = load(tmp_path)
    assert task.classes == ("elm", "oak", "yew")
    counts = {name: split.labels.bincount().tolist() for name, split in task.splits.items()}
    assert counts == {"train": [16, 32, 1], "validation": [2, 4, 1], "test": [2, 4, 1]}
    assert "validation and test drawn from the images, which have no splits" in task.summary()
    images = [image.numpy().tobytes() for split in task.splits.values() for image in split.images]
    assert len(set(images)) == 63
    assert load(tmp_path).fingerprint() == task.fingerprint()
    held = load(tmp_path, validation=None, validation_fraction=0.5, test=None)
    assert [len(split) for split in held.splits.values()] == [31, 32]
    assert "'training' is missing" in refused(tmp_path, train="training")


def test_class_folders_without_splits_may_be_deep(tmp_path: Path) -> None:
    for name in ("oak", "elm"):
        for index in range(10):
            write(tmp_path / "t" / name / "2019" / f"{index}.jpg")
    assert load(tmp_path).classes == ("elm", "oak")


def test_folders_named_as_splits_are_no_classes(tmp_path: Path) -> None:
    for name in ("training", "testing"):
        write(tmp_path / "t" / name / "0.png")
    message = refused(tmp_path)
    assert "split 'train' is missing" in message
    assert f"for a dataset without splits, have two folders or more in {tmp_path / 't'}" in message


@pytest.mark.parametrize(
    ("path", "files"),
    [
        (None, ["all.parquet"]),
        ("t/train.parquet", ["train.parquet"]),
        (None, ["all-0-of-2.parquet", "all-1-of-2.parquet"]),
    ],
    ids=["the only one", "the path", "shards"],
)
def test_single_parquet_is_divided(path: str | None, files: list[str], tmp_path: Path) -> None:
    for file in files:
        write_rows(tmp_path / "t" / file, 40 // len(files))
    task = load(tmp_path, source="parquet", path=path)
    assert [len(split) for split in task.splits.values()] == [32, 4, 4]
    assert "drawn" in task.summary()


@pytest.mark.parametrize("name", ["train", "valid", "Training", "cifar10_test"])
def test_lone_split_is_not_taken_for_the_whole(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "t" / f"{name}.parquet")
    message = refused(tmp_path, source="parquet")
    assert "is missing" in message
    assert f"found {name}.parquet" in message


def test_one_shard_of_several_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    write_rows(tmp_path / "t" / "all-1-of-2.parquet")
    message = refused(tmp_path, source="parquet", path="t/all-1-of-2.parquet")
    assert "of 2 shards in" in message


def test_folders_named_after_splits_are_no_classes(tmp_path: Path) -> None:
    for name in ("train2017", "val2017"):
        for index in range(4):
            write(tmp_path / "t" / name / f"{index}.png")
    assert "found train2017, val2017" in refused(tmp_path)
    for index in range(4):
        write(tmp_path / "u" / "freight train" / f"{index}.png")
        write(tmp_path / "u" / "bus" / f"{index}.png")
    assert load(tmp_path, path="u").classes == ("bus", "freight train")


def test_what_systems_put_among_images_is_passed_over(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    for place in ("a/@eaDir/0.png", "__MACOSX/a", "#recycle"):
        write(tmp_path / "t" / "train" / place / "1.png")
    task = load(tmp_path)
    assert (task.classes, len(task.splits["train"])) == (("a", "b"), 8)


def test_folder_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    write(tmp_path / "t" / "train" / os.fsdecode(b"caf\xe9") / "0.png")
    assert r"caf\udce9' is no text in UTF-8" in refused(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train-00000-of-00003", "train-00002-of-00003"], "1 are missing, the first is number 1"),
        (["train-00000-of-00001", "train"], "are the same split twice"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "split twice"),
        (["train-00000-of-00001-0a1b", "train-00000-of-00001-ffff"], "are the same shard twice"),
        (["data/train-00000-of-00001", "train"], "are the same split twice"),
        (["train-00001-of-00001", "train-00000-of-00001"], "counts beyond its own 1 shards"),
    ],
)
@pytest.mark.parametrize("source", ["parquet", "hub"])
def test_shards_must_be_all_there_and_once(
    source: str, files: list[str], message: str, tmp_path: Path
) -> None:
    for name in (*files, "validation", "test"):
        write_rows(tmp_path / "t" / f"{name}.parquet", 8)
    assert message in refused(tmp_path, source=source)


def test_shards_that_declare_other_classes_are_refused(tmp_path: Path) -> None:
    for index, names in enumerate([("cat", "dog"), ("dog", "cat")]):
        file = tmp_path / "t" / f"train-0000{index}-of-00002.parquet"
        write_table(file, [picture(), picture()], pa.array([0, 1]), names)
    write_rows(tmp_path / "t" / "validation.parquet")
    message = refused(tmp_path, source="parquet", test=None)
    assert "declares other classes than" in message


def test_split_that_is_another_one_is_refused(tmp_path: Path) -> None:
    images, labels = pictures("train")
    for split in ("train", "validation"):
        write_table(tmp_path / "t" / f"{split}.parquet", [encode(x) for x in images], labels)
    with pytest.raises(DataError, match="all 6 validation images are train images, too"):
        load(tmp_path, source="parquet", test=None)


def test_images_in_two_splits_and_missing_classes_are_said(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b", "c")
    again = (tmp_path / "t" / "train" / "a" / "0.png").read_bytes()
    write(tmp_path / "t" / "test" / "a" / "0.png", again)
    for index in range(4):
        (tmp_path / "t" / "validation" / "c" / f"{index}.png").unlink()
    summary = load(tmp_path).summary()
    assert "1 of 12 test images are train images, too" in summary
    assert "validation has no image of 1 of the classes (c)" in summary


@pytest.mark.parametrize("more", [0, 1])
def test_whole_set_twice_is_refused_and_copies_are_said(more: int, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        images = [picture() for _ in range(6)] * (2 if split == "train" else 1)
        images += [picture() for _ in range(more)]
        labels = pa.array([index % 2 for index in range(len(images))])
        write_table(tmp_path / "t" / f"{split}.parquet", images, labels)
    if more:
        summary = load(tmp_path, source="parquet", test=None).summary()
        assert "6 of 13 train images are copies of others there" in summary
    else:
        with pytest.raises(DataError, match="each of 6 images is there twice"):
            load(tmp_path, source="parquet", test=None)


@pytest.mark.parametrize("depth", ["classes", "images"])
@pytest.mark.parametrize("splits", [True, False])
def test_folder_copied_into_itself_is_refused(splits: bool, depth: str, tmp_path: Path) -> None:
    """It was a class more, named as the folder, of all the images of the others."""
    if splits:
        write_splits(tmp_path, "a", "b")
    top = tmp_path / "t" / "train" if splits else tmp_path / "t"
    for name in "ab":
        for index in range(4, 12):
            write(top / name / f"{index}.png")
    shutil.copytree(top, tmp_path / "copy")
    if depth == "classes":
        shutil.move(tmp_path / "copy", top / "leaves")
        assert "leaves is among the classes and holds folders of their names" in refused(tmp_path)
        return
    for file in (tmp_path / "copy").glob("*/*"):
        write(top / "leaves" / f"{file.parent.name}{file.name}", file.read_bytes())
    with pytest.raises(DataError, match=r"images of the class '(a|b|leaves)' are there under"):
        load(tmp_path)


def test_files_doubled_under_other_names_are_refused(tmp_path: Path) -> None:
    for index in range(24):
        content = picture()
        for copy in ("", " (1)"):
            write(tmp_path / "t" / "ab"[index % 2] / f"{index}{copy}.png", content)
    with pytest.raises(DataError, match=r"is there twice|images are train images, too"):
        load(tmp_path)


def test_damaged_npz_is_named(tmp_path: Path) -> None:
    images = RNG.integers(0, 4, (60, SIZE, SIZE)).astype(np.uint8)
    arrays = {f"{split}_images": images for split in SPLITS}
    labels = {f"{split}_labels": np.arange(60) % 2 for split in SPLITS}
    file = tmp_path / "t.npz"
    np.savez_compressed(file, **arrays, **labels)
    content = bytearray(file.read_bytes())
    for place in range(150, 400, 10):
        content[place] ^= 255
    file.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"t\.npz cannot be read"):
        load(tmp_path, source="npz")


def test_npz_with_a_split_under_both_its_names_is_refused(tmp_path: Path) -> None:
    arrays = {}
    for name in ("train", "val", "validation"):
        arrays |= {f"{name}_images": np.zeros((2, SIZE, SIZE)), f"{name}_labels": [0, 1]}
    np.savez(tmp_path / "t.npz", **arrays)
    assert "has the validation split twice" in refused(tmp_path, source="npz", test=None)


def test_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_splits(tmp_path, "a", "b")

    def deny(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", deny)
    assert "its files cannot be read: [Errno 13] Permission denied" in refused(tmp_path)
