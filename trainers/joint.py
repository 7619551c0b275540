"""Full multi-task training of chosen masks: the search's winners, trained on the images themselves.

Newell et al. 2019, A.2: a frozen pretrained trunk, batch norm and momentum per task, and a
curriculum that draws lagging tasks more often.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partitioning import Masks
from partitioning.settings import above, checked, interval
from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import Network, accuracies, cross_entropy, to_channels_last
from trainers.networks import Backbone, BackboneConfig, build_backbone
from trainers.optim import SGD, SGDConfig, learning_rate_at
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
        state: What was trained, as `Network.state` gives it.
        accuracy: By split ("validation", and "test" where there is one), then by virtual network.
        drawn: How many batches each virtual network was given.
        seconds: Wall time, without that of snapshots.
        snapshots: In the order of the times that were asked for; those the training did not last
            for are missing.
    """

    state: Mapping[str, Tensor]
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
        trunk: Pretrained network: weights of a frozen trunk, initial tail.
        teachers: Their trunk's norms are used, frozen, as when the search cached features.
        config: Steps, batch size, learning rate, curriculum.
        backbone: The backbone of all of them.
        seed: Seeds heads, batches, curriculum and augmentation.
        compute: Device and precision.
        snapshots: Seconds of training after which to measure accuracy on the way, ascending. It
            does not change what is trained.

    Raises:
        FloatingPointError: The loss became infinite or NaN; names the task and the step.
    """
    device = resolve_device(compute.device)
    order = [network.task for network in masks.networks]
    names = [str(network) for network in masks.networks]
    data = {name: task.to(device) for name, task in tasks.items()}
    clock = _Clock(snapshots)
    built = build_backbone(backbone, next(iter(tasks.values())).size)
    network = initial_network(masks, tasks, trunk, teachers, built, seed, device)
    generator = torch.Generator(device).manual_seed(seed)
    turns = _Turns([tasks[task].num_classes for task in order], config, seed)
    sgd = config.sgd
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # of dropout
        for step in range(sgd.steps):
            if clock.due():
                clock.take(step, lambda: _measure(network, data, ["validation"])["validation"])
            row = turns.draw()
            network.train(row)
            task = data[order[row]]
            images, labels = draw_batch(task.splits["train"], sgd.batch_size, generator)
            with autocast(device, compute.precision):
                logits = network(to_channels_last(augment(images, task, generator)), row)
            loss = cross_entropy(logits, labels, sgd.label_smoothing)
            loss.backward()
            network.step(row, learning_rate_at(sgd, step), sgd.momentum, sgd.weight_decay)
            turns.learn(row, float((logits.detach().argmax(dim=1) == labels).float().mean()))
            if not bool(loss.isfinite()):
                raise FloatingPointError(
                    f"the loss of task {names[row]} is not finite at step {step}; "
                    f"lower train.sgd.learning_rate ({sgd.learning_rate})"
                )
    return TrainResult(
        state=network.state(),
        accuracy=_measure(network, data, ["validation", "test"]),
        drawn=dict(zip(names, turns.drawn, strict=True)),
        seconds=clock.elapsed(),
        snapshots=tuple(clock.snapshots),
    )


class _Turns:
    """Whose turn it is, by the curriculum."""

    def __init__(self, classes: Sequence[int], config: TrainConfig, seed: int) -> None:
        self._config = config
        self._rng = np.random.default_rng(seed)
        # A floor at chance level keeps a task that has learnt nothing from taking every batch.
        self._floor_R = 1.0 / np.array(classes)
        self._running_R = self._floor_R.copy()
        self.drawn = [0] * len(classes)

    def draw(self) -> int:
        """The row that trains next."""
        chances_R = curriculum(self._running_R, self._config.temperature)
        return int(self._rng.choice(len(chances_R), p=chances_R))

    def learn(self, row: int, accuracy: float) -> None:
        """Take in what a row reached on its batch."""
        self.drawn[row] += 1
        running = self._running_R[row]
        running += self._config.smoothing * (accuracy - running)
        self._running_R[row] = max(self._floor_R[row], running)


class _Clock:
    """Wall time of training, without that of the snapshots taken on the way.

    Args:
        times: Seconds after which to take a snapshot, ascending.
    """

    def __init__(self, times: Sequence[float]) -> None:
        self._times = times
        self._started = time.perf_counter()
        self._measuring = 0.0
        self.snapshots: list[Snapshot] = []

    def elapsed(self) -> float:
        """Seconds spent on training so far."""
        return time.perf_counter() - self._started - self._measuring

    def due(self) -> bool:
        """Whether it is time for the next snapshot."""
        taken = len(self.snapshots)
        return taken < len(self._times) and self.elapsed() >= self._times[taken]

    def take(self, steps: int, measure: Callable[[], Mapping[str, float]]) -> None:
        """Take a snapshot after so many steps; measuring does not count."""
        seconds = self.elapsed()
        self.snapshots.append(Snapshot(seconds=seconds, steps=steps, accuracy=measure()))
        self._measuring = time.perf_counter() - self._started - seconds


def _measure(
    network: Network, data: Mapping[str, Task], splits: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Accuracies by split and virtual network."""
    network.eval()
    return accuracies(network, network.masks.networks, data, network.backbone.batch, splits)


def initial_network(
    masks: Masks,
    tasks: Mapping[str, Task],
    trunk: Trained,
    teachers: Mapping[str, Trained],
    backbone: Backbone,
    seed: int,
    device: torch.device,
) -> Network:
    """The network that training begins with; see `train_jointly`."""
    order = [network.task for network in masks.networks]
    return Network(
        backbone,
        masks,
        [tasks[task].num_classes for task in order],
        shared=trunk.state,
        norms=[teachers[task].state for task in order],
        seed=seed,
        device=device,
    )


def trained_network(
    state: Mapping[str, Tensor],
    masks: Masks,
    tasks: Mapping[str, Task],
    trunk: Trained,
    teachers: Mapping[str, Trained],
    backbone: Backbone,
) -> Network:
    """What `train_jointly` has trained, on the CPU, in evaluation mode.

    Args:
        state: Its result's.
        masks: What it was trained with, as are the others.
        tasks: Images and labels.
        trunk: The pretrained network.
        teachers: By task.
        backbone: The network.
    """
    network = initial_network(masks, tasks, trunk, teachers, backbone, 0, torch.device("cpu"))
    network.load(state)
    network.eval()
    return network
