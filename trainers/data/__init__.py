"""Images and labels of tasks: from the Hub, parquet, folders, npz files or drawn here.

Every source yields the same uint8 tensors.
"""

from trainers.data.tasks import (
    DataConfig,
    InputSize,
    Split,
    Task,
    TaskConfig,
    augment,
    check_tasks,
    commonest_share,
    draw_batch,
    load_task,
    load_tasks,
    normalise,
)

__all__ = [
    "DataConfig",
    "InputSize",
    "Split",
    "Task",
    "TaskConfig",
    "augment",
    "check_tasks",
    "commonest_share",
    "draw_batch",
    "load_task",
    "load_tasks",
    "normalise",
]
