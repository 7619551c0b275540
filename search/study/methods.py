"""Methods of a study: their plans, their trainings, and the candidates that come of them.

A training lies in the study's `methods/<method>/`, as `seed<N>.safetensors` and `seed<N>.json`,
which is written last. What a phase has trained lies where trunks and teachers do, so that a study
with one task more goes on from it. A candidate is a level: one network for every task.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from partitioning import (
    TRAINING,
    DamagedFileError,
    Masks,
    VirtualNetwork,
    read_json,
    write_json,
)
from search.candidates import Candidate, Decoding, Measurement
from search.config import COSTS, ConfigError, StudyConfig
from search.strategies import TaskFacts
from search.study.folder import Study, StudyError
from search.study.foundation import given_weights_of
from search.study.shelf import Say, Shelf, move_aside
from trainers.cost import Costs, costs
from trainers.data import Task, commonest_share
from trainers.export import ExportCheck, ExportError, export_networks
from trainers.methods import (
    METHODS,
    MethodResult,
    Plan,
    Problem,
    SharedNetworks,
    alone,
    load_parts,
    make_networks,
    phase_digests,
    train_method,
)
from trainers.teachers import Trained, fingerprint, load, store
from trainers.tensor_files import load_arrays

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd

#: Of the table of all networks of a study's methods.
POINT_COLUMNS = [
    "method", "seed", "level", "task", "candidate", "validation", "test", "parameters", "macs",
    "stored",
]  # fmt: skip
#: Stands between a study and a pick where a setting names masks.
AT = "@"


@dataclass(frozen=True, kw_only=True)
class MethodTraining:
    """A method's finished training with a seed.

    Attributes:
        method: Its name in the study.
        seed: Of the training.
        accuracy: By split, then virtual network.
        after: The same behind every phase.
        curve: Steps done, and losses by virtual network.
        stored: Numbers that must be kept for all its networks.
        kept: Numbers that must be kept for a network alone, by virtual network.
        steps: Over all phases.
        seconds: Wall time.
    """

    method: str
    seed: int
    accuracy: Mapping[str, Mapping[str, float]]
    after: tuple[Mapping[str, Mapping[str, float]], ...]
    curve: tuple[tuple[int, Mapping[str, float]], ...]
    stored: int
    kept: Mapping[str, int]
    steps: int
    seconds: float


def build_plan(config: StudyConfig, name: str, seed: int) -> Plan:
    """What a method of a study trains.

    Args:
        config: The study.
        name: The method's.
        seed: Of the training.

    Raises:
        ConfigError: Its settings do not fit tasks or network; it names the method.
    """
    entry = config.methods[name]
    problem = Problem(
        tasks=tuple(task.name for task in config.tasks),
        groups=config.network.groups,
        seed=seed,
        masks=lambda where: _masks(config, name, where),
    )
    try:
        plan: Plan = METHODS[entry.kind].build(problem, entry.settings)
    except ValueError as error:
        raise ConfigError(f"methods.{name}: {error}") from error
    return plan


def _masks(config: StudyConfig, name: str, where: str) -> Masks:
    """The masks that a method's setting names: those that it was first trained with, if it was."""
    kept = _kept_masks(config, name)
    return Masks.load(kept) if kept.is_file() else read_masks(config, where)


def _kept_masks(config: StudyConfig, name: str) -> Path:
    return config.folder / "methods" / name / "masks.json"


def check_methods(config: StudyConfig) -> None:
    """Build every method's plan once, so that settings that do not fit are refused early.

    Raises:
        ConfigError: Naming the method.
    """
    for name in config.methods:
        for seed in config.seeds:
            build_plan(config, name, seed)


def read_masks(config: StudyConfig, where: str) -> Masks:
    """Masks for the study's network, from a file or a study's candidate.

    Args:
        config: The study that they are for.
        where: A file, or STUDY@PICK.

    Raises:
        ValueError: They are not there, or for another network.
    """
    folder, at, pick = where.rpartition(AT)
    path = Path(where).expanduser()
    if at and not path.is_file():
        study = Study(Path(folder).expanduser())
        masks = study.masks(study.pick(pick))
    elif path.is_file():
        masks = Masks.load(path)
    else:
        raise ValueError(f"masks: there is no file {path.absolute()}, and no {AT} for a study")
    if masks.groups != config.network.groups:
        raise ValueError(f"masks: those of {where} are for another network, or other parts of it")
    return masks


