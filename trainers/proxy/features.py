"""The feature cache: what the proxy needs of the trunk and the teachers, computed once per study.

Arrays are NumPy, so that processes of one machine share them without copies: through Ray's object
store, or through the page cache where they are mapped from their files.

Legend: N images, K blocks, B batch, C channels, H and W of a map.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data import Split, Task, normalise
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import Whole, to_channels_last
from trainers.networks import Backbone, BackboneConfig, build_backbone
from trainers.teachers import CACHE_VERSION, Trained, fingerprint
from trainers.tensor_files import CONTENT, load_arrays, save_arrays


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskFeatures:
    """One task's cached features, float16, and the weights that read them.

    Maps lie in memory and in files with their channels last, as convolutions read them.

    Attributes:
        inputs: Trunk features of training images, (N, C, H, W), or (N, T, C) of T tokens.
        targets: The teacher's output of every divided block for the same images, K of (N, ...).
        validation: Trunk features of the validation images, (N_val, ...).
        labels: Validation labels, int64 (N_val,).
        teacher: The teacher's tensors that students begin with or are read by: the norms of its
            tail, and its head.
        accuracy: The teacher's validation accuracy in [0, 1].
        path: The file that the features are mapped from, and read again from by any process that
            they are sent to; None where they are in memory.
        content: Hash of everything but the path; empty before they are saved.
    """

    inputs: NDArray[np.float16]
    targets: tuple[NDArray[np.float16], ...]
    validation: NDArray[np.float16]
    labels: NDArray[np.int64]
    teacher: Mapping[str, NDArray[np.float32]]
    accuracy: float
    path: Path | None = None
    content: str = ""

    def __reduce__(self) -> tuple[Callable[..., "TaskFeatures"], tuple[Any, ...]]:
        """Send the path of mapped features, not what it holds."""
        if self.path is not None:
            # Whoever sends it has checked the file.
            return functools.partial(load_features, mapped=True, checked=False), (self.path,)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return functools.partial(TaskFeatures, **values), ()


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureCache:
    """Everything that scoring a candidate by the proxy needs.

    Attributes:
        backbone: The backbone of trunk, teachers and students.
        tasks: Features by task, in the order of the study.
        tail: The pretrained network's tensors, which every student's tail begins with.
        input_size: Height and width of the images in pixels.
    """

    backbone: BackboneConfig
    input_size: int
    tasks: Mapping[str, TaskFeatures]
    tail: Mapping[str, NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        """Memory that the cached features take, in bytes."""
        return sum(
            f.inputs.nbytes + f.validation.nbytes + sum(t.nbytes for t in f.targets)
            for f in self.tasks.values()
        )


def feature_bytes(backbone: Backbone, *, train_images: int, validation_images: int) -> int:
    """Bytes that a cache takes, before it is built.

    Args:
        backbone: The network.
        train_images: Cached training images over all tasks.
        validation_images: Validation images over all tasks.

    Returns:
        Bytes of float16 features: trunk output for every image, and every divided block's output
        for training images.
    """
    trunk = math.prod(backbone.boundary)
    blocks = sum(math.prod(output.shape) for output in backbone.outputs)
    return 2 * (train_images * (trunk + blocks) + validation_images * trunk)


def as_tensor(array: NDArray[np.generic]) -> Tensor:
    """A CPU tensor over the memory of an array that may be read-only; it must not be written."""
    with warnings.catch_warnings():
        # torch has no read-only tensors, so it warns that writing to this one is undefined.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def state_tensors(state: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """A state dict as tensors."""
    return {name: as_tensor(array) for name, array in state.items()}


def channels_last(array: NDArray[np.float16]) -> NDArray[np.float16]:
    """Maps (N, C, H, W) as (N, H, W, C), contiguous; nothing is copied where they lie so."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1) if array.ndim == 4 else array)


def _channels_first(array: NDArray[np.float16]) -> NDArray[np.float16]:
    """The view (N, C, H, W) of maps (N, H, W, C)."""
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


@torch.no_grad()
def compute_features(
    config: BackboneConfig,
    teacher: Trained,
    task: Task,
    *,
    images: int,
    seed: int,
    compute: ComputeConfig,
) -> TaskFeatures:
    """Run a task's trunk and teacher over its images, in evaluation mode and without augmentation.

    Args:
        config: The backbone.
        teacher: The task's teacher.
        task: Its images.
        images: At most so many training images are cached, a seeded choice.
        seed: Seeds the choice.
        compute: Device and precision.
    """
    device = resolve_device(compute.device)
    backbone = build_backbone(config, task.size)
    network = Whole(backbone, teacher.state, device).eval()
    train = task.splits["train"]
    order = np.random.default_rng(seed).permutation(len(train))[:images]
    chosen = torch.from_numpy(np.sort(order))
    inputs, targets = _run(network, task, train, chosen, device, compute, blocks=True)
    held_out = task.splits["validation"]
    every = torch.arange(len(held_out))
    validation, _ = _run(network, task, held_out, every, device, compute, blocks=False)
    read = (of_tail(backbone) & backbone.own) | set(backbone.of_head)
    return TaskFeatures(
        inputs=inputs,
        targets=tuple(targets),
        validation=validation,
        labels=task.splits["validation"].labels.cpu().numpy(),
        teacher={
            name: tensor.float().numpy()
            for name, tensor in teacher.state.items()
            if tensor.is_floating_point() and name in read
        },
        accuracy=teacher.accuracy,
    )


