"""Labels of which the splits disagree in type, or which only look alike."""

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.sources import NAMES, SIZE, encode
from trainers.data import DataConfig, Task, TaskConfig, check_tasks, load_task
from trainers.data.sources import DataError

RNG = np.random.default_rng(0)


def write(
    top: Path,
    split: str,
    labels: pa.Array | Sequence[object],
    names: Sequence[str] = (),
    image_type: pa.DataType | None = None,
) -> None:
    """A split of so many different images."""
    labels = labels if isinstance(labels, pa.Array) else pa.array(labels)
    images = [encode(RNG.integers(0, 256, (SIZE, SIZE)).astype(np.uint8)) for _ in labels]
    table = pa.table({"image": pa.array(images, image_type or pa.binary()), "label": labels})
    if names:
        feature = {"names": list(names), "_type": "ClassLabel"}
        info = {"info": {"features": {"label": feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    (top / "t").mkdir(exist_ok=True)
    pq.write_table(table, top / "t" / f"{split}.parquet")


def load(top: Path) -> Task:
    task = TaskConfig(name="t", test=None)
    config = DataConfig(tasks=(task,), root=str(top), input_size=SIZE)
    check_tasks(config)
    return load_task(task, config)


def refused(top: Path) -> str:
    task = TaskConfig(name="t", test=None)
    with pytest.raises(DataError, match="task 't'") as error:
        check_tasks(DataConfig(tasks=(task,), root=str(top), input_size=SIZE))
    return str(error.value)


@pytest.mark.parametrize(
    ("train", "validation", "classes"),
    [
        ([0, 1, 10], ["0", "10", "1"], ("0", "1", "10")),
        (["0", "1", "10"], [0, 10, 1], ("0", "1", "10")),
        (["00", "01", "10"], [0, 10, 1], ("0", "1", "10")),
        ([0.0, 1.0, 10.0], [0, 10, 1], ("0", "1", "10")),
        ([b"0", b"1", b"10"], ["0", "10", "1"], ("0", "1", "10")),
    ],
)
def test_numbers_and_their_text_are_one(
    train: list[object], validation: list[object], classes: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, "train", train)
    write(tmp_path, "validation", validation)
    task = load(tmp_path)
    assert task.classes == classes
    assert task.splits["validation"].labels.tolist() == [0, 2, 1]


def test_names_and_the_numbers_declared_for_them_are_one(tmp_path: Path) -> None:
    write(tmp_path, "train", [1, 0, 1], names=NAMES)
    write(tmp_path, "validation", ["cat", "bird"])
    assert load(tmp_path).splits["validation"].labels.tolist() == [1, 0]
    write(tmp_path, "train", ["cat", "bird"])
    write(tmp_path, "validation", [1, 0, 1], names=NAMES)
    task = load(tmp_path)
    assert task.classes == NAMES
    assert task.splits["validation"].labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("text_first", [True, False])
def test_text_that_is_no_number_is_refused_with_what_was_found_where(
    text_first: bool, tmp_path: Path
) -> None:
    splits = ("train", "validation") if text_first else ("validation", "train")
    write(tmp_path, splits[0], ["cat", "dog"])
    write(tmp_path, splits[1], [0, 1])
    message = refused(tmp_path)
    here, there = ("whole numbers", "text") if text_first else ("text", "whole numbers")
    assert "validation.parquet: the classes must be" in message
    assert f"{here} here and {there} in {tmp_path / 't' / 'train.parquet'}" in message


def test_text_in_one_shard_and_numbers_in_another(tmp_path: Path) -> None:
    write(tmp_path, "validation", [0, 1])
    write(tmp_path, "train-00000-of-00002", [0, 1])
    write(tmp_path, "train-00001-of-00002", ["0", "1"])
    message = refused(tmp_path)
    assert "labels are text in" in message
    assert "00001-of-00002.parquet and whole numbers in" in message


def composed(form: str) -> list[str]:
    return [unicodedata.normalize(form, name) for name in ("café", "thé")]


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    write(tmp_path, "train", composed("NFC"))
    write(tmp_path, "validation", composed("NFD"))
    task = load(tmp_path)
    assert task.classes == ("café", "thé")
    assert task.splits["validation"].labels.tolist() == [0, 1]


def test_names_that_differ_in_blanks_are_one_and_it_is_said(tmp_path: Path) -> None:
    write(tmp_path, "train", ["cat", "cat ", "dog"])
    write(tmp_path, "validation", ["cat", "dog\t"])
    task = load(tmp_path)
    assert task.classes == ("cat", "dog")
    assert "'cat' is written in several ways" in task.summary()


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (["cat", "Cat", "dog"], ["cat", "dog"]),
        (["Cat", "dog"], ["cat", "dog"]),
        (["cat", "dog"], ["cat", "dog", "ca\u200bt"]),
        (["cat", "dog"], ["\uff43\uff41\uff54", "dog"]),
        (["big cat", "dog"], ["big\u00a0cat", "dog"]),
        (["cat", "\u0441\u0430t", "dog"], ["cat", "dog"]),
        (["bird's", "bird\u2019s"], ["bird's"]),
        (["t-shirt", "t\u2013shirt"], ["t-shirt"]),
        (["\u2615", "\u2615\ufe0f"], ["\u2615"]),
        (["cat", "ca\x01t"], ["cat"]),
        (["cat", "cat\u3164"], ["cat"]),
        (["van", "\u03bdan"], ["van"]),
        (["cat", "c\u03b1t"], ["cat"]),
        (["kit", "\u043a\u0456\u0442"], ["kit"]),
        (["bird", "b\u0131rd"], ["bird"]),
        (["dog", "d\u0585\u0261"], ["dog"]),
        (["bird's", "bird\u2032s"], ["bird's"]),
        (['a "b"', "a \u201cb\u201d"], ['a "b"']),
        (["NO", "\u039d\u039f"], ["NO"]),
        (["AE1", "\u13aa\u13ac1"], ["AE1"]),
    ],
    ids=[
        "case",
        "case of another split",
        "zero-width",
        "full-width",
        "no-break",
        "cyrillic",
        "quote",
        "dash",
        "variation selector",
        "control",
        "filler",
        "greek",
        "greek inside",
        "cyrillic alone",
        "dotless",
        "armenian",
        "prime",
        "double quotes",
        "greek capitals",
        "cherokee",
    ],
)
def test_names_that_look_alike_and_are_not_are_refused(
    train: list[str], validation: list[str], tmp_path: Path
) -> None:
    write(tmp_path, "train", train)
    write(tmp_path, "validation", validation)
    message = refused(tmp_path)
    assert "looks like" in message
    assert "train.parquet" in message


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["Iris", "lris"], "the classes 'Iris', 'lris' look alike: are they one?"),
        (["A1", "AI", "A|", "Al"], "the classes 'A1', 'AI', 'Al', 'A|' look alike"),
        (["O1", "01"], "the classes '01', 'O1' look alike"),
        (["A", "\u13aa"], "the classes 'A', '\\u13aa' look alike"),
        (["A", "\u0410"], "the classes 'A', '\\u0410' look alike"),
        (["\u0441at", "dog"], "letters of several alphabets in a word of '\\u0441at'"),
    ],
)
def test_names_that_may_be_one_are_told(names: list[str], told: str, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path, split, names)
    task = load(tmp_path)
    assert set(task.classes) == set(names)
    assert told in task.summary()