def method_jobs(
    study: Study,
    wanted: Sequence[tuple[str, int]],
    tasks: Mapping[str, Task],
    say: Say,
) -> tuple[dict[str, dict[str, Any]], list[MethodTraining]]:
    """Arguments of `train_method` for the trainings that are missing, and the others.

    Args:
        study: The study.
        wanted: Names of methods with seeds.
        tasks: Images and labels.
        say: Called where a damaged training is moved aside.

    Returns:
        Arguments by "<method>-<seed>", and the trainings that are finished.
    """
    config = study.config
    found: dict[str, dict[str, Any]] = {}
    done: list[MethodTraining] = []
    weights = given_weights_of(config).digest if config.backbone.pretrained else ""
    shelf = Shelf.of(config)
    for name, seed in wanted:
        plan = build_plan(config, name, seed)
        digests = phase_digests(
            plan,
            tasks,
            backbone=config.backbone,
            weights=weights,
            sgd=config.train.sgd,
            seed=seed,
            precision=config.compute.precision,
        )
        training = read_training(study, name, seed, digests[-1], say, weights=True)
        if training is not None:
            done.append(training)
        else:
            for digest in digests:  # what another study has trained already
                read = functools.partial(load_arrays, digest=digest)
                shelf.find(f"method-{digest[:20]}.safetensors", read, say)
            folder = study.folder / "methods" / name
            folder.mkdir(parents=True, exist_ok=True)
            named = getattr(config.methods[name].settings, "masks", None)
            if named is not None and not _kept_masks(config, name).is_file():
                _masks(config, name, named).save(_kept_masks(config, name))
            found[f"{name}-{seed}"] = {
                "plan": plan,
                "tasks": tasks,
                "backbone": config.backbone,
                "sgd": config.train.sgd,
                "seed": seed,
                "compute": config.compute,
                "digests": digests,
                "folder": shelf.own.absolute(),
                "progress": progress_file(study, name, seed).absolute(),
            }
    return found, done


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a training came to nothing.

    Attributes:
        reason: In words.
        final: Whether it would fail again: a candidate that failed is recorded.
    """

    reason: str
    final: bool


def attempt_method(**arguments: Any) -> MethodResult | Failure:
    """`train_method`, or why it failed: of several methods one may."""
    try:
        return train_method(**arguments)
    except FloatingPointError as error:
        return Failure(reason=str(error), final=True)
    except (RuntimeError, MemoryError, OSError) as error:  # of memory, a device, a disk
        return Failure(reason=f"{type(error).__name__}: {error}", final=False)


def progress_file(study: Study, name: str, seed: int) -> Path:
    """Where a training says how far it is."""
    return study.folder / "methods" / name / f"seed{seed}.progress.json"


def keep_training(
    study: Study, name: str, seed: int, job: Mapping[str, Any], result: MethodResult
) -> MethodTraining:
    """Write a finished training, and give what its phases have trained to the cache."""
    shelf = Shelf.of(study.config)
    for digest in job["digests"]:
        shelf.share(f"method-{digest[:20]}.safetensors")
    folder = study.folder / "methods" / name
    digest = job["digests"][-1]
    mean = float(np.mean(list(result.accuracy["validation"].values())))
    content = fingerprint(seed=seed, method=name, digest=digest)
    weights = folder / f"seed{seed}.safetensors"
    store(Trained(state=result.state, accuracy=mean, digest=content), weights)
    networks = _networks(study.config, job["plan"], job["tasks"], seed, result.state)
    training = MethodTraining(
        method=name,
        seed=seed,
        accuracy=result.accuracy,
        after=result.after,
        curve=tuple((point.step, point.loss) for point in result.curve),
        stored=sum(part.stored(range(len(part.rows))) for part in networks.values()),
        kept={
            str(network): networks[part].stored([row])
            for network, (part, row) in job["plan"].places.items()
        },
        steps=result.steps,
        seconds=result.seconds,
    )
    saved = {**TRAINING.header, **vars(training), "digest": digest, "weights": content}
    write_json(folder / f"seed{seed}.json", saved, sealed=True)
    progress_file(study, name, seed).unlink(missing_ok=True)
    return training


def read_training(
    study: Study, name: str, seed: int, digest: str | None, say: Say, *, weights: bool = False
) -> MethodTraining | None:
    """A finished training of a study; None where there is none, or a damaged one.

    Args:
        study: The study.
        name: The method's.
        seed: Of the training.
        digest: Of its last phase; None takes any.
        say: Called where a damaged one is moved aside.
        weights: Look at its weights, too.

    Raises:
        FormatError: It was written by an Apportion of another version.
    """
    path = study.folder / "methods" / name / f"seed{seed}.json"
    if not path.exists():
        return None
    try:
        saved = read_json(path)
        TRAINING.check(saved.get("version"), path)
        if digest not in (None, saved["digest"]):
            return None
        if weights:
            load(path.with_suffix(".safetensors"), digest=saved["weights"])
        names = ("method", "seed", "accuracy", "stored", "kept", "steps", "seconds")
        return MethodTraining(
            **{each: saved[each] for each in names},
            after=tuple(saved["after"]),
            curve=tuple((step, loss) for step, loss in saved["curve"]),
        )
    except FileNotFoundError:  # of its weights
        return None
    except (DamagedFileError, KeyError) as error:
        damaged = DamagedFileError(f"{path} is damaged: {error}")
        for part in (path, path.with_suffix(".safetensors")):
            move_aside(part, damaged, say)
        return None


def read_trainings(study: Study, say: Say = print) -> list[MethodTraining]:
    """All finished trainings of a study's methods, by method and seed."""
    found = []
    for name in study.config.methods:
        names = (p.stem for p in (study.folder / "methods" / name).glob("seed*.json"))
        for seed in sorted(int(n[4:]) for n in names if n[4:].isdecimal()):
            if (training := read_training(study, name, seed, None, say)) is not None:
                found.append(training)
    return found


