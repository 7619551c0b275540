"""Images and labels of tasks: from the Hub, parquet, folders, npz files or drawn here.

Every source yields the same uint8 tensors.
"""

from trainers.data.config import SIZE, DataConfig, TaskConfig
from trainers.data.inputs import Inputs
from trainers.data.loading import check_tasks, load_task, load_tasks
from trainers.data.pictures import find_pictures, read_pictures
from trainers.data.sources import DataError
from trainers.data.sources.scale import Scale
from trainers.data.split import Split
from trainers.data.tasks import (
    Task,
    Understood,
    augment,
    commonest_share,
    draw_batch,
    normalise,
)

__all__ = [
    "SIZE",
    "DataConfig",
    "DataError",
    "Inputs",
    "Scale",
    "Split",
    "Task",
    "TaskConfig",
    "Understood",
    "augment",
    "check_tasks",
    "commonest_share",
    "draw_batch",
    "find_pictures",
    "load_task",
    "load_tasks",
    "normalise",
    "read_pictures",
]