def _run(
    network: Whole,
    task: Task,
    split: Split,
    rows: Tensor,
    device: torch.device,
    compute: ComputeConfig,
    *,
    blocks: bool,
) -> tuple[NDArray[np.float16], list[NDArray[np.float16]]]:
    task = replace(task, mean=task.mean.to(device), std=task.std.to(device))
    trunk: list[Tensor] = []
    outputs: list[list[Tensor]] = []
    for some in rows.split(network.backbone.batch):
        images = split.take(some)[0].to(device)
        with autocast(device, compute.precision):
            x = network.trunk(to_channels_last(normalise(images, task)))
            features = network.tail(x)[0] if blocks else ()
        trunk.append(_half(x))
        outputs.append([_half(f) for f in features])
    return (
        torch.cat(trunk).numpy(),
        [torch.cat(block).numpy() for block in zip(*outputs, strict=True)],
    )


def _half(features: Tensor) -> Tensor:
    limit = torch.finfo(torch.float16).max
    return to_channels_last(features.float().clamp(-limit, limit).half().cpu())


def of_tail(backbone: Backbone) -> set[str]:
    """Names of the tail's tensors."""
    return set(backbone.tail.state_dict())


def build_cache(
    config: BackboneConfig,
    trunk: Trained,
    features: Mapping[str, TaskFeatures],
    *,
    input_size: int,
) -> FeatureCache:
    """Join the tasks' features with the tail that students start from."""
    names = of_tail(build_backbone(config, input_size))
    tail = {
        name: tensor.float().numpy()
        for name, tensor in trunk.state.items()
        if name in names and tensor.is_floating_point()
    }
    return FeatureCache(backbone=config, input_size=input_size, tasks=dict(features), tail=tail)


def features_digest(teacher: Trained, task: Task, *, images: int, seed: int, precision: str) -> str:
    """Hash of all that determines a task's cached features."""
    return fingerprint(
        kind="features, channels last",
        version=CACHE_VERSION,
        teacher=teacher.digest,
        data=task.fingerprint(),
        images=images,
        seed=seed,
        precision=precision,
    )


def save_features(features: TaskFeatures, path: Path, digest: str = "") -> None:
    """Write one task's features as safetensors, so that a resumed study reads the very same.

    Args:
        features: Of the task.
        path: The file; its folder is made if it is missing.
        digest: Hash of all that determines them.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "inputs": channels_last(features.inputs),
        "validation": channels_last(features.validation),
        "labels": features.labels,
    }
    arrays |= {f"targets.{k}": channels_last(each) for k, each in enumerate(features.targets)}
    arrays |= {f"teacher.{name}": np.ascontiguousarray(a) for name, a in features.teacher.items()}
    save_arrays(arrays, path, {"accuracy": repr(features.accuracy), "digest": digest})


def load_features(
    path: Path, digest: str | None = None, *, mapped: bool = False, checked: bool = True
) -> TaskFeatures:
    """Read one task's features back.

    Args:
        path: What `save_features` wrote.
        digest: What they must have been determined by; None takes any.
        mapped: Leave the features in the file; batches are read as they are asked for, and the
            operating system keeps what fits into memory, once for all processes.
        checked: Make sure that the file is what was written, which reads all of it.

    Raises:
        DamagedFileError: The file was cut short or changed, or holds other features.
        OSError: It cannot be read.
    """
    arrays, metadata = load_arrays(path, digest, mapped=mapped, checked=checked)
    blocks = sum(name.startswith("targets.") for name in arrays)
    return TaskFeatures(
        inputs=_channels_first(arrays["inputs"]),
        targets=tuple(_channels_first(arrays[f"targets.{k}"]) for k in range(blocks)),
        validation=_channels_first(arrays["validation"]),
        labels=arrays["labels"],
        teacher={
            name.removeprefix("teacher."): array
            for name, array in arrays.items()
            if name.startswith("teacher.")
        },
        accuracy=float(metadata["accuracy"]),
        path=path.absolute() if mapped else None,
        content=metadata[CONTENT],
    )