@pytest.mark.parametrize(
    "names",
    [[*"0Oo1Il|aAbB"], ["Iris", "iris2", "rose"], ["caf\u00e9", "\u4eca T\u30b7\u30e3\u30c4"],
     ["\u03b2 actin", "\u0431\u0456\u043b\u044c", "10", "11", "00", "01"]],
)  # fmt: skip
def test_other_names_are_not_told(names: list[str], tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path, split, names)
    assert not any(
        "alike" in note or "alphabets" in note for note in load(tmp_path).understood.notes
    )


def test_blanks_in_one_split_alone_are_said(tmp_path: Path) -> None:
    write(tmp_path, "train", ["cat ", "dog"])
    write(tmp_path, "validation", ["cat", "dog"])
    task = load(tmp_path)
    assert task.classes == ("cat", "dog")
    assert "class 'cat' is written in several ways, which were taken for one: 'cat', 'cat '" in (
        task.summary()
    )


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", ["a\0", "a\0b"])
def test_nul_is_refused_before_it_is_lost(name: str, split: str, tmp_path: Path) -> None:
    write(tmp_path, "train", ["a", "b", "c"])
    write(tmp_path, "validation", ["a", "b", "c"])
    write(tmp_path, split, ["a", name, "b"])
    assert f"row 1 has the label {name!a}, whose character NUL nobody sees" in refused(tmp_path)


def test_nul_that_fills_up_a_label_is_none_of_it(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path, split, pa.array([b"ab", b"c\0"], pa.binary(2)))
    assert load(tmp_path).classes == ("ab", "c")


@pytest.mark.parametrize(
    "text", ["None", "NULL", "null", "NA", "N/A", "n/a", "#N/A", "-nan", " None", "\u200b"]
)
def test_text_for_what_is_missing_is_no_class(text: str, tmp_path: Path) -> None:
    write(tmp_path, "train", ["a", text, "b", text])
    write(tmp_path, "validation", ["a", "b"])
    message = refused(tmp_path)
    shown = "empty" if text == "\u200b" else text.strip()
    assert f"row 1 has no label, its text is {shown} (2 such rows)" in message
    assert "if that is the name of a class, rename the class" in message


def test_missing_as_a_name_that_is_declared_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "train", [0, 1, 1], names=["None", "cat"])
    write(tmp_path, "validation", ["cat", "None"])
    assert load(tmp_path).classes == ("None", "cat")