def levels_of(plan: Plan) -> list[dict[str, VirtualNetwork]]:
    """By level, a network for every task: its highest where it has no more."""
    by_task: dict[str, list[VirtualNetwork]] = {}
    for network in plan.places:
        by_task.setdefault(network.task, []).append(network)
    most = max(map(len, by_task.values()))
    return [
        {task: own[min(level, len(own) - 1)] for task, own in by_task.items()}
        for level in range(most)
    ]


def method_candidates(
    config: StudyConfig, training: MethodTraining, classes: Mapping[str, int], started: float
) -> list[Candidate]:
    """A candidate for each level of a training: what it reaches, and what it costs.

    Args:
        config: The study.
        training: Of one of its methods.
        classes: Number of classes by task.
        started: Unix time in seconds.
    """
    plan = build_plan(config, training.method, training.seed)
    attribute = COSTS[config.objective.cost].attribute
    found = []
    for level, networks in enumerate(levels_of(plan)):
        accuracy = {t: training.accuracy["validation"][str(n)] for t, n in networks.items()}
        quality = float(np.mean(list(accuracy.values())))
        masks, counted = level_costs(config, plan, networks, classes, training)
        measured = Measurement(
            steps=config.train.sgd.steps,
            fidelity="full",
            quality=quality,
            accuracy=accuracy,
            seconds=training.seconds / len(levels_of(plan)),
        )
        found.append(
            Candidate(
                strategy=training.method,
                seed=training.seed,
                index=level,
                vector=(),
                names=(),
                quality=quality,
                cost=float(getattr(counted, attribute)),
                decoding=Decoding(
                    masks=masks,
                    realised={g.name: _rounded(masks.realised(g.name)) for g in masks.groups},
                ),
                costs=counted,
                rungs=(measured,),
                started=started,
                finished=time.time(),
            )
        )
    return found


def method_points(study: Study, say: Say = print) -> "pd.DataFrame":
    """What every network of a study's methods reaches and costs.

    Args:
        study: Of methods.
        say: Called where a damaged training is moved aside.

    Returns:
        A row for each (method, seed, level, task): these, candidate, validation and test accuracy
        (NaN where there is no test split), parameters and macs of the network, and stored, the
        numbers that all networks of the method together keep.
    """
    import pandas as pd

    by_id = {candidate.id: candidate for candidate in study.candidates()}
    rows = []
    for training in read_trainings(study, say):
        plan = build_plan(study.config, training.method, training.seed)
        for level, networks in enumerate(levels_of(plan)):
            candidate = by_id.get(f"{training.method}-{training.seed}-{level}")
            if candidate is None or candidate.costs is None:
                continue
            for task, network in networks.items():
                rows.append(
                    {
                        "method": training.method,
                        "seed": training.seed,
                        "level": level,
                        "task": task,
                        "candidate": candidate.id,
                        "validation": training.accuracy["validation"][str(network)],
                        "test": training.accuracy.get("test", {}).get(str(network), np.nan),
                        "parameters": candidate.costs.parameters[task],
                        "macs": candidate.costs.macs[task],
                        "stored": training.stored,
                    }
                )
    return pd.DataFrame(rows, columns=POINT_COLUMNS)


