"""Images in parquet files and from the Hub."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.helpers.sources import (
    NAMES,
    SPLITS,
    config_of,
    encode,
    load,
    make_hub,
    make_parquet,
    pictures,
    refused,
    structs,
    write_table,
)
from trainers.data import TaskConfig, check_tasks, load_task
from trainers.data.sources import DataError


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_accepts_raw_bytes(kind: pa.DataType, tmp_path: Path) -> None:
    for split in SPLITS:
        images, labels = pictures(split)
        column = pa.array([encode(image) for image in images], kind)
        write_table(tmp_path / "animals" / f"{split}.parquet", column, labels)
    task = load(TaskConfig(name="animals"), tmp_path)
    assert torch.equal(
        task.splits["train"].images.permute(0, 2, 3, 1), torch.from_numpy(pictures("train")[0])
    )
    assert task.classes == ("0", "1")


def test_parquet_reads_shards_in_order_and_images_by_path(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    folder = tmp_path / "animals"
    (folder / "train.parquet").unlink()
    images, labels = pictures("train")
    for shard, rows in enumerate((slice(0, 2), slice(2, 6))):
        values = structs(images[rows])
        if shard == 1:
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data" / "first.png").write_bytes(encode(images[2]))
            values[0] = {"bytes": None, "path": "first.png"}
        file = folder / "data" / f"train-0000{shard}-of-00002.parquet"
        write_table(file, values, labels[rows], NAMES)
    task = load(TaskConfig(name="animals"), tmp_path)
    assert torch.equal(task.splits["train"].images.permute(0, 2, 3, 1), torch.from_numpy(images))


def test_parquet_without_class_names_numbers_the_distinct_labels(tmp_path: Path) -> None:
    for split in SPLITS:
        images, labels = pictures(split)
        file = tmp_path / "animals" / f"{split}.parquet"
        write_table(file, structs(images), np.where(labels == 0, 30, 7))
    task = load(TaskConfig(name="animals"), tmp_path)
    assert task.classes == ("7", "30")
    assert task.splits["train"].labels.tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("dictionary", [False, True])
def test_parquet_labels_may_be_strings(dictionary: bool, tmp_path: Path) -> None:
    for split in SPLITS:
        images, labels = pictures(split)
        column = pa.array([("zebra", "ape")[label] for label in labels])
        column = column.dictionary_encode() if dictionary else column
        write_table(tmp_path / "animals" / f"{split}.parquet", structs(images), column)
    task = load(TaskConfig(name="animals"), tmp_path)
    assert task.classes == ("ape", "zebra")
    assert task.splits["test"].labels.tolist() == [1, 0, 1]


def test_parquet_missing_column_lists_the_columns_found(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    message = refused(TaskConfig(name="animals", label_column="labels"), tmp_path)
    assert "no column 'labels'; did you mean 'label'?" in message
    assert "'image', 'label'" in message
    assert "'picture'" in refused(TaskConfig(name="animals", image_column="picture"), tmp_path)


def test_parquet_columns_of_another_type_are_refused(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    swapped = TaskConfig(name="animals", image_column="label", label_column="image")
    assert "is int64; set image_column" in refused(swapped, tmp_path)
    both = TaskConfig(name="animals", image_column="image", label_column="image")
    assert "labels must be integers or strings" in refused(both, tmp_path)


def test_parquet_row_without_a_label_is_named(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    images, _ = pictures("test")
    write_table(tmp_path / "animals" / "test.parquet", structs(images), [0, 1, None], NAMES)
    assert "test.parquet, row 2 has no label" in refused(TaskConfig(name="animals"), tmp_path)


def test_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    (tmp_path / "animals" / "test.parquet").write_bytes(b"PAR1 but not really")
    message = refused(TaskConfig(name="animals"), tmp_path)
    assert "test.parquet cannot be read as parquet" in message


@pytest.mark.parametrize(
    "value",
    [
        {"bytes": b"GIF89a?", "path": None},
        {"bytes": encode(pictures("test")[0][0])[:-30], "path": None},
        {"bytes": encode(pictures("test")[0][0], "EPS"), "path": None},
        {"bytes": None, "path": "absent.png"},
        {"bytes": None, "path": None},
        None,
    ],
    ids=["no image", "truncated", "PostScript", "no such file", "neither", "null"],
)
def test_undecodable_image_names_file_and_row(value: object, tmp_path: Path) -> None:
    task = make_parquet(tmp_path)
    images, labels = pictures("test")
    column = [*structs(images[:2]), value]
    write_table(tmp_path / "animals" / "test.parquet", column, labels, NAMES)
    check_tasks(config_of(task, tmp_path))  # cheap: it decodes nothing
    with pytest.raises(DataError, match=r"'animals': .*test\.parquet, row 2 cannot be decoded"):
        load_task(task, config_of(task, tmp_path))


def test_hub_split_may_be_a_slice(tmp_path: Path) -> None:
    make_hub(tmp_path)
    task = TaskConfig(
        name="animals",
        source="hub",
        path="owner/animals",
        train="train[:4]",
        validation="train[4:]",
        test=None,
    )
    splits = load(task, tmp_path).splits
    images, labels = pictures("train")
    for name, rows in {"train": slice(0, 4), "validation": slice(4, 6)}.items():
        expected = torch.from_numpy(images[rows])
        assert torch.equal(splits[name].images.permute(0, 2, 3, 1), expected)
        assert splits[name].labels.tolist() == labels[rows].tolist()


def test_hub_subset_and_column_names(tmp_path: Path) -> None:
    top = tmp_path / "owner" / "animals"
    for split in SPLITS:
        images, labels = pictures(split)
        file = top / "wild" / f"{split}-00000-of-00001.parquet"
        write_table(file, structs(images), labels, NAMES, columns=("img", "fine_label"))
    files = [{"split": split, "path": f"wild/{split}-*"} for split in SPLITS]
    card = {"configs": [{"config_name": "wild", "data_files": files}]}
    (top / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")

    def ask(**changes: str) -> TaskConfig:
        fields = {"subset": "wild", "image_column": "img", "label_column": "fine_label"}
        return TaskConfig(name="animals", source="hub", path="owner/animals", **fields | changes)

    assert load(ask(), tmp_path).classes == NAMES
    assert "'img', 'fine_label'" in refused(ask(label_column="label"), tmp_path)
    assert "'tame'" in refused(ask(subset="tame"), tmp_path)


def test_hub_path_that_is_neither_id_nor_folder_is_refused_by_the_check(tmp_path: Path) -> None:
    for path in ("a/b/c", str(tmp_path / "absent")):
        task = TaskConfig(name="animals", source="hub", path=path)
        with pytest.raises(DataError, match="must be a dataset id"):
            check_tasks(config_of(task, tmp_path))


def test_hub_dataset_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    task = TaskConfig(name="animals", source="hub", path="nobody/nothing-of-the-kind")
    assert "could not be loaded" in refused(task, tmp_path)
