"""The training of a method's plan, phase by phase, which can be cut off at any step and goes on.

Whatever a phase has trained lies in a file under the hash of all that decided it, those before it
among them. So a plan that goes on where another ends, with one task more, does not train again what
they have in common.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partitioning import DamagedFileError, VirtualNetwork, write_json
from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.methods.networks import SharedNetworks
from trainers.methods.plan import Phase, Plan
from trainers.methods.surgery import combined
from trainers.network import accuracies, cross_entropy, to_channels_last
from trainers.networks import Backbone, BackboneConfig, build_backbone
from trainers.optim import SGDConfig, learning_rate_at
from trainers.teachers import fingerprint
from trainers.tensor_files import load_arrays, save_arrays

#: Raised when methods train otherwise than before, so that no old file is taken for a new one.
METHODS_VERSION = 1
#: Softens what old networks said (Hinton et al. 2015, as Li and Hoiem 2016 use it).
TEMPERATURE = 2.0
#: Points of a phase's curve.
POINTS = 50

Accuracy = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a training's curve.

    Attributes:
        step: Steps done, over all phases.
        loss: Mean since the point before, by virtual network, of those that learnt.
    """

    step: int
    loss: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodResult:
    """What a method came to.

    Attributes:
        state: Tensors of every part, by "<part>/<name>".
        accuracy: By split, of those that all tasks have, and virtual network.
        after: The same behind every phase, of the networks that had been trained by then.
        curve: Losses on the way.
        steps: Over all phases.
        seconds: Wall time of training.
    """

    state: Mapping[str, Tensor]
    accuracy: Accuracy
    after: tuple[Accuracy, ...]
    curve: tuple[Point, ...]
    steps: int
    seconds: float


@dataclass
class _Kept:
    """What is known of a phase, or of the part of one that is done."""

    seconds: float = 0.0
    curve: list[Point] = field(default_factory=list)
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)


def phase_digests(
    plan: Plan,
    tasks: Mapping[str, Task],
    *,
    backbone: BackboneConfig,
    weights: str,
    sgd: SGDConfig,
    seed: int,
    precision: str,
) -> tuple[str, ...]:
    """A hash for every phase: of all that decides what there is once it is done.

    Args:
        plan: Of a method.
        tasks: Images and labels.
        backbone: The network.
        weights: Hash of the weights that it begins with, if they are given.
        sgd: Of each phase.
        seed: Of the training.
        precision: Of convolutions.
    """
    digest = fingerprint(
        version=METHODS_VERSION, backbone=backbone, weights=weights, sgd=sgd, seed=seed,
        precision=precision, surgery=plan.surgery,
    )  # fmt: skip
    prints = {name: task.fingerprint() for name, task in tasks.items()}
    found = []
    for phase in plan.phases:
        part = plan.parts[phase.part]
        names = [part.masks.networks[row].task for row in phase.rows]
        rows = [*phase.recalled, *phase.rows]
        digest = fingerprint(
            before=digest,
            phase={**vars(phase), "inherits": sorted((phase.inherits or {}).items())},
            images=[prints[name] for name in dict.fromkeys(names)],
            masks={
                name: mask[rows].astype(int).tolist() for name, mask in part.masks.forward.items()
            },
            networks=[str(part.masks.networks[row]) for row in rows],
            form=[part.adapters, part.pruned, [part.layers(row) for row in rows]],
        )
        found.append(digest)
    return tuple(found)


def make_networks(
    plan: Plan, backbone: Backbone, classes: Mapping[str, int], seed: int, device: torch.device
) -> dict[str, SharedNetworks]:
    """The networks of a plan, by part, as training begins with them.

    Args:
        plan: Of a method.
        backbone: The network.
        classes: Number of classes by task.
        seed: Of weights and heads.
        device: Where they are kept.
    """
    state = backbone.initial(2, seed)
    return {
        name: SharedNetworks(
            backbone,
            part,
            [classes[network.task] for network in part.masks.networks],
            state=state,
            seed=seed,
            device=device,
        )
        for name, part in plan.parts.items()
    }


