"""Full multi-task training of chosen masks: the search's winners, trained on the images themselves.

Newell et al. 2019, A.2: a frozen pretrained trunk, batch norm and momentum per task, and a
curriculum that draws lagging tasks more often. Beside it, what single-task teachers know is handed
on: their heads and norms to begin with, and their logits to imitate.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from partitioning import Masks
from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.joint.augmentation import changes, mixing
from trainers.joint.config import TrainConfig
from trainers.joint.turns import Turns
from trainers.joint.underway import (
    Known,
    Point,
    Underway,
    load_underway,
    save_underway,
    say_progress,
)
from trainers.network import (
    Network,
    Whole,
    accuracies,
    cross_entropy,
    distillation,
    to_channels_last,
)
from trainers.networks import Backbone, BackboneConfig, build_backbone, named_below
from trainers.optim import learning_rate_at
from trainers.pace import Pace
from trainers.teachers import Trained

#: Points of a curve, beside those at which accuracy is measured.
POINTS = 50


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
        state: What was trained, as `Network.state` gives it: the weights that did best on
            validation images where they were looked at on the way.
        accuracy: By split ("validation", and "test" where there is one), then by virtual network.
        drawn: How many steps each virtual network was given.
        seconds: Wall time of training, without measuring.
        steps: Steps done, fewer than were asked for where patience ended it.
        best_step: That of the weights.
        points: Of its curve.
        snapshots: In the order of the times that were asked for; those the training did not last
            for are missing.
    """

    state: Mapping[str, Tensor]
    accuracy: Mapping[str, Mapping[str, float]]
    drawn: Mapping[str, int]
    seconds: float
    steps: int
    best_step: int
    points: tuple[Point, ...]
    snapshots: tuple[Snapshot, ...] = ()


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
    underway: Underway | None = None,
) -> TrainResult:
    """Train the virtual networks of `masks` together, or the rest of a training.

    Validation images are looked at on the way, test images once, at the end.

    Args:
        masks: One row per virtual network; every task named is in `tasks`.
        tasks: Images and labels.
        trunk: Pretrained network: weights of a frozen trunk, initial tail.
        teachers: Their trunk's norms are used, frozen, as when the search cached features; their
            heads, norms and logits as `config` says.
        config: Steps, batch size, learning rate, curriculum, and what more is done.
        backbone: The backbone of all of them.
        seed: Seeds heads, batches, curriculum and augmentation.
        compute: Device and precision.
        snapshots: Seconds of training after which to measure accuracy on the way, ascending. It
            does not change what is trained.
        underway: Where it is kept, and goes on from at any step; None keeps nothing.

    Raises:
        FloatingPointError: The loss became infinite or NaN; names the task and the step.
        MissingLibraryError: The settings need a library that is not installed.
    """
    device = resolve_device(compute.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = _Run(masks, tasks, trunk, teachers, config, backbone, seed, compute, device)
        return run.train(snapshots, underway)


class _Run:
    """A training under way; see `train_jointly`."""

    def __init__(
        self,
        masks: Masks,
        tasks: Mapping[str, Task],
        trunk: Trained,
        teachers: Mapping[str, Trained],
        config: TrainConfig,
        backbone: BackboneConfig,
        seed: int,
        compute: ComputeConfig,
        device: torch.device,
    ) -> None:
        self._config, self._sgd, self._device = config, config.sgd, device
        self._precision = compute.precision
        self._order = [network.task for network in masks.networks]
        self._names = [str(network) for network in masks.networks]
        self._data = {name: task.to(device) for name, task in tasks.items()}
        built = build_backbone(backbone, next(iter(tasks.values())).size)
        self._network = initial_network(
            masks, tasks, trunk, teachers, built, seed, device, initial=config.initial
        )
        self._teachers = self._frozen(teachers, built) if config.distillation else {}
        classes = [tasks[task].num_classes for task in self._order]
        self._turns = Turns(classes, config, seed)
        self._generator = torch.Generator(device).manual_seed(seed)
        torch.manual_seed(seed)  # of dropout and of torchvision's changes
        self._change = changes(config)
        self._mixes = [mixing(config, count) for count in classes]
        self._thaw_at = round(config.thaw * config.sgd.steps) if config.thaw < 1 else None
        self._thawed = False
        self._known = Known()
        self._average: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}

    def train(self, snapshots: Sequence[float], underway: Underway | None) -> TrainResult:
        """Train to the end, from what is under way if there is any."""
        if underway is not None:
            self._resume(underway)
        known, steps = self._known, self._sgd.steps
        clock = _Clock(snapshots, known.seconds)
        pace = Pace(underway.every) if underway is not None else None
        measured = {-(-steps * n // self._config.evaluations)
                    for n in range(1, self._config.evaluations + 1)}  # fmt: skip
        noted = max(1, steps // POINTS)
        while known.step < steps and not self._is_stopped():
            if clock.due():
                clock.take(known.step, self._validation)
            self._advance()
            accuracy: Mapping[str, float] = {}
            if known.step in measured:
                with clock.stopped():
                    accuracy = self._validation()
                    self._judge(accuracy)
            if accuracy or known.step % noted == 0:
                known.seconds = clock.elapsed()
                self._note(accuracy)
                if underway is not None:
                    say_progress(underway.progress, known, steps)
            if underway is not None and pace is not None and known.step < steps and pace.due():
                known.seconds = clock.elapsed()
                with clock.stopped(), pace.kept():
                    self._keep(underway)
        return self._result(clock)

    def _is_stopped(self) -> bool:
        return 0 < self._config.patience <= self._known.waited

    def _advance(self) -> None:
        """One step: of one row, by one or more batches."""
        known, config, sgd, network = self._known, self._config, self._sgd, self._network
        if self._thaw_at is not None and not self._thawed and known.step >= self._thaw_at:
            self._thaw()
        row = self._turns.draw()
        network.train(row)
        task = self._data[self._order[row]]
        right = 0.0
        for _ in range(config.accumulate):
            images, labels = draw_batch(task.splits["train"], sgd.batch_size, self._generator)
            if self._change is not None:
                images = self._change(images)
            varied, targets = augment(images, task, self._generator), labels
            if (mix := self._mixes[row]) is not None:
                varied, targets = mix(varied, labels)
            loss, logits = self._loss(row, to_channels_last(varied), targets)
            (loss / config.accumulate).backward()
            right += float((logits.detach().argmax(dim=1) == labels).float().mean())
            value = float(loss.detach())  # waits for the device, so it is asked once
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss of task {self._names[row]} is not finite at step {known.step}; "
                    f"lower train.sgd.learning_rate ({sgd.learning_rate})"
                )
            total, count = known.sums.get(row, (0.0, 0))
            known.sums[row] = total + value, count + 1
        network.step(row, learning_rate_at(sgd, known.step), sgd.momentum, sgd.weight_decay)
        self._turns.learn(row, right / config.accumulate)
        known.step += 1
        if config.ema:
            self._average_in()

    def _loss(self, row: int, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a row's images, and its logits."""
        config, network = self._config, self._network
        with autocast(self._device, self._precision):
            maps = network.trunks[row](images)
            logits = network.behind(maps, row)
            if config.distillation:
                teacher = self._teachers[self._order[row]]
                with torch.no_grad():  # a frozen trunk's pass serves both
                    own = teacher.trunk(images) if self._thawed else maps
                    taught = teacher.head(teacher.tail(own)[1])
        loss = cross_entropy(logits, targets, self._sgd.label_smoothing)
        if config.distillation:
            imitated = distillation(logits, taught, config.softness)
            imitated = imitated - distillation(taught, taught, config.softness)  # 0 is the teacher
            # Times the square, or its gradient would shrink with the softness (Hinton et al. 2015).
            imitated = imitated * config.softness**2
            loss = (1 - config.distillation) * loss + config.distillation * imitated
        return loss, logits

    def _frozen(self, teachers: Mapping[str, Trained], built: Backbone) -> dict[str, Whole]:
        """The teachers of the rows' tasks, in evaluation mode."""
        found = {}
        for name in dict.fromkeys(self._order):
            found[name] = Whole(built, teachers[name].state, self._device).eval()
            found[name].requires_grad_(False)
        return found

    def _thaw(self) -> None:
        self._network.thaw()
        self._thawed = True

    def _average_in(self) -> None:
        """Move the running average towards the weights as they are."""
        live = {n: t for n, t in self._network.live().items() if t.is_floating_point()}
        if not self._average:
            self._average = {name: tensor.clone() for name, tensor in live.items()}
            return
        # With the whole decay from the start, the first weights would count for long.
        decay = min(self._config.ema, (1 + self._known.step) / (10 + self._known.step))
        get_ema_multi_avg_fn(decay)(
            list(self._average.values()), [live[name] for name in self._average], None
        )

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within it the network has the running average, if there is one."""
        if not self._average:
            yield
            return
        before = {name: tensor.clone() for name, tensor in self._network.live().items()}
        self._network.load({**before, **self._average})
        yield
        self._network.load(before)

    def _validation(self) -> Mapping[str, float]:
        """Accuracies on validation images by virtual network."""
        with self._averaged():
            return _measure(self._network, self._data, ["validation"])["validation"]

    def _judge(self, accuracy: Mapping[str, float]) -> None:
        """Take in what was measured, and keep the weights if they are the best yet."""
        known = self._known
        mean = float(np.mean(list(accuracy.values())))
        known.waited += 1
        if mean > known.best:
            known.best, known.best_step, known.waited = mean, known.step, 0
            known.best_accuracy = dict(accuracy)
            if self._config.evaluations > 1:
                with self._averaged():
                    self._best = {n: t.clone() for n, t in self._network.live().items()}

    def _note(self, accuracy: Mapping[str, float]) -> None:
        """A point of the curve, with what was measured there, if anything."""
        known = self._known
        loss = {self._names[row]: total / count for row, (total, count) in known.sums.items()}
        images = sum(count for _, count in known.sums.values()) * self._sgd.batch_size
        known.points.append(
            Point(
                step=known.step,
                when=time.time(),
                loss=dict(sorted(loss.items())),
                accuracy=dict(accuracy),
                learning_rate=learning_rate_at(self._sgd, known.step - 1),
                images_per_second=images / max(1e-9, known.seconds - known.measured),
            )
        )
        known.sums, known.measured = {}, known.seconds

    def _result(self, clock: "_Clock") -> TrainResult:
        seconds, known = clock.elapsed(), self._known
        if self._best:
            self._network.load(self._best)
        elif self._average:
            self._network.load({**self._network.live(), **self._average})
        return TrainResult(
            state=self._network.state(),
            accuracy={
                "validation": known.best_accuracy,
                **_measure(self._network, self._data, ["test"]),
            },
            drawn=dict(zip(self._names, self._turns.drawn, strict=True)),
            seconds=seconds,
            steps=known.step,
            best_step=known.best_step,
            points=tuple(known.points),
            snapshots=tuple(clock.snapshots),
        )

    def _keep(self, underway: Underway) -> None:
        """Write what is under way."""
        tensors = {
            "random.batches": self._generator.get_state(),
            "random.torch": torch.get_rng_state(),
        }
        if self._device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._device)
        for part, own in {
            "state": self._network.live(),
            "momentum": self._network.momentum(),
            "average": self._average,
            "best": self._best,
        }.items():
            tensors |= {f"{part}.{name}": tensor for name, tensor in own.items()}
        save_underway(underway, self._known, self._turns.state(), tensors)

    def _resume(self, underway: Underway) -> None:
        """Go on from what is under way; a damaged file is passed over, and replaced."""
        found = load_underway(underway)
        if found is None:
            return
        self._known, turns, tensors = found
        self._turns.load(turns)
        if self._thaw_at is not None and self._known.step > self._thaw_at:
            self._thaw()
        self._network.load(named_below("state", tensors))
        self._network.go_on(named_below("momentum", tensors))
        self._average, self._best = (
            {name: tensor.to(self._device) for name, tensor in named_below(part, tensors).items()}
            for part in ("average", "best")
        )
        self._generator.set_state(tensors["random.batches"])
        torch.set_rng_state(tensors["random.torch"])
        if self._device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self._device)


class _Clock:
    """Wall time of training, without that of what is measured and kept on the way.

    Args:
        times: Seconds after which to take a snapshot, ascending.
        already: Seconds that were spent before.
    """

    def __init__(self, times: Sequence[float], already: float) -> None:
        self._times = times
        self._started = time.perf_counter() - already
        self.snapshots: list[Snapshot] = []

    def elapsed(self) -> float:
        """Seconds spent on training so far."""
        return time.perf_counter() - self._started

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens within does not count."""
        begun = time.perf_counter()
        yield
        self._started += time.perf_counter() - begun

    def due(self) -> bool:
        """Whether it is time for the next snapshot."""
        taken = len(self.snapshots)
        return taken < len(self._times) and self.elapsed() >= self._times[taken]

    def take(self, steps: int, measure: Callable[[], Mapping[str, float]]) -> None:
        """Take a snapshot after so many steps."""
        seconds = self.elapsed()
        with self.stopped():
            found = Snapshot(seconds=seconds, steps=steps, accuracy=measure())
        self.snapshots.append(found)


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
    *,
    initial: str = "trunk",
) -> Network:
    """The network that training begins with; see `train_jointly`, and `TrainConfig.initial`."""
    states = [teachers[network.task].state for network in masks.networks]
    begun = None
    if initial == "teachers":
        taken = {*backbone.own, *backbone.of_head}
        begun = [{n: t for n, t in state.items() if n in taken} for state in states]
    return Network(
        backbone,
        masks,
        [tasks[network.task].num_classes for network in masks.networks],
        shared=trunk.state,
        norms=states,
        begun=begun,
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
