"""Small tasks, and a network of seven blocks that methods train on them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partitioning import Masks
from trainers.data import DataConfig, Split, Task, TaskConfig, load_tasks, normalise
from trainers.device import ComputeConfig
from trainers.methods import (
    METHODS,
    MethodResult,
    Part,
    Plan,
    Problem,
    SharedNetworks,
    make_networks,
    phase_digests,
    train_method,
)
from trainers.network import Network
from trainers.networks import BackboneConfig, build_backbone
from trainers.optim import SGDConfig

NAMES = ("digits", "colours", "gratings")
CPU = torch.device("cpu")
COMPUTE = ComputeConfig(device="cpu")
CONFIG = BackboneConfig(
    model="resnet14", args={"width": 8}, partition=("stage*",), stream=True, trunk="train"
)
BUILT = build_backbone(CONFIG, 8)
SGD = SGDConfig(steps=4, batch_size=8, learning_rate=0.05, momentum=0.9, weight_decay=5e-4)
#: One step, of the gradient times a power of two.
ONE_STEP = SGDConfig(steps=1, batch_size=8, learning_rate=0.5, momentum=0.0, weight_decay=0.0)
#: Methods of which some networks are chosen per image.
PER_IMAGE = ("den", "auto_virtualnet")
#: Methods whose tasks come one after another, with the earlier ones' images gone.
IN_TURN = [
    "dvn_sequential", "lwf", "nested_sequential", "feature_extraction", "da_cnn", "packnet",
    "packnet_grouped",
]  # fmt: skip


@functools.cache
def toy_tasks() -> Mapping[str, Task]:
    """Three tasks, of 64 images to learn from and 40 in the other splits."""
    config = DataConfig(
        tasks=tuple(TaskConfig(name=name, source="toy", limit=64) for name in NAMES), input_size=8
    )
    some = torch.arange(40)
    return {
        name: with_splits(task, {n: task.splits[n].select(some) for n in ("validation", "test")})
        for name, task in load_tasks(config).items()
    }


def with_splits(task: Task, splits: Mapping[str, Split]) -> Task:
    """The task with some splits in place of its own of these names."""
    return replace(task, splits={**task.splits, **splits})


def plan_of(method: str, tasks: Sequence[str] = NAMES, seed: int = 0, **settings: Any) -> Plan:
    """What a method trains."""
    problem = Problem(tasks=tuple(tasks), backbone=BUILT, seed=seed, masks=Masks.load)
    return METHODS[method].build(problem, METHODS[method].settings(**settings))


def digests_of(plan: Plan, tasks: Mapping[str, Task], sgd: SGDConfig = SGD) -> tuple[str, ...]:
    """The phases' hashes."""
    return phase_digests(
        plan,
        tasks,
        backbone=CONFIG,
        size=8,
        weights="",
        sgd=sgd,
        seed=0,
        precision=COMPUTE.precision,
    )


def trained(
    plan: Plan,
    tasks: Mapping[str, Task],
    folder: Path,
    sgd: SGDConfig = SGD,
    *,
    digests: Sequence[str] | None = None,
    every: float = 20.0,
) -> MethodResult:
    """The plan trained, with seed 0."""
    return train_method(
        plan, tasks, backbone=CONFIG, size=8, sgd=sgd, seed=0, compute=COMPUTE, folder=folder,
        every=every,
        digests=digests_of(plan, tasks, sgd) if digests is None else digests,
    )  # fmt: skip


def first_phases(plan: Plan, count: int) -> Plan:
    """The plan up to the end of some phase; in a folder where all are trained, none is again."""
    return replace(plan, phases=plan.phases[:count])


def networks_of(
    plan: Plan, state: Mapping[str, Tensor] | None = None, seed: int = 0
) -> dict[str, SharedNetworks]:
    """The networks of a plan as they begin, or with a result's state, in evaluation."""
    found = make_networks(plan, BUILT, toy_tasks(), seed, CPU)
    for name, part in found.items():
        if state is not None:
            part.load(state_of(name, state))
        for row in part.rows:
            row.row.module.eval()
    return found


