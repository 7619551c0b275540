"""Tasks in parquet files, written, loaded and refused."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainers.data import DataConfig, Split, Task, TaskConfig, check_tasks, load_task
from trainers.data.sources import DataError

SIZE = 8


def write_task(
    top: Path, name: str = "animals", names: Sequence[str] | None = None, **labels: Sequence[int]
) -> None:
    """A parquet task; the images of each split are plain squares of the gray values 0, 1, 2
    ..., in blue a little more for every split."""
    for number, (split, values) in enumerate(labels.items()):
        images = []
        for index in range(len(values)):
            buffer = io.BytesIO()
            Image.new("RGB", (SIZE, SIZE), (index, index, (index + 40 * number) % 256)).save(
                buffer, "PNG"
            )
            images.append({"bytes": buffer.getvalue(), "path": None})
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({"image": pa.array(images, kind), "label": pa.array(values, pa.int64())})
        if names is not None:
            label = {"names": list(names), "_type": "ClassLabel"}
            info = json.dumps({"info": {"features": {"label": label}}})
            table = table.replace_schema_metadata({"huggingface": info})
        (top / name).mkdir(exist_ok=True)
        pq.write_table(table, top / name / f"{split}.parquet")


def load(top: Path, *, seed: int = 0, **fields: object) -> Task:
    """The task, which the check before it does not refuse."""
    task = TaskConfig(name="animals", **{"test": None} | fields)
    config = DataConfig(tasks=(task,), root=str(top), input_size=SIZE, seed=seed)
    check_tasks(config)
    return load_task(task, config)


def refused(top: Path, **fields: object) -> str:
    """The message with which the check refuses a task, before anything is decoded."""
    task = TaskConfig(name="animals", **{"test": None} | fields)
    with pytest.raises(DataError) as error:
        check_tasks(DataConfig(tasks=(task,), root=str(top), input_size=SIZE))
    assert "'animals'" in str(error.value)
    return str(error.value)


def drawn_rows(split: Split) -> list[int]:
    """Which rows of the written split these are: the images' red."""
    return split.images[:, 0, 0, 0].tolist()
