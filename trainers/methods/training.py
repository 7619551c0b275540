"""The training of a method's plan, phase by phase, which can be cut off at any step and goes on.

Whatever a phase has trained lies in a file under the hash of all that decided it, those before it
among them. So a plan that goes on where another ends, with one task more, does not train again what
they have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partitioning import DamagedFileError
from trainers.data import Task
from trainers.device import ComputeConfig, resolve_device
from trainers.methods.elastic import ElasticNetworks, ElasticPhase, ElasticRun, measure_choices
from trainers.methods.networks import SharedNetworks
from trainers.methods.phase_files import Kept, Point, load_phase
from trainers.methods.phase_run import PhaseRun
from trainers.methods.plan import Phase, Plan
from trainers.methods.routing import RoutingPhase, RoutingRun
from trainers.network import accuracies
from trainers.networks import Backbone, BackboneConfig, build_backbone
from trainers.optim import SGDConfig
from trainers.teachers import fingerprint

#: Raised when methods train otherwise than before, so that no old file is taken for a new one.
METHODS_VERSION = 1

#: What trains a phase, where it is none of labels alone.
RUNS: Mapping[type[Phase], type[PhaseRun]] = {ElasticPhase: ElasticRun, RoutingPhase: RoutingRun}

Accuracy = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodResult:
    """What a method came to.

    Attributes:
        state: Tensors of every part, by "<part>/<name>".
        accuracy: In [0, 1], by split and virtual network, of those whose task has the split.
        choices: By split and virtual network, of those that are chosen per image: what
            `measure_choices` says.
        after: Accuracy behind every phase, of the networks that had been trained by then.
        curve: Losses on the way.
        steps: Over all phases.
        seconds: Wall time of training.
    """

    state: Mapping[str, Tensor]
    accuracy: Accuracy
    choices: Mapping[str, Mapping[str, Mapping[str, Any]]]
    after: tuple[Accuracy, ...]
    curve: tuple[Point, ...]
    steps: int
    seconds: float


def phase_digests(
    plan: Plan,
    tasks: Mapping[str, Task],
    *,
    backbone: BackboneConfig,
    size: int,
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
        size: Of its images, in pixels.
        weights: Hash of the weights that it begins with, if they are given.
        sgd: Of each phase.
        seed: Of the training.
        precision: Of convolutions.
    """
    digest = fingerprint(
        version=METHODS_VERSION, backbone=backbone, size=size, weights=weights, sgd=sgd, seed=seed,
        precision=precision, surgery=plan.surgery,
    )  # fmt: skip
    prints = {name: task.fingerprint() for name, task in tasks.items()}
    found = []
    for phase in plan.phases:
        part = plan.parts[phase.part]
        names = [part.masks.networks[row].task for row in phase.rows]
        rows = [*phase.distilled, *phase.rows]
        digest = fingerprint(
            before=digest,
            phase={**vars(phase), "inherits": sorted((phase.inherits or {}).items())},
            images=[prints[name] for name in dict.fromkeys(names)],
            masks={
                name: mask[rows].astype(int).tolist() for name, mask in part.masks.forward.items()
            },
            networks=[str(part.masks.networks[row]) for row in rows],
            form=part.form(rows),
        )
        found.append(digest)
    return tuple(found)


