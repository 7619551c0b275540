"""The same few images from every source, loaded and refused."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainers.data import DataConfig, Task, TaskConfig, check_tasks, load_task
from trainers.data.sources import SOURCES, DataError

SIZE = 8
SPLITS = {"train": 6, "validation": 4, "test": 3}
NAMES = ("bird", "cat")


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, S, S, 3) of noise, and labels 0, 1, 0, 1 ..."""
    rng = np.random.default_rng([SPLITS[split]])
    images = rng.integers(0, 256, (SPLITS[split], SIZE, SIZE, 3)).astype(np.uint8)
    return images, np.arange(SPLITS[split]) % 2


def encode(image: np.ndarray | Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind)
    return buffer.getvalue()


def write_table(
    file: Path,
    images: object,
    labels: object,
    names: tuple[str, ...] | None = None,
    columns: tuple[str, str] = ("image", "label"),
) -> None:
    """A parquet file, with the names of classes as the Hub keeps them."""
    table = pa.table({columns[0]: images, columns[1]: labels})
    if names is not None:
        label = {"names": list(names), "_type": "ClassLabel"}
        features = {columns[0]: {"_type": "Image"}, columns[1]: label}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def structs(images: np.ndarray) -> list[dict[str, object]]:
    """Images as the Hub stores them."""
    return [{"bytes": encode(image), "path": None} for image in images]


def make_parquet(top: Path) -> TaskConfig:
    """The same images as a task of parquet files."""
    for split in SPLITS:
        images, labels = pictures(split)
        write_table(top / "animals" / f"{split}.parquet", structs(images), labels, NAMES)
    return TaskConfig(name="animals", source="parquet")


def make_hub(top: Path) -> TaskConfig:
    """The same images as a dataset of the Hub."""
    for split in SPLITS:
        images, labels = pictures(split)
        file = top / "owner" / "animals" / "data" / f"{split}-00000-of-00001.parquet"
        write_table(file, structs(images), labels, NAMES)
    return TaskConfig(name="animals", source="hub", path="owner/animals")


def make_folder(top: Path) -> TaskConfig:
    """The same images as a folder of folders."""
    for split in SPLITS:
        for index, (image, label) in enumerate(zip(*pictures(split), strict=True)):
            file = top / "animals" / split / NAMES[label] / f"{index:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(image))
    return TaskConfig(name="animals", source="folder")


def make_npz(top: Path) -> TaskConfig:
    """The same images as arrays."""
    arrays = {}
    for split in SPLITS:
        images, labels = pictures(split)
        prefix = {"validation": "val"}.get(split, split)
        arrays |= {f"{prefix}_images": images, f"{prefix}_labels": labels[:, None]}
    top.mkdir(exist_ok=True)
    np.savez(top / "animals.npz", **arrays)
    return TaskConfig(name="animals", source="npz")


MAKERS: dict[str, Callable[[Path], TaskConfig]] = {
    "parquet": make_parquet,
    "hub": make_hub,
    "folder": make_folder,
    "npz": make_npz,
}


def config_of(task: TaskConfig, root: Path) -> DataConfig:
    """The config of that task alone."""
    return DataConfig(tasks=(task,), root=str(root), input_size=SIZE)


def load(task: TaskConfig, root: Path) -> Task:
    """Loads, having made sure that the cheap check agrees."""
    config = config_of(task, root)
    check_tasks(config)
    return load_task(task, config)


def refused(task: TaskConfig, root: Path) -> str:
    """The message with which both the check and the loading refuse a task."""
    config = config_of(task, root)
    with pytest.raises(DataError) as loading:
        load_task(task, config)
    if SOURCES[task.source].probe is None:
        with pytest.raises(DataError) as checking:
            check_tasks(config)
        assert str(checking.value) == str(loading.value)
    assert task.name in str(loading.value)
    return str(loading.value)
