"""Full multi-task training of chosen masks: the search's winners, trained on the images themselves.

Newell et al. 2019, A.2: a frozen pretrained trunk, batch norm and momentum per task, and a
curriculum that draws lagging tasks more often.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from partitioning import Masks
from partitioning.settings import above, checked, interval
from trainers.backbones import BackboneConfig
from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import (
    Network,
    accuracy,
    cross_entropy,
    load_norms,
    load_weights,
    place,
    to_channels_last,
)
from trainers.optim import SGD, RowSGD, SGDConfig, norm_parameters
from trainers.teachers import Trained


@dataclass(frozen=True, kw_only=True)
@checked("train.{field}")
class TrainConfig:
    """How chosen masks are trained in full.

    Attributes:
        sgd: Steps (over all tasks together), batch size and learning rate.
        temperature: Temperature of the curriculum: the chance of a task is proportional to
            (1 / its training accuracy)^(1 / temperature). 1 is inversely proportional, large is
            uniform.
        smoothing: Weight of the newest batch in a task's running training accuracy.
    """

    sgd: SGDConfig = SGD["train"]
    temperature: Annotated[float, above(0)] = 1.0
    smoothing: Annotated[float, interval("(0, 1]")] = 0.05


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a training had reached on its way.

    Attributes:
        seconds: Wall time spent on training until then, without measuring.
        steps: Steps done.
        accuracy: On validation images, by virtual network.
    """

    seconds: float
    steps: int
    accuracy: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainResult:
    """A trained network and what was measured of it.

    Attributes:
        network: On the CPU, in evaluation mode.
        accuracy: By split ("validation", and "test" where there is one), then by virtual network.
        drawn: How many batches each virtual network was given.
        seconds: Wall time, without that of snapshots.
        snapshots: In the order of the times that were asked for; those the training did not last
            for are missing.
    """

    network: Network
    accuracy: Mapping[str, Mapping[str, float]]
    drawn: Mapping[str, int]
    seconds: float
    snapshots: tuple[Snapshot, ...] = ()


def curriculum(accuracy_R: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """The chance of drawing each row next, from its running training accuracy.

    Args:
        accuracy_R: Running training accuracies in (0, 1], (R,).
        temperature: Above 0; large draws uniformly.

    Returns:
        Probabilities (R,).

    >>> curriculum(np.array([0.25, 0.5]), 1.0).round(3).tolist()
    [0.667, 0.333]
    """
    exponents = -np.log(accuracy_R) / temperature
    weights = np.exp(exponents - exponents.max())  # a small temperature must not overflow
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


def train_jointly(
    masks: Masks,
    tasks: Mapping[str, Task],
    trunk: Trained,
    teachers: Mapping[str, Trained],
    config: TrainConfig,
    *,
    backbone: BackboneConfig,
    seed: int,
    compute: ComputeConfig,
    snapshots: Sequence[float] = (),
) -> TrainResult:
    """Train the virtual networks of `masks` together.

    Args:
        masks: One row per virtual network; every task named is in `tasks`.
        tasks: Images and labels.
        trunk: Pretrained network: frozen trunk convolutions, initial tail.
        teachers: Their trunk batch norms are used, frozen, as when the search cached features.
        config: Steps, batch size, learning rate, curriculum.
        backbone: The backbone of all of them.
        seed: Seeds heads, batches, curriculum and augmentation.
        compute: Device and precision.
        snapshots: Seconds of training after which to measure accuracy on the way, ascending. It
            does not change what is trained.

    Raises:
        FloatingPointError: The loss became infinite or NaN; names the task and the step.
    """
    started = time.perf_counter()
    device = resolve_device(compute.device)
    order = [network.task for network in masks.networks]
    names = [str(network) for network in masks.networks]
    data = {name: task.to(device) for name, task in tasks.items()}
    network = _initial_network(masks, tasks, trunk, teachers, backbone, seed)
    place(network, device)
    network.trunk.requires_grad_(False)
    rows = range(len(order))
    own = [[*network.heads[r].parameters(), *norm_parameters(network.tail, r)] for r in rows]
    optimizer = RowSGD(network.tail, own, config.sgd)
    generator = torch.Generator(device).manual_seed(seed)
    rng = np.random.default_rng(seed)
    running = np.array([1.0 / tasks[task].num_classes for task in order])
    drawn = np.zeros(len(order), dtype=int)
    taken: list[Snapshot] = []
    measuring = 0.0
    network.train()
    network.trunk.eval()
    for step in range(config.sgd.steps):
        elapsed = time.perf_counter() - started - measuring
        if len(taken) < len(snapshots) and elapsed >= snapshots[len(taken)]:
            reached = _measure(network, data, order, names, "validation")
            taken.append(Snapshot(seconds=elapsed, steps=step, accuracy=reached))
            measuring = time.perf_counter() - started - elapsed
            network.train()
            network.trunk.eval()
        row = int(rng.choice(len(order), p=curriculum(running, config.temperature)))
        task = data[order[row]]
        images, labels = draw_batch(task.splits["train"], config.sgd.batch_size, generator)
        with autocast(device, compute.precision):
            logits = network(to_channels_last(augment(images, task, generator)), row)
        loss = cross_entropy(logits, labels, config.sgd.label_smoothing)
        loss.backward()
        optimizer.step(row, step)
        hits = float((logits.detach().argmax(dim=1) == labels).float().mean())
        # A floor at chance level keeps a task that has learnt nothing from taking every batch.
        floor = 1.0 / task.num_classes
        running[row] = max(floor, running[row] + config.smoothing * (hits - running[row]))
        drawn[row] += 1
        if not bool(loss.isfinite()):
            raise FloatingPointError(
                f"the loss of task {names[row]} is not finite at step {step}; "
                f"lower train.sgd.learning_rate ({config.sgd.learning_rate})"
            )
    measured = {
        split: _measure(network, data, order, names, split)
        for split in ("validation", "test")
        if all(split in task.splits for task in data.values())
    }
    return TrainResult(
        network=network.cpu().eval(),
        accuracy=measured,
        drawn=dict(zip(names, map(int, drawn), strict=True)),
        seconds=time.perf_counter() - started - measuring,
        snapshots=tuple(taken),
    )


def _measure(
    network: Network,
    data: Mapping[str, Task],
    order: Sequence[str],
    names: Sequence[str],
    split: str,
) -> dict[str, float]:
    """Accuracy on a split by virtual network."""
    return {
        name: accuracy(network, data[task], row, split)
        for row, (name, task) in enumerate(zip(names, order, strict=True))
    }


def _initial_network(
    masks: Masks,
    tasks: Mapping[str, Task],
    trunk: Trained,
    teachers: Mapping[str, Trained],
    backbone: BackboneConfig,
    seed: int,
) -> Network:
    order: Sequence[str] = [network.task for network in masks.networks]
    network = Network(
        backbone,
        masks,
        [tasks[task].num_classes for task in order],
        generator=torch.Generator().manual_seed(seed),
    )
    load_weights(network.trunk, trunk.state, "trunk.")
    load_weights(network.tail, trunk.state, "tail.")
    for row, task in enumerate(order):
        load_norms(network.trunk, row, teachers[task].state, "trunk.")
        load_norms(network.tail, row, trunk.state, "tail.")
    return network