def train_method(
    plan: Plan,
    tasks: Mapping[str, Task],
    *,
    backbone: BackboneConfig,
    sgd: SGDConfig,
    seed: int,
    compute: ComputeConfig,
    digests: Sequence[str],
    folder: Path,
    progress: Path | None = None,
    every: float = 20.0,
) -> MethodResult:
    """Train a method, or the rest of it.

    A phase is given the images of the tasks whose labels it learns, and no others. Those of every
    task are looked at once its rows are trained, for their accuracy.

    Args:
        plan: Of the method.
        tasks: Images and labels.
        backbone: The network.
        sgd: Of each phase; a step takes a batch of every task of the phase.
        seed: Of weights, heads, batches and augmentation.
        compute: Device and precision.
        digests: Of the phases, as `phase_digests` gives them.
        folder: Where phases that are done are kept and looked for, and what is under way.
        progress: A file that says how far it is; None writes none.
        every: Seconds after which what is under way is kept; 0 keeps every step.

    Raises:
        FloatingPointError: A loss is not finite: of which network, and at which step.
    """
    device = resolve_device(compute.device)
    built = build_backbone(backbone, next(iter(tasks.values())).size)
    classes = {name: task.num_classes for name, task in tasks.items()}
    networks = make_networks(plan, built, classes, seed, device)
    files = [folder / f"method-{digest[:20]}.safetensors" for digest in digests]
    begin, known = _first_to_train(networks, files, digests)
    run = functools.partial(
        _Run, plan=plan, networks=networks, sgd=sgd, seed=seed, compute=compute, device=device
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for number in range(begin, len(plan.phases)):
            own = {plan.parts[plan.phases[number].part].masks.networks[row].task: None
                   for row in plan.phases[number].rows}  # fmt: skip
            phase = run(number=number, data={name: tasks[name].to(device) for name in own})
            path = files[number].with_name(f"underway-{digests[number][:20]}.safetensors")
            phase.train(path, digests[number], progress, every)
            phase.kept.accuracy = _measure(plan.phases[number], networks, tasks, device)
            _save(files[number], digests[number], networks, phase.kept)
            path.unlink(missing_ok=True)
            known.append(phase.kept)
    return _result(networks, known, sgd.steps, tasks)


def _result(
    networks: Mapping[str, SharedNetworks],
    known: Sequence[_Kept],
    steps: int,
    tasks: Mapping[str, Task],
) -> MethodResult:
    after: list[dict[str, dict[str, float]]] = []
    curve = []
    splits = sorted({split for kept in known for split in kept.accuracy})
    splits = [split for split in splits if all(split in t.splits for t in tasks.values())]
    for number, kept in enumerate(known):
        before = after[-1] if after else {}
        after.append({s: {**before.get(s, {}), **kept.accuracy.get(s, {})} for s in splits})
        curve += [Point(step=number * steps + p.step, loss=p.loss) for p in kept.curve]
    return MethodResult(
        state=_state(networks),
        accuracy=after[-1],
        after=tuple(after),
        curve=tuple(curve),
        steps=steps * len(known),
        seconds=sum(kept.seconds for kept in known),
    )


def _measure(
    phase: Phase,
    networks: Mapping[str, SharedNetworks],
    tasks: Mapping[str, Task],
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Accuracies of the networks that a phase may have changed."""
    part = networks[phase.part]
    rows = [*phase.recalled, *phase.rows]
    for row in rows:
        part.rows[row].row.module.eval()
    virtual: list[VirtualNetwork] = [part.part.masks.networks[row] for row in rows]
    data = {v.task: _measured(tasks[v.task]).to(device) for v in virtual}
    return accuracies(lambda images, at: part(images, rows[at]), virtual, data, part.backbone.batch)


def _measured(task: Task) -> Task:
    """A task without the images that are trained on."""
    splits = {name: split for name, split in task.splits.items() if name != "train"}
    return replace(task, splits=splits)


class _Run:
    """A phase as it is trained.

    Args:
        plan: Of the method.
        number: Of the phase.
        networks: By part; trained in place.
        data: The tasks that the phase learns.
        sgd: Steps, batch size, learning rate.
        seed: Of the training.
        compute: Precision.
        device: Of networks and data.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        number: int,
        networks: Mapping[str, SharedNetworks],
        data: Mapping[str, Task],
        sgd: SGDConfig,
        seed: int,
        compute: ComputeConfig,
        device: torch.device,
    ) -> None:
        self.kept = _Kept()
        self._all, self._data, self._sgd, self._compute = networks, data, sgd, compute
        self._device = device
        self._phase = phase = plan.phases[number]
        self._surgery = plan.surgery
        self._part = part = networks[phase.part]
        self._tasks = [network.task for network in part.part.masks.networks]
        self._names = [str(network) for network in part.part.masks.networks]
        self._generator = torch.Generator(device).manual_seed(1000 * seed + number)
        torch.manual_seed(1000 * seed + number)  # of dropout and gradient surgery
        # Rows of phases before: what they use is not changed where the phase trains new weights.
        self._before = [
            row for each in plan.phases[:number] if each.part == phase.part for row in each.rows
        ]
        self._number, self._phases = number, len(plan.phases)
        self._said = self._recall()
        for row, source in (phase.inherits or {}).items():
            part.inherit(row, source)
        decayed, others = part.parameters([*phase.rows, *phase.recalled], phase.changes)
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": sgd.weight_decay}]
        self._optimizer = torch.optim.SGD(
            [*groups, {"params": others}],
            lr=sgd.learning_rate,
            momentum=sgd.momentum,
            nesterov=sgd.momentum > 0,
        )
        cut = min(max(1, round(phase.cut_at * sgd.steps)), sgd.steps - 1)
        self._cut = None if phase.take is None else cut
        self._step = 0
        self._sums: dict[int, Tensor] = {}
        self._summed = 0

    def train(self, path: Path, digest: str, progress: Path | None, every: float) -> None:
        """Train to the end, from what is under way if there is any."""
        started = time.perf_counter()
        self._resume(path, digest)
        already = self.kept.seconds
        saved = time.perf_counter()
        self._hold()
        part, phase = self._part, self._phase
        only_head = phase.changes == "head"
        for row in (*phase.rows, *phase.recalled):
            part.rows[row].row.module.train(not only_head)
        frozen = part.freeze(phase.rows) if only_head else []
        steps = self._sgd.steps
        while self._step < steps:
            self._advance()
            if self._step % max(1, steps // POINTS) == 0 or self._step == steps:
                self._note(progress)
            if time.perf_counter() - saved >= every and self._step < steps:
                self.kept.seconds = already + time.perf_counter() - started
                self._keep(path, digest)
                saved = time.perf_counter()
        for parameter in frozen:
            parameter.requires_grad_(True)
        self.kept.seconds = already + time.perf_counter() - started

    def _advance(self) -> None:
        """One step."""
        part, phase, sgd = self._part, self._phase, self._sgd
        if self._step == self._cut and phase.take is not None:
            part.take(phase.rows[0], phase.take)
            self._hold()
        batches = {}
        for name, task in self._data.items():
            images, labels = draw_batch(task.splits["train"], sgd.batch_size, self._generator)
            batches[name] = to_channels_last(augment(images, task, self._generator)), labels
        with autocast(self._device, self._compute.precision):
            losses = self._backward(batches)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(sgd, self._step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, (mask, before) in self._held.items():
                part.shared[name].copy_(torch.where(mask, before, part.shared[name]))
        for row, loss in losses.items():
            self._sums[row] = self._sums.get(row, 0.0) + loss
        self._step += 1
        self._summed += 1

    def _backward(self, batches: Mapping[str, tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
        """The gradients of all rows' losses, and the losses."""
        part, phase = self._part, self._phase
        losses: dict[int, Tensor] = {}
        by_task: dict[str, list[Tensor]] = {}
        trained = [p for p in part.shared.values() if p.requires_grad]
        for name, (images, labels) in batches.items():
            for row in phase.rows:
                if self._tasks[row] == name:
                    loss = cross_entropy(part(images, row), labels, self._sgd.label_smoothing)
                    loss.backward()
                    losses[row] = loss.detach()
            if self._surgery:
                by_task[name] = [p.grad for p in trained if p.grad is not None]
                for parameter in trained:
                    parameter.grad = None
        if self._surgery:
            whole = combined(self._surgery, list(by_task.values()))
            for parameter, gradient in zip(trained, whole, strict=True):
                parameter.grad = gradient
        for row in phase.recalled:
            ((images, _),) = batches.values()  # of the one new task
            with torch.no_grad():
                said = self._said[self._tasks[row]](images)
            loss = distillation(part(images, row), said)
            loss.backward()
            losses[row] = loss.detach()
        return losses

    def _recall(self) -> dict[str, Any]:
        """By recalled task, what its highest level says of images as it is before the phase."""
        part, found = self._part, {}
        top = {self._tasks[row]: row for row in self._phase.recalled}
        old = {n: t.detach().clone() for n, t in part.shared.items()} if top else {}
        for task, row in top.items():
            frozen = part.rows[row].frozen_copy()
            frozen.row.module.eval()
            found[task] = functools.partial(frozen, old)
        return found

    def _hold(self) -> None:
        """Remember the shared weights that this phase leaves as they are, weight decay too."""
        part, phase = self._part, self._phase
        self._held: dict[str, tuple[Tensor, Tensor]] = {}
        if phase.changes == "head":
            return
        used = [part.used(row) for row in (*phase.rows, *phase.recalled)]
        before = [part.used(row) for row in self._before] if phase.changes == "new" else []
        for name, weight in part.shared.items():
            mask = ~torch.stack([each[name] for each in used]).any(dim=0)
            for each in before:
                mask |= each[name]
            if bool(mask.any()):
                self._held[name] = mask, weight.detach().clone()

    def _note(self, progress: Path | None) -> None:
        """A point of the curve.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        if not self._summed:
            return
        rows = list(self._sums)
        means = (torch.stack([self._sums[row] for row in rows]) / self._summed).tolist()
        for row, mean in zip(rows, means, strict=True):
            if not abs(mean) < float("inf"):
                raise FloatingPointError(
                    f"the loss of {self._names[row]} is not finite at step {self._step}; lower "
                    f"train.sgd.learning_rate ({self._sgd.learning_rate})"
                )
        loss = {self._names[row]: round(mean, 5) for row, mean in zip(rows, means, strict=True)}
        self.kept.curve.append(Point(step=self._step, loss=loss))
        self._sums, self._summed = {}, 0
        if progress is not None:
            done = self._number * self._sgd.steps + self._step
            steps = self._phases * self._sgd.steps
            write_json(progress, {"step": done, "steps": steps, "loss": sum(means) / len(means)})

    def _keep(self, path: Path, digest: str) -> None:
        """Write what is under way."""
        more: dict[str, Tensor] = {
            f"momentum/{at}/{which}": state
            for at, parameter in enumerate(self._parameters())
            for which, state in self._optimizer.state[parameter].items()
            if isinstance(state, Tensor)
        }
        more |= {f"sum/{row}": torch.as_tensor(loss) for row, loss in self._sums.items()}
        more["random/batches"] = self._generator.get_state()
        more["random/torch"] = torch.get_rng_state()
        if self._device.type == "cuda":
            more["random/cuda"] = torch.cuda.get_rng_state(self._device)
        about = {"step": str(self._step), "summed": str(self._summed)}
        _save(path, digest, self._all, self.kept, more, about)

    def _resume(self, path: Path, digest: str) -> None:
        """Go on from what is under way; a damaged file is passed over, and replaced."""
        try:
            kept, arrays, about = _load(path, digest, self._all)
        except (FileNotFoundError, DamagedFileError):
            return
        self.kept = kept
        for at, parameter in enumerate(self._parameters()):
            state = {
                name.rpartition("/")[2]: array.to(self._device)
                for name, array in arrays.items()
                if name.startswith(f"momentum/{at}/")
            }
            if state:
                self._optimizer.state[parameter] = state
        self._sums = {
            int(name.removeprefix("sum/")): array.to(self._device)
            for name, array in arrays.items()
            if name.startswith("sum/")
        }
        self._generator.set_state(arrays["random/batches"])
        torch.set_rng_state(arrays["random/torch"])
        if "random/cuda" in arrays and self._device.type == "cuda":
            torch.cuda.set_rng_state(arrays["random/cuda"], self._device)
        self._step, self._summed = int(about["step"]), int(about["summed"])

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]


def distillation(logits: Tensor, said: Tensor) -> Tensor:
    """Cross-entropy, in nats, of what a network says with what an old one said, both softened.

    Args:
        logits: (B, K).
        said: (B, K), the old network's logits.
    """
    return F.cross_entropy(logits.float() / TEMPERATURE, (said.float() / TEMPERATURE).softmax(1))


def _state(networks: Mapping[str, SharedNetworks]) -> dict[str, Tensor]:
    return {
        f"{part}/{name}": tensor
        for part, found in networks.items()
        for name, tensor in found.state().items()
    }


def _save(
    path: Path,
    digest: str,
    networks: Mapping[str, SharedNetworks],
    kept: _Kept,
    more: Mapping[str, Tensor] | None = None,
    about: Mapping[str, str] | None = None,
) -> None:
    arrays = {f"state/{name}": tensor for name, tensor in _state(networks).items()}
    arrays |= {name: tensor.detach().cpu().contiguous() for name, tensor in (more or {}).items()}
    metadata = {
        "digest": digest,
        "seconds": repr(kept.seconds),
        "curve": json.dumps([[point.step, dict(point.loss)] for point in kept.curve]),
        "accuracy": json.dumps(kept.accuracy),
        **(about or {}),
    }
    save_arrays({name: tensor.numpy() for name, tensor in arrays.items()}, path, metadata)


def _load(
    path: Path, digest: str, networks: Mapping[str, SharedNetworks]
) -> tuple[_Kept, dict[str, Tensor], dict[str, str]]:
    """Take what a file holds into networks.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is not what was written.
    """
    arrays, about = load_arrays(path, digest)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for part, own in networks.items():
        prefix = f"state/{part}/"
        state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        if state:
            own.load(state)
    curve = [Point(step=step, loss=loss) for step, loss in json.loads(about["curve"])]
    kept = _Kept(
        seconds=float(about["seconds"]), curve=curve, accuracy=json.loads(about["accuracy"])
    )
    return kept, tensors, about


def _first_to_train(
    networks: Mapping[str, SharedNetworks], files: Sequence[Path], digests: Sequence[str]
) -> tuple[int, list[_Kept]]:
    """The first phase that is not done, with what is known of those before it."""
    known: list[_Kept] = []
    for path, digest in zip(files, digests, strict=True):
        try:
            known.append(_load(path, digest, networks)[0])
        except (FileNotFoundError, DamagedFileError):
            break
    return len(known), known