def make_networks(
    plan: Plan, backbone: Backbone, tasks: Mapping[str, Task], seed: int, device: torch.device
) -> dict[str, SharedNetworks]:
    """The networks of a plan, by part, as training begins with them.

    Args:
        plan: Of a method.
        backbone: The network.
        tasks: Images and labels.
        seed: Of weights and heads.
        device: Where they are kept.
    """
    state = backbone.initial(2, seed)
    return {
        name: part.networks(
            backbone,
            [tasks[network.task].num_classes for network in part.masks.networks],
            sizes=[tasks[network.task].size for network in part.masks.networks],
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
    size: int,
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
        size: Of its images, in pixels; tasks of other sizes have stems of their own.
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
    built = build_backbone(backbone, size)
    networks = make_networks(plan, built, tasks, seed, device)
    files = [folder / f"method-{digest[:20]}.safetensors" for digest in digests]
    begin, known = _first_to_train(networks, files, digests)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for number in range(begin, len(plan.phases)):
            own = {plan.parts[plan.phases[number].part].masks.networks[row].task: None
                   for row in plan.phases[number].rows}  # fmt: skip
            run = RUNS.get(type(plan.phases[number]), PhaseRun)
            data = {name: tasks[name].to(device) for name in own}
            phase = run(
                plan=plan, number=number, networks=networks, data=data, sgd=sgd, seed=seed,
                compute=compute, device=device,
            )  # fmt: skip
            path = files[number].with_name(f"underway-{digests[number][:20]}.safetensors")
            phase.train(path, digests[number], progress, every)
            phase.kept.accuracy = _measure(plan.phases[number], networks, tasks, device)
            if number == len(plan.phases) - 1:  # nobody asks what was chosen before
                phase.kept.choices = _choices(plan.phases[number], networks, tasks, device)
            phase.save(files[number], digests[number])
            path.unlink(missing_ok=True)
            known.append(phase.kept)
    return _result(networks, known, plan.steps(sgd.steps))


def _result(
    networks: Mapping[str, SharedNetworks],
    known: Sequence[Kept],
    steps: Sequence[int],
) -> MethodResult:
    after: list[dict[str, dict[str, float]]] = []
    curve = []
    splits = sorted({split for kept in known for split in kept.accuracy})
    for number, kept in enumerate(known):
        before = after[-1] if after else {}
        after.append({s: {**before.get(s, {}), **kept.accuracy.get(s, {})} for s in splits})
        done = sum(steps[:number])
        curve += [Point(step=done + p.step, loss=p.loss) for p in kept.curve]
    return MethodResult(
        state=_state(networks),
        accuracy=after[-1],
        choices=known[-1].choices,
        after=tuple(after),
        curve=tuple(curve),
        steps=sum(steps),
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
    rows = [*phase.distilled, *phase.rows]
    for row in rows:
        part.rows[row].row.module.eval()
    found: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(part.part.masks.networks[row].task for row in rows):
        own = [row for row in rows if part.part.masks.networks[row].task == task]
        of_task = accuracies(
            lambda images, at, own=own: part(images, own[at]),  # type: ignore[misc]
            [part.part.masks.networks[row] for row in own],
            {task: _measured(tasks[task]).to(device)},
            part.backbone.batch,
        )
        for split, each in of_task.items():
            found.setdefault(split, {}).update(each)
    return found


def _choices(
    phase: Phase,
    networks: Mapping[str, SharedNetworks],
    tasks: Mapping[str, Task],
    device: torch.device,
) -> dict[str, dict[str, dict[str, Any]]]:
    """What a selector chooses that the phase has trained, by split and virtual network."""
    part = networks[phase.part]
    if not (isinstance(part, ElasticNetworks) and isinstance(phase, ElasticPhase)):
        return {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in phase.rows if phase.trains == "selector" else ():
        network = part.part.masks.networks[row]
        task = _measured(tasks[network.task]).to(device)
        for split in task.splits:
            found.setdefault(split, {})[str(network)] = measure_choices(part, row, task, split)
    return found


def _measured(task: Task) -> Task:
    """A task without the images that are trained on."""
    splits = {name: split for name, split in task.splits.items() if name != "train"}
    return replace(task, splits=splits)


def _state(networks: Mapping[str, SharedNetworks]) -> dict[str, Tensor]:
    return {
        f"{part}/{name}": tensor
        for part, found in networks.items()
        for name, tensor in found.state().items()
    }


def _first_to_train(
    networks: Mapping[str, SharedNetworks], files: Sequence[Path], digests: Sequence[str]
) -> tuple[int, list[Kept]]:
    """The first phase that is not done, with what is known of those before it."""
    known: list[Kept] = []
    for path, digest in zip(files, digests, strict=True):
        try:
            known.append(load_phase(path, digest, networks)[0])
        except (FileNotFoundError, DamagedFileError):
            break
    return len(known), known
