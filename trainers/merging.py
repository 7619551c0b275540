"""Single-task networks merged into one without training: what a user gets for nothing.

All begin as the same network, whose weights w; task t has trained them to w + d_t. What they share
afterwards is w plus a merger of the task vectors d_t; norms and heads stay each task's own, and
statistics of batch norms are measured again, as they go by weights that are there no more.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import Whole, accuracies_of, to_channels_last
from trainers.networks import BATCH_NORMS, Backbone, BackboneConfig, build_backbone
from trainers.teachers import Trained

#: What task arithmetic multiplies the sum of task vectors by (Ilharco et al. 2023, section 3.2).
SCALE = 0.3
#: Share of a task vector's entries, the largest, that TIES keeps (Yadav et al. 2023, section 4.3).
KEPT = 0.2
#: Batches, of as many images, that statistics of batch norms are measured on.
BATCHES, IMAGES = 16, 128

Merger = Callable[[Sequence[Tensor]], Tensor]


def average(vectors: Sequence[Tensor]) -> Tensor:
    """The mean of task vectors (N,), which is the average of the networks."""
    return torch.stack(list(vectors)).mean(dim=0)


def task_arithmetic(vectors: Sequence[Tensor]) -> Tensor:
    """Their scaled sum (Ilharco et al. 2023)."""
    return SCALE * torch.stack(list(vectors)).sum(dim=0)


def ties(vectors: Sequence[Tensor]) -> Tensor:
    """Trimmed, with a sign elected for each entry, and the mean of those that agree.

    Yadav et al. 2023, algorithm 1, with lambda 1.
    """
    stacked = torch.stack(list(vectors))
    count = max(1, round(KEPT * stacked.shape[1]))
    smallest_kept = stacked.abs().topk(count, dim=1).values[:, -1:]
    trimmed = torch.where(stacked.abs() >= smallest_kept, stacked, 0.0)
    agree = (trimmed.sign() == trimmed.sum(dim=0).sign()) & (trimmed != 0)
    return torch.where(agree, trimmed, 0.0).sum(dim=0) / agree.sum(dim=0).clamp_min(1)


#: Ways to merge, by name.
MERGERS: Mapping[str, Merger] = {
    "merged_average": average,
    "merged_arithmetic": task_arithmetic,
    "merged_ties": ties,
}


def merge(
    merger: str, trunk: Trained, networks: Mapping[str, Trained], backbone: Backbone
) -> dict[str, Tensor]:
    """The weights that single-task networks share once they are merged.

    Args:
        merger: Name of one of `MERGERS`.
        trunk: What all of them began with.
        networks: By task.
        backbone: The network.

    Returns:
        Those of the divided part by name, without norms and heads, which are each task's own.
    """
    # Of the divided part alone: a frozen trunk's vectors are 0, and no part of what is trimmed.
    names = [name for name, _ in backbone.tail.named_parameters() if name not in backbone.own]
    begun = torch.cat([trunk.state[name].flatten() for name in names])
    vectors = [
        torch.cat([one.state[name].flatten() for name in names]) - begun
        for one in networks.values()
    ]
    found = begun + MERGERS[merger](vectors)
    sizes = [trunk.state[name].numel() for name in names]
    parts = zip(names, found.split(sizes), strict=True)
    return {name: part.view(trunk.state[name].shape) for name, part in parts}


def measure_merged(
    merger: str,
    trunk: Trained,
    networks: Mapping[str, Trained],
    tasks: Mapping[str, Task],
    *,
    backbone: BackboneConfig,
    seed: int,
    compute: ComputeConfig,
) -> dict[str, dict[str, float]]:
    """Merge single-task networks, measure their norms again, and see what they reach.

    Args:
        merger: Name of one of `MERGERS`.
        trunk: What all of them began with.
        networks: By task.
        tasks: Images and labels.
        backbone: The network.
        seed: Of the training images that statistics are measured on.
        compute: Device and precision.

    Returns:
        Accuracy in [0, 1] by split ("validation", and "test" where there is one) and task.
    """
    device = resolve_device(compute.device)
    built = build_backbone(backbone, next(iter(tasks.values())).size)
    shared = merge(merger, trunk, networks, built)
    found: dict[str, dict[str, float]] = {}
    for name, one in networks.items():
        task = tasks[name].to(device)
        network = Whole(built, {**one.state, **shared}, device)
        _measure_norms(network, task, seed, compute)
        for split, accuracy in accuracies_of(network.eval(), task, built.batch).items():
            found.setdefault(split, {})[name] = accuracy
    return found


@torch.no_grad()
def _measure_norms(network: Whole, task: Task, seed: int, compute: ComputeConfig) -> None:
    """Let the batch norms of the divided part take their statistics from training images."""
    device = task.splits["train"].labels.device
    network.eval()
    for module in network.tail.modules():
        if isinstance(module, BATCH_NORMS):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
            module.train()
    generator = torch.Generator(device).manual_seed(seed)
    for _ in range(BATCHES):
        images, _ = draw_batch(task.splits["train"], IMAGES, generator)
        with autocast(device, compute.precision):
            network(to_channels_last(augment(images, task, generator)))
