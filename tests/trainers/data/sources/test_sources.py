"""Every source yields the same tensors for the same images, and says what is missing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.sources import MAKERS, NAMES, load, pictures, refused
from trainers.data import TaskConfig
from trainers.data.sources import SOURCES


def test_every_source_is_under_test() -> None:
    assert {*MAKERS, "toy"} == set(SOURCES)


@pytest.mark.parametrize("source", MAKERS)
def test_source_yields_the_images_it_was_given(source: str, tmp_path: Path) -> None:
    task = load(MAKERS[source](tmp_path), tmp_path)
    assert list(task.splits) == ["train", "validation", "test"]
    assert task.classes == (("0", "1") if source == "npz" else NAMES)
    for name, split in task.splits.items():
        images, labels = pictures(name)
        # A folder is read class by class, the others in the order of their rows.
        order = np.argsort(labels, kind="stable") if source == "folder" else slice(None)
        expected = torch.from_numpy(images[order].transpose(0, 3, 1, 2).copy())
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert torch.equal(split.images, expected)
        assert torch.equal(split.labels, torch.from_numpy(labels[order]))


@pytest.mark.parametrize("source", MAKERS)
def test_missing_split_is_refused_and_may_be_declared_absent(source: str, tmp_path: Path) -> None:
    given = MAKERS[source](tmp_path)
    asked = TaskConfig(name=given.name, source=source, path=given.path, test="tset")
    message = refused(asked, tmp_path)
    assert "'tset'" in message
    assert "test" in message.replace("'tset'", "")
    absent = TaskConfig(name=given.name, source=source, path=given.path, test=None)
    assert list(load(absent, tmp_path).splits) == ["train", "validation"]


@pytest.mark.parametrize("source", ["parquet", "folder", "npz"])
def test_missing_dataset_is_refused(source: str, tmp_path: Path) -> None:
    message = refused(TaskConfig(name="absent", source=source), tmp_path)
    assert str(tmp_path / "absent") in message
    assert "does not exist" in message
