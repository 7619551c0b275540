"""Trainings of a study's methods: what is still to be trained, and what is kept.

A training lies in the study's `methods/<method>/`, as `seed<N>.safetensors` and `seed<N>.json`,
which is written last. What a phase has trained lies where trunks and teachers do, so that a study
with one task more goes on from it.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partitioning import TRAINING, DamagedFileError, read_json, write_json
from search.config import StudyConfig
from search.study.folder import Study
from search.study.foundation import given_weights_of
from search.study.method_plans import build_plan, keep_masks
from search.study.shelf import Say, Shelf, StudyError, move_aside
from trainers.data import Task
from trainers.methods import (
    MethodResult,
    Plan,
    SharedNetworks,
    load_parts,
    make_networks,
    phase_digests,
)
from trainers.teachers import Trained, fingerprint, load, store
from trainers.tensor_files import load_arrays


@dataclass(frozen=True, kw_only=True)
class MethodTraining:
    """A method's finished training with a seed.

    Attributes:
        method: Its name in the study.
        seed: Of the training.
        accuracy: By split, then virtual network.
        choices: Likewise, of networks that are chosen per image: what their selector chooses.
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
    choices: Mapping[str, Mapping[str, Mapping[str, Any]]]
    after: tuple[Mapping[str, Mapping[str, float]], ...]
    curve: tuple[tuple[int, Mapping[str, float]], ...]
    stored: int
    kept: Mapping[str, int]
    steps: int
    seconds: float


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

    Raises:
        StudyError: A recorded training would be replaced by another.
    """
    config = study.config
    found: dict[str, dict[str, Any]] = {}
    done: list[MethodTraining] = []
    recorded = {candidate.id for candidate in study.candidates() if not candidate.failed}
    weights = given_weights_of(config).digest if config.backbone.pretrained else ""
    shelf = Shelf.of(config)
    for name, seed in wanted:
        plan = build_plan(config, name, seed)
        digests = phase_digests(
            plan,
            tasks,
            backbone=config.backbone,
            size=config.size,
            weights=weights,
            sgd=config.train.sgd,
            seed=seed,
            precision=config.compute.precision,
        )
        training = read_training(study, name, seed, digests[-1], say, weights=True)
        if training is not None:
            done.append(training)
        elif f"{name}-{seed}-0" in recorded and read_training(study, name, seed, None, say):
            raise StudyError(
                f"{name}, seed {seed}, of {study.folder} was trained otherwise than it would be "
                "now, and is recorded: train it in a study of another name"
            )
        else:
            for digest in digests:  # what another study has trained already
                read = functools.partial(load_arrays, digest=digest)
                shelf.find(f"method-{digest[:20]}.safetensors", read, say)
            folder = study.folder / "methods" / name
            folder.mkdir(parents=True, exist_ok=True)
            keep_masks(config, name)
            found[f"{name}-{seed}"] = {
                "plan": plan,
                "tasks": tasks,
                "backbone": config.backbone,
                "size": config.size,
                "sgd": config.train.sgd,
                "seed": seed,
                "compute": config.compute,
                "digests": digests,
                "folder": shelf.own.absolute(),
                "progress": progress_file(study, name, seed).absolute(),
            }
    return found, done


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
    networks = trained_networks(study.config, job["plan"], job["tasks"], seed, result.state)
    training = MethodTraining(
        method=name,
        seed=seed,
        accuracy=result.accuracy,
        choices=result.choices,
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
        names = ("method", "seed", "accuracy", "choices", "stored", "kept", "steps", "seconds")
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


def trained_networks(
    config: StudyConfig,
    plan: Plan,
    tasks: Mapping[str, Task],
    seed: int,
    state: Mapping[str, Tensor],
) -> dict[str, SharedNetworks]:
    """The networks of a plan, by part, as they were trained: on the CPU, in evaluation mode.

    Args:
        config: The study.
        plan: Of the method.
        tasks: Images and labels.
        seed: Of the training.
        state: Of its result.
    """
    networks = make_networks(plan, config.network, tasks, seed, torch.device("cpu"))
    load_parts(networks, state)
    for own in networks.values():
        for row in own.rows:
            row.row.module.eval()
    return networks
