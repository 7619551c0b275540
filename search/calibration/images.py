"""The validation images of a calibration: half for the proxy, half for full training.

On the same images the two would agree for no better reason than that some images are hard.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from partitioning import IntArray
from trainers.data import Task
from trainers.proxy import FeatureCache


def halves(task: str, labels_N: IntArray) -> tuple[IntArray, IntArray]:
    """Rows of a validation split for the proxy, and those for full training.

    Every class is divided evenly, to within one image, and the halves differ by at most one image.
    The task's name and the labels alone decide, so that every process divides alike.

    Args:
        task: Its name, which seeds the choice.
        labels_N: Labels of the N images.

    Returns:
        Two ascending lists of rows that together are all of them and share none.

    Raises:
        ValueError: There are fewer than two images.

    >>> [half.tolist() for half in halves("digits", np.array([0, 0, 1, 1, 1]))]
    [[1, 2, 4], [0, 3]]
    """
    if len(labels_N) < 2:
        raise ValueError(
            f"task {task!r}: a calibration needs at least 2 validation images, one for the proxy "
            f"and one for full training, got {len(labels_N)}; give the task a larger validation "
            "split or validation_fraction"
        )
    shuffled_N = np.random.default_rng([*task.encode()]).permutation(len(labels_N))
    by_class_N = shuffled_N[np.argsort(labels_N[shuffled_N], kind="stable")]
    return np.sort(by_class_N[::2]), np.sort(by_class_N[1::2])


def for_proxy(cache: FeatureCache) -> FeatureCache:
    """The same features with the proxy's half of every task's validation images."""
    tasks = {}
    for name, features in cache.tasks.items():
        rows, _ = halves(name, features.labels)
        tasks[name] = replace(
            features,
            validation=features.validation[rows],
            labels=features.labels[rows],
            path=None,  # what is at the path is the whole
        )
    return replace(cache, tasks=tasks)


def for_training(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The same tasks with full training's half of every validation split."""
    found = {}
    for name, task in tasks.items():
        whole = task.splits["validation"]
        _, rows = halves(name, whole.labels.cpu().numpy())
        half = whole.select(torch.from_numpy(rows))
        found[name] = replace(task, splits={**task.splits, "validation": half})
    return found
