"""Folders that were taken for classes and are something else, and images that are there twice."""

import shutil
from pathlib import Path

import pytest

from tests.helpers.folders import load, picture, refused, write, write_splits
from trainers.data.sources import DataError
from trainers.data.tasks import shown_classes


def write_folders(top: Path, folders: list[str], inner: str = "abc", count: int = 3) -> None:
    for folder in folders:
        for name in inner:
            for index in range(count):
                write(top / folder / name / f"{index}.png")


@pytest.mark.parametrize(
    "folders",
    [["learn", "holdout"], ["fold1", "fold2", "fold3"], ["2019", "2020"], ["part1", "part2"],
     ["v1/images", "v2/images"]],
    ids=" ".join,
)  # fmt: skip
def test_splits_of_other_names_are_not_taken_for_classes(
    folders: list[str], tmp_path: Path
) -> None:
    """Folders that all held a, b and c were two or three classes, without a word."""
    write_folders(tmp_path / "t", folders)
    said = refused(tmp_path)
    assert f"the folders {', '.join(sorted(each.split('/')[0] for each in folders))} of" in said
    assert "all hold the same folders (" in said
    assert "set the task's train, validation and test to the splits' names" in said
    named = {"train": folders[0], "test": folders[-1]}
    task = load(tmp_path, **named, validation=None, validation_fraction=0.3)
    assert task.classes == ("a", "b", "c")


def test_stray_folder_and_other_case_do_not_hide_splits(tmp_path: Path) -> None:
    write_folders(tmp_path / "t", ["fold1", "fold2"])
    write_folders(tmp_path / "t", ["fold3"], "ABD")
    for folder in ("thumbnails", "papers", "logos"):
        write(tmp_path / "t" / folder / "0.png")
    assert "the folders fold1, fold2, fold3 of" in refused(tmp_path)
    assert "(a, b)" in refused(tmp_path)


@pytest.mark.parametrize("names", ["trainset testset", "traindata valdata testdata"])
@pytest.mark.parametrize("inner", ["abc", ""], ids=["classes", "images"])
def test_train_and_test_in_one_word_are_splits(names: str, inner: str, tmp_path: Path) -> None:
    for folder in names.split():
        for name in inner or ".":
            write(tmp_path / "t" / folder / name / "0.png")
    assert f"found {', '.join(sorted(names.split()))}" in refused(tmp_path)


def test_one_inner_folder_a_class_divides_nothing(tmp_path: Path) -> None:
    """Tiny-ImageNet keeps the images of every class in a folder `images`."""
    write_folders(tmp_path / "t", ["n01", "n02"], ["images"], 10)
    assert load(tmp_path).classes == ("n01", "n02")


def test_classes_of_folders_alike_have_a_way_in(tmp_path: Path) -> None:
    """What the message says to do, where they are classes; a note stays."""
    write_folders(tmp_path / "t", ["oak", "elm"], ["2019", "2020"])
    assert "move them into a folder" in refused(tmp_path)
    write_folders(tmp_path / "u" / "train", ["oak", "elm"], ["2019", "2020"])
    fields = {"path": "u", "test": None, "validation": None, "validation_fraction": 0.3}
    task = load(tmp_path, **fields)
    assert task.classes == ("elm", "oak")
    assert "all of the classes elm, oak hold the same folders (2019, 2020)" in task.summary()


def test_classes_are_named_in_the_tasks_line(tmp_path: Path) -> None:
    write_splits(tmp_path, "oak", "elm")
    assert load(tmp_path).summary().startswith("2 classes (elm, oak), 8 / 8 / 8 images")
    assert shown_classes([str(k) for k in range(5)]) == "0, 1, 2, ..."
    assert shown_classes(["a\nb", "c" * 30]) == rf"a\nb, {'c' * 21}..."


@pytest.mark.parametrize("name", ["validation", "holdout"])
def test_split_among_the_classes_is_refused(name: str, tmp_path: Path) -> None:
    """train/validation/ was a third class where validation was null."""
    write_folders(tmp_path / "t" / "train", ["a", "b"], ["x"])
    write_folders(tmp_path / "t" / "train", [name], "ab")
    fields = {"validation": None, "validation_fraction": 0.3, "test": None}
    said = refused(tmp_path, **fields)
    assert f"train/{name} is among the classes and holds folders of their names itself" in said
    assert f"move it out of {tmp_path / 't' / 'train'}" in said


