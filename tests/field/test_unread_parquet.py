"""Parquet files that vanished in silence, and one shard that was taken for the whole dataset."""

from pathlib import Path

import pytest

from tests.helpers.folders import load, refused, write, write_rows
from tests.helpers.sources import SPLITS


@pytest.mark.parametrize(
    "name",
    ["x-00000-of-00002.parquet", "x_00000_of_00002.parquet", "x-00000-of-00002.snappy.parquet",
     "x-00000-of-00002-0a1b-22cd.parquet", "x.0.of.2.parquet"],
)  # fmt: skip
@pytest.mark.parametrize("folder", [True, False], ids=["folder", "file"])
def test_one_shard_is_not_the_dataset(name: str, folder: bool, tmp_path: Path) -> None:
    write_rows(tmp_path / "t" / name)
    said = refused(tmp_path, source="parquet", path="t" if folder else f"t/{name}")
    assert "of 2 shards in" in said
    assert "1 are missing, the first is number 1" in said


OTHERS = ["TRAIN-2.PARQUET", "train2.pq", "train/part-0.parquet", "extra/train.parquet",
          ".train3.parquet", "deep/er/still.parq"]  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_parquet_beside_the_splits_is_said(other: str, tmp_path: Path) -> None:
    for name in SPLITS:
        write_rows(tmp_path / "t" / f"{name}.parquet", 8)
    write_rows(tmp_path / "t" / other, 8)
    write(tmp_path / "t" / "._train.parquet", b"attributes")
    said = load(tmp_path, source="parquet").summary()
    assert f"left out 1 beside its splits ({other})" in said


@pytest.mark.parametrize("other", OTHERS)
def test_single_parquet_beside_others_is_not_the_whole(other: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "t" / "all.parquet")
    write_rows(tmp_path / "t" / other, 8)
    said = refused(tmp_path, source="parquet")
    assert f"found {', '.join(sorted(['all.parquet', other]))}" in said
    assert "set path to its one file" in said
    assert "drawn" in load(tmp_path, source="parquet", path="t/all.parquet").summary()


def test_folder_linked_into_itself_ends(tmp_path: Path) -> None:
    for name in SPLITS:
        write_rows(tmp_path / "t" / f"{name}.parquet", 8)
    (tmp_path / "t" / "again").symlink_to(tmp_path / "t", target_is_directory=True)
    assert "left out" not in load(tmp_path, source="parquet").summary()