def test_names_that_only_sound_like_missing_are_classes(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path, split, ["none", "na", "nano", "no"])
    assert load(tmp_path).classes == ("na", "nano", "no", "none")


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0, -(2**63), 1], pa.int64()),
        pa.array([0, -(2**31), 1], pa.int32()),
        pa.array([0, 2**63, 1], pa.uint64()),
        pa.array([0.0, -(2.0**31), 1.0]),
        pa.array(["0", str(-(2**63)), "1"]),
    ],
)
def test_what_nan_becomes_is_no_class(labels: pa.Array, tmp_path: Path) -> None:
    write(tmp_path, "train", labels)
    write(tmp_path, "validation", labels)
    assert re.search("row 1 has -?[0-9]{10,}, which is what NaN becomes", refused(tmp_path))


def test_minus_one_as_text_is_no_class(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path, split, ["0", "-1", "1"])
    assert "labels must be 0 or more, row 1 has -1 (1 such rows)" in (message := refused(tmp_path))
    assert "if that is a class, rename it" in message


def test_letters_are_classes_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path, split, ["a", "A", "b"])
    assert load(tmp_path).classes == ("A", "a", "b")


def test_hashes_of_64_bits(tmp_path: Path) -> None:
    large = 2**63 + 1
    write(tmp_path, "train", pa.array([large, 5, large], pa.uint64()))
    write(tmp_path, "validation", pa.array([5, large], pa.uint64()))
    task = load(tmp_path)
    assert task.classes == ("5", str(large))
    assert task.splits["validation"].labels.tolist() == [0, 1]
    write(tmp_path, "validation", pa.array([5, 5], pa.int64()))
    assert load(tmp_path).splits["validation"].labels.tolist() == [0, 0]
    write(tmp_path, "train", [-(2**62), 5])
    write(tmp_path, "validation", [5, -(2**62)])
    assert load(tmp_path).splits["validation"].labels.tolist() == [1, 0]


def test_npz_hashes_do_not_become_negative(tmp_path: Path) -> None:
    labels = np.array([2**63 + 1, 5], np.uint64)
    images = RNG.integers(0, 256, (4, SIZE, SIZE)).astype(np.uint8)
    np.savez(tmp_path / "t.npz", train_images=images[:2], train_labels=labels,
             val_images=images[2:], val_labels=labels)  # fmt: skip
    task = TaskConfig(name="t", source="npz", test=None)
    loaded = load_task(task, DataConfig(tasks=(task,), root=str(tmp_path), input_size=SIZE))
    assert loaded.classes == ("5", str(2**63 + 1))


@pytest.mark.parametrize(
    "stored", ["[1]", '{"info": null}', '{"info": {"features": {"label": 3}}}']
)
def test_names_that_are_not_kept_as_the_hub_does_are_not_there(stored: str, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path, split, [0, 1])
        file = tmp_path / "t" / f"{split}.parquet"
        table = pq.read_table(file).replace_schema_metadata({"huggingface": stored})
        pq.write_table(table, file)
    assert load(tmp_path).classes == ("0", "1")


def test_text_of_more_digits_than_a_number_has(tmp_path: Path) -> None:
    write(tmp_path, "train", [0, 1])
    write(tmp_path, "validation", ["0", "9" * 5000])
    assert "text here and whole numbers in" in refused(tmp_path)


TEXT = pa.array(["b", "a", "b"])
TYPES = {
    "string_view": TEXT.cast(pa.string_view()),
    "large_string": TEXT.cast(pa.large_string()),
    "dictionary": TEXT.dictionary_encode(),
    "dictionary of large strings": TEXT.cast(pa.large_string()).dictionary_encode(),
    "binary": TEXT.cast(pa.binary()),
    "binary_view": TEXT.cast(pa.binary()).cast(pa.binary_view()),
}


@pytest.mark.parametrize("name", TYPES)
def test_text_of_every_arrow_type(name: str, tmp_path: Path) -> None:
    write(tmp_path, "train", TYPES[name])
    write(tmp_path, "validation", TEXT)
    task = load(tmp_path)
    assert task.classes == ("a", "b")
    assert task.splits["train"].labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("kind", [pa.binary_view(), pa.large_binary()], ids=str)
def test_images_of_every_arrow_type_even_of_two(kind: pa.DataType, tmp_path: Path) -> None:
    write(tmp_path, "train-00000-of-00002", [0, 1], image_type=kind)
    write(tmp_path, "train-00001-of-00002", [1, 0])
    write(tmp_path, "validation", [0, 1], image_type=kind)
    assert load(tmp_path).splits["train"].labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0], "row 0 has 0.5"),
        ([1.0, float("nan")], "row 1 has no label"),
        (["a", None], "row 1 has no label"),
        (["a", " "], "row 1 has no label, its text is empty"),
        (["a", "nan"], "row 1 has no label, its text is nan"),
        (pa.nulls(2), "row 0 has no label"),
        ([[1], [2]], "labels must be integers or strings"),
    ],
)
def test_what_is_no_label_is_named(labels: pa.Array | list[object], message: str,
                                   tmp_path: Path) -> None:  # fmt: skip
    write(tmp_path, "train", labels)
    write(tmp_path, "validation", [0, 1])
    refusal = refused(tmp_path)
    assert message in refusal
    assert "train.parquet" in refusal