def test_class_named_as_a_split_is_said(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b", "val2017", "freight train")
    said = load(tmp_path).summary()
    assert "train: named as splits are, and taken for classes: val2017;" in said


@pytest.mark.parametrize("folder", ["a", "a/png"])
def test_half_converted_dataset_is_refused(folder: str, tmp_path: Path) -> None:
    """38 of 40 images were there as .jpg, too, and both were drawn into train and test."""
    for index in range(40):
        place = tmp_path / "t" / ("b" if index % 2 else folder)
        write(place / f"i{index}.png")
        if index < 38:
            label = place if place.name == "b" else tmp_path / "t" / "a"
            write(label / f"i{index}.jpg", picture("JPEG"))
    said = refused(tmp_path)
    assert "38 of 40 names of images are there in two formats or more" in said
    assert "/t/a/i0.jpg and " in said
    assert said.count(".jpg") == 2
    assert "remove one of each two" in said


@pytest.mark.parametrize("copy", ["X{}.GIF", "x{}.png.gif"])
def test_conversion_under_a_name_alike_is_refused(copy: str, tmp_path: Path) -> None:
    write_splits(tmp_path, "b")
    for index in range(6):
        write(tmp_path / "t" / "train" / "a" / f"x{index}.png")
        write(tmp_path / "t" / "train" / "a" / copy.format(index), picture("GIF"))
    (tmp_path / "t" / "train" / "a" / copy.format(0)).unlink()
    assert "5 of 10 names of images are there in two formats" in refused(tmp_path)


def test_half_converted_class_is_refused(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b", "c", count=30)
    write_splits(tmp_path, "d", count=4)
    for index in range(3):
        write(tmp_path / "t" / "train" / "d" / f"{index}.jpg", picture("JPEG"))
    assert "3 of 94 names of images are there in two formats" in refused(tmp_path)


def test_few_names_in_two_formats_are_said(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b", count=15)
    for index in (3, 4):
        write(tmp_path / "t" / "train" / "a" / f"{index}.jpg", picture("JPEG"))
    said = load(tmp_path).summary()
    assert "train: 2 of 30 names of images are there in two formats or more (" in said
    assert "a/3.jpg and " in said


def test_numbers_of_two_cameras_are_no_twins(tmp_path: Path) -> None:
    write_splits(tmp_path, "a/left", "b/left", count=8)
    for index in range(5):
        for name in "ab":
            write(tmp_path / "t" / "train" / name / "right" / f"{index}.jpg", picture("JPEG"))
    assert "two formats" not in load(tmp_path).summary()


def test_copies_that_are_drawn_apart_are_said(tmp_path: Path) -> None:
    images = [picture() for _ in range(40)]
    for index, image in enumerate(images + images[:30]):
        write(tmp_path / "t" / "ab"[index % 2] / f"{index}.png", image)
    said = load(tmp_path).summary()
    assert "test images are train images, too, which flatters the accuracy" in said


def test_image_under_two_labels_is_said(tmp_path: Path) -> None:
    """They were copies among others, though one of the two labels must be wrong."""
    write_splits(tmp_path, "a", "b", "c", count=8)
    for index in range(3):
        image = (tmp_path / "t" / "train" / "a" / f"{index}.png").read_bytes()
        write(tmp_path / "t" / ("train", "test", "train")[index] / "b" / f"{index}.png", image)
    said = load(tmp_path).summary()
    assert "3 images stand under two labels or more, of which one at most is right" in said
    assert "('a' and 'b')" in said


@pytest.mark.parametrize("link", ["train/a/up", "train/up", "train/a/deep/up"])
@pytest.mark.parametrize("splits", [True, False])
def test_link_to_what_it_is_in_is_refused(link: str, splits: bool, tmp_path: Path) -> None:
    """train/a/up -> train made all images of b a's, too."""
    write_splits(tmp_path, "a", "b")
    (tmp_path / "t" / "train" / "a" / "deep").mkdir()
    (tmp_path / "t" / link).symlink_to(tmp_path / "t" / "train", target_is_directory=True)
    if not splits:
        shutil.move(tmp_path / "t" / "train", tmp_path / "train")
        shutil.rmtree(tmp_path / "t")
        shutil.move(tmp_path / "train", tmp_path / "t")
        (link_now := tmp_path / "t" / link.removeprefix("train/")).unlink()
        link_now.symlink_to(tmp_path / "t", target_is_directory=True)
    with pytest.raises(DataError, match=r"up leads to .*, which it is in itself.*remove the link"):
        load(tmp_path)


def test_hidden_images_are_counted(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    train = tmp_path / "t" / "train"
    hidden = [".c/0.png", ".c/more/1.JPG", ".0.png", "a/.1.png", "b/.sub/0.png", "__MACOSX_x/a.png"]
    for name in (*hidden, "a/._0.png", "__MACOSX/a/._1.png", ".git/config", ".d/0.txt"):
        write(train / name)
    for name in (".extra/a/0.png", "0.png", "._0.png", ".DS_Store"):
        write(tmp_path / "t" / name)
    task = load(tmp_path)
    assert (task.classes, len(task.splits["train"])) == (("a", "b"), 8)
    said = task.summary()
    assert "train: left out 6 images under hidden names (.0.png, .c, __MACOSX_x, a/.1.png, " in said
    assert "left out 2 beside its splits (.extra, 0.png)" in said
    assert said.count("hidden names") == 1


def test_hidden_classes_of_a_dataset_without_splits_are_counted(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b", ".c", count=5)
    said = load(tmp_path, path="t/train").summary()
    assert "left out 5 images under hidden names (.c)" in said


def test_split_of_hidden_images_only_says_so(tmp_path: Path) -> None:
    write_splits(tmp_path, "a", "b")
    write(tmp_path / "u" / "train" / ".a" / "0.png")
    assert "; left out 1 images under hidden names (.a)" in refused(tmp_path, path="u")