def state_of(part: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A part's tensors, of those of all."""
    prefix = f"{part}/"
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def part_of(masks: Masks, tasks: Mapping[str, Task], **form: Any) -> SharedNetworks:
    """Networks with these masks, as they begin."""
    classes = [tasks[network.task].num_classes for network in masks.networks]
    return SharedNetworks(
        BUILT,
        Part(masks=masks, **form),
        classes,
        state=BUILT.initial(2, 0),
        sizes=[8] * len(classes),
        seed=0,
        device=CPU,
    )


def row_alone(part: SharedNetworks, row: int) -> Network:
    """A network of one row, with that row's weights, in evaluation."""
    masks = part.part.masks
    network = masks.networks[row]
    one = Masks(
        networks=(network,),
        groups=masks.groups,
        forward={name: mask[[row]] for name, mask in masks.forward.items()},
    )
    initial = BUILT.initial(2, 1)
    found = Network(
        BUILT, one, [toy_tasks()[network.task].num_classes],
        shared=initial, norms=[initial], seed=1, device=CPU,
    )  # fmt: skip
    found.load(part.alone(row))
    found.eval()
    return found


def images_of(task: str, count: int = 12, split: str = "validation") -> Tensor:
    """Normalised images of a task."""
    tasks = toy_tasks()
    images, _ = tasks[task].splits[split].batch(0, count)
    return normalise(images, tasks[task])


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether both have the same tensors under the same names, bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def same_result(first: MethodResult, second: MethodResult) -> bool:
    """Whether two trainings came to the same, the way there among it."""
    return same(first.state, second.state) and (
        (first.curve, first.after, first.accuracy, first.choices, first.steps)
        == (second.curve, second.after, second.accuracy, second.choices, second.steps)
    )


class KilledError(Exception):
    """What ends a training here."""


@dataclass
class Reads:
    """What is read of splits, and how much more may be.

    Attributes:
        done: Task and split of every batch, in order.
        left: Batches until the training is killed; None never does it.
        refused: Tasks whose training images are gone.
    """

    done: list[tuple[str, str]] = field(default_factory=list)
    left: int | None = None
    refused: tuple[str, ...] = ()

    def note(self, task: str, split: str) -> None:
        """Note a batch, or refuse it."""
        assert (split, task) not in [("train", name) for name in self.refused], f"{task} is gone"
        if self.left is not None:
            if not self.left:
                raise KilledError
            self.left -= 1
        self.done.append((task, split))

    @property
    def done_tasks(self) -> list[str]:
        """The task of every batch."""
        return [task for task, _ in self.done]


@dataclass(frozen=True, kw_only=True, eq=False)
class WatchedSplit(Split):
    """A split that notes what is read of it.

    Attributes:
        reads: Where.
        name: Of task and split.
    """

    reads: Reads
    name: tuple[str, str]

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        self.reads.note(*self.name)
        return super().batch(start, stop)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.reads.note(*self.name)
        return super().take(rows)


def watched(
    tasks: Mapping[str, Task], reads: Reads, splits: Sequence[str] = ("train",)
) -> dict[str, Task]:
    """The tasks, with some splits that note what is read of them; nothing else is different."""
    return {
        name: with_splits(
            task,
            {
                split: WatchedSplit(**vars(task.splits[split]), reads=reads, name=(name, split))
                for split in splits
            },
        )
        for name, task in tasks.items()
    }


class FixedSplit(Split):
    """A split that gives its first images whatever rows are asked for."""

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return super().take(torch.arange(len(rows)))


def fixed(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks, every step with the same images as they are."""
    return {
        name: replace(
            with_splits(task, {"train": FixedSplit(**vars(task.splits["train"]))}),
            flip=False,
            shift=0,
        )
        for name, task in tasks.items()
    }
