"""Datasets of small image files, and of parquet files, for the task "t", loaded and refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.sources import SIZE, SPLITS, encode, write_table
from trainers.data import DataConfig, Task, TaskConfig, check_tasks, load_task
from trainers.data.sources import DataError

RNG = np.random.default_rng(0)


def picture(form: str = "PNG") -> bytes:
    return encode(RNG.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8), form)


def write(file: Path, content: bytes | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture() if content is None else content)


def config_of(top: Path, fields: dict[str, object]) -> DataConfig:
    task = TaskConfig(**{"name": "t", "source": "folder"} | fields)
    return DataConfig(tasks=(task,), root=str(top), input_size=SIZE)


def load(top: Path, **fields: object) -> Task:
    config = config_of(top, fields)
    check_tasks(config)
    return load_task(config.tasks[0], config)


def refused(top: Path, **fields: object) -> str:
    """The message with which the check refuses, before anything is decoded."""
    config = config_of(top, fields)
    with pytest.raises(DataError, match="task 't'") as error:
        check_tasks(config)
    return str(error.value)


def write_splits(top: Path, *classes: str, count: int = 4, ending: str = ".png") -> None:
    for split in SPLITS:
        for name in classes:
            for index in range(count):
                write(top / "t" / split / name / f"{index}{ending}")


def write_rows(file: Path, rows: int = 30, first: int = 0) -> None:
    labels = [(first + row) % 2 for row in range(rows)]
    write_table(file, [picture() for _ in labels], pa.array(labels))