def method_curves(
    study: Study, say: Say = print
) -> dict[str, list[tuple[int, Mapping[str, float]]]]:
    """By candidate: steps done, and what was measured then of its networks.

    Args:
        study: Of methods.
        say: Called where a damaged training is moved aside.
    """
    found: dict[str, list[tuple[int, Mapping[str, float]]]] = {}
    for training in read_trainings(study, say):
        plan = build_plan(study.config, training.method, training.seed)
        test = training.accuracy.get("test", {})
        for level, networks in enumerate(levels_of(plan)):
            own = {str(network): task for task, network in networks.items()}
            points: list[tuple[int, Mapping[str, float]]] = [
                (step, {f"loss/{own[name]}": loss for name, loss in losses.items() if name in own})
                for step, losses in training.curve
            ]
            last = {f"test/{task}": test[name] for name, task in own.items() if name in test}
            if last:
                last["test_mean"] = float(np.mean(list(last.values())))
            points.append((training.steps, last))
            found[f"{training.method}-{training.seed}-{level}"] = points
    return found


def level_costs(
    config: StudyConfig,
    plan: Plan,
    networks: Mapping[str, VirtualNetwork],
    classes: Mapping[str, int],
    training: MethodTraining,
) -> tuple[Masks, Costs]:
    """Masks of a level, a row for every task, and what its networks cost.

    The union is all that the method keeps, for all its levels. Where weights are shared out one by
    one, or a network has layers before its head, its parameters are those that it keeps.

    Args:
        config: The study.
        plan: Of the method.
        networks: Of the level, by task.
        classes: Number of classes by task.
        training: Of the method.
    """
    places = plan.places
    rows = [(task, *places[network]) for task, network in networks.items()]
    groups = config.network.groups
    masks = Masks(
        networks=tuple(VirtualNetwork(task=task) for task in networks),
        groups=groups,
        forward={
            group.name: np.stack(
                [plan.parts[part].masks.forward[group.name][row] for _, part, row in rows]
            )
            for group in groups
        },
    )
    counted = costs(config.network, masks, [classes[task] for task in networks])
    whole = counted.union_parameters / counted.relative_union
    square = config.network.features**2
    parameters, macs = dict(counted.parameters), dict(counted.macs)
    for task, part, row in rows:
        own = plan.parts[part]
        macs[task] += own.layers(row) * square
        if own.pruned or own.layers(row):
            parameters[task] = training.kept[str(networks[task])]
    weights, work = (
        sum(now.values()) / sum(before.values())
        for now, before in ((parameters, counted.parameters), (macs, counted.macs))
    )
    return masks, replace(
        counted,
        parameters=parameters,
        macs=macs,
        relative_parameters=counted.relative_parameters * weights,
        relative_macs=counted.relative_macs * work,
        union_parameters=training.stored,
        relative_union=training.stored / whole,
    )


def facts_of(tasks: Mapping[str, Task]) -> tuple[TaskFacts, ...]:
    """What is known of tasks without teachers."""
    return tuple(
        TaskFacts(
            name=name,
            classes=task.num_classes,
            images=len(task.splits["train"]),
            floor=commonest_share(task.splits["validation"]),
        )
        for name, task in tasks.items()
    )


def export_level(
    study: Study,
    candidate: Candidate,
    tasks: Mapping[str, Task],
    out: Path,
    say: Say,
) -> dict[str, ExportCheck]:
    """Write a compact network for every task of a level.

    Args:
        study: Of methods.
        candidate: A level of one.
        tasks: That every network is checked on.
        out: Folder of the networks.
        say: Called with one line per network.

    Raises:
        StudyError: Its weights are not there.
        ExportError: A network does not compute what the method's does.
    """
    config, name, seed = study.config, candidate.strategy, candidate.seed
    path = study.folder / "methods" / name / f"seed{seed}.safetensors"
    try:
        state = load(path).state
    except (FileNotFoundError, DamagedFileError) as error:
        raise StudyError(f"{error}: train it again with `apportion train {study.folder}`") from None
    plan = build_plan(config, name, seed)
    parts = _networks(config, plan, tasks, seed, state)
    checks: dict[str, ExportCheck] = {}
    for task, network in levels_of(plan)[candidate.index].items():
        part, row = plan.places[network]
        try:
            network_alone = alone(parts[part], row, tasks[task])
        except ValueError as error:
            raise ExportError(str(error)) from error
        found = export_networks(network_alone, tasks, out)
        checks |= found
        for each, check in found.items():
            say(f"exported {out / each}: {check.accuracy:.3f} on {check.images} images")
    candidate.masks.save(out / "masks.json")
    return checks


def _networks(
    config: StudyConfig, plan: Plan, tasks: Mapping[str, Task], seed: int, state: Mapping[str, Any]
) -> dict[str, SharedNetworks]:
    classes = {name: task.num_classes for name, task in tasks.items()}
    networks = make_networks(plan, config.network, classes, seed, torch.device("cpu"))
    load_parts(networks, state)
    for own in networks.values():
        for row in own.rows:
            row.row.module.eval()
    return networks


def _rounded(matrix: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(entry), 6) for entry in row) for row in matrix)
