"""Levels of a study's methods: candidates with what they reach and cost, tables, exports.

A candidate is a level of a method with a seed: one network for every task.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from partitioning import DamagedFileError, Masks, VirtualNetwork, appears_whole
from search.candidates import Candidate, Decoding, Measurement
from search.config import COSTS, StudyConfig
from search.study.exports import note_export
from search.study.folder import Study
from search.study.method_plans import build_plan
from search.study.method_trainings import MethodTraining, read_trainings, trained_networks
from search.study.shelf import Say, StudyError
from search.study.training import say_exported
from trainers.cost import Costs, costs
from trainers.data import Task
from trainers.export import PROGRAM, ExportConfig, Exported, ExportError, export_networks
from trainers.methods import ElasticNetworks, Plan, alone, export_chosen
from trainers.teachers import load

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd

#: Of the table of all networks of a study's methods.
POINT_COLUMNS = [
    "method", "seed", "level", "task", "candidate", "validation", "test", "parameters", "macs",
    "stored", "chosen",
]  # fmt: skip

CHOSEN_COLUMNS = [
    "method", "seed", "level", "task", "split", "chosen", "shuffled", "random", "macs",
    "random_macs", "selector_macs", "parameters", "selector_parameters", "different", "images",
    "levels", "structures", "examples",
]  # fmt: skip


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
    levels = _levels_of(plan)
    for level, networks in enumerate(levels):
        accuracy = {t: training.accuracy["validation"][str(n)] for t, n in networks.items()}
        quality = float(np.mean(list(accuracy.values())))
        masks, counted = _level_costs(config, plan, networks, classes, training)
        measured = Measurement(
            steps=training.steps,
            fidelity="full",
            quality=quality,
            accuracy=accuracy,
            seconds=training.seconds / len(levels),
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
                decoding=Decoding.of(masks),
                costs=counted,
                rungs=(measured,),
                started=started,
                finished=time.time(),
            )
        )
    return found


def _trained_levels(
    study: Study, say: Say
) -> Iterator[tuple[MethodTraining, int, dict[str, VirtualNetwork]]]:
    """Every level of every training, with its networks by task."""
    for training in read_trainings(study, say):
        plan = build_plan(study.config, training.method, training.seed)
        for level, networks in enumerate(_levels_of(plan)):
            yield training, level, networks


def method_points(study: Study, say: Say = print) -> "pd.DataFrame":
    """What every network of a study's methods reaches and costs.

    Args:
        study: Of methods.
        say: Called where a damaged training is moved aside.

    Returns:
        A row for each (method, seed, level, task): these, candidate, validation and test accuracy
        (NaN where there is no test split), parameters and macs of the network, stored, the numbers
        that all networks of the method together keep, and chosen, whether a selector chooses it for
        every image: then costs are means, with the selector.
    """
    import pandas as pd

    by_id = {candidate.id: candidate for candidate in study.candidates()}
    rows = []
    for training, level, networks in _trained_levels(study, say):
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
                    "chosen": str(network) in training.choices.get("validation", {}),
                }
            )
    return pd.DataFrame(rows, columns=POINT_COLUMNS)


def chosen_points(study: Study, say: Say = print) -> "pd.DataFrame":
    """What the selectors of a study's methods choose, and what it is worth.

    Args:
        study: Of methods.
        say: Called where a damaged training is moved aside.

    Returns:
        A row for each (method, seed, level, task) that is chosen per image, and split: accuracy
        (chosen), shuffled (each image with another one's network) and random (levels drawn, of
        as many multiply-accumulates); macs and parameters of an image's network (means, without the
        selector), random_macs, selector_macs and selector_parameters; different structures, images;
        levels, the shares of images by block and level, structures with their numbers of images,
        the most frequent first, and examples, positions in the split of images of each, as JSON.
    """
    import pandas as pd

    rows = []
    for training, level, networks in _trained_levels(study, say):
        for (task, network), split in product(networks.items(), training.choices):
            if (found := training.choices[split].get(str(network))) is not None:
                accuracy = training.accuracy.get(split, {}).get(str(network), np.nan)
                own = {**found, "chosen": accuracy}
                for each in ("levels", "structures", "examples"):
                    own[each] = json.dumps(found[each])
                keys = [training.method, training.seed, level, task, split]
                rows.append([*keys, *(own[name] for name in CHOSEN_COLUMNS[len(keys) :])])
    return pd.DataFrame(rows, columns=CHOSEN_COLUMNS)


def method_curves(
    study: Study, say: Say = print
) -> dict[str, list[tuple[int, Mapping[str, float]]]]:
    """By candidate: steps done, and what was measured then of its networks.

    Args:
        study: Of methods.
        say: Called where a damaged training is moved aside.
    """
    found: dict[str, list[tuple[int, Mapping[str, float]]]] = {}
    for training, level, networks in _trained_levels(study, say):
        test = training.accuracy.get("test", {})
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


def export_level(
    study: Study,
    candidate: Candidate,
    tasks: Mapping[str, Task],
    out: Path,
    files: ExportConfig,
    say: Say,
) -> Exported:
    """Write a compact network for every task of a level, all or none.

    Args:
        study: Of methods.
        candidate: A level of one.
        tasks: That every network is checked on.
        out: Folder of the networks.
        files: Which are written; of a network that is chosen per image programs for torch.
        say: Called with one line per network.

    Raises:
        StudyError: Its weights are not there.
        ExportError: A network does not compute what the method's does, or there are no such files.
    """
    config, name, seed = study.config, candidate.strategy, candidate.seed
    path = study.folder / "methods" / name / f"seed{seed}.safetensors"
    try:
        state = load(path).state
    except (FileNotFoundError, DamagedFileError) as error:
        raise StudyError(f"{error}: train it again with `apportion train {study.folder}`") from None
    plan = build_plan(config, name, seed)
    parts = trained_networks(config, plan, tasks, seed, state)
    written: list[Exported] = []
    with appears_whole(out) as folder:
        for task, network in _levels_of(plan)[candidate.index].items():
            part, row = plan.places[network]
            own = parts[part]
            if isinstance(own, ElasticNetworks) and own.budget_of(row) is not None:
                if "pt2" not in files.formats:
                    raise ExportError(
                        f"{name} chooses a network per image: it needs the format pt2"
                    )
                check = export_chosen(own, row, tasks[task], folder / task)
                written.append(Exported(networks={}, checks={task: {PROGRAM: check}}))
                continue
            try:
                network_alone = alone(own, row, tasks[task])
            except ValueError as error:
                raise ExportError(str(error)) from error
            written.append(export_networks(network_alone, tasks, folder, files))
        candidate.masks.save(folder / "masks.json")
    exported = Exported(
        checks={name: checks for one in written for name, checks in one.checks.items()},
        networks={name: own for one in written for name, own in one.networks.items()},
    )
    say_exported(out, exported, say)
    note_export(
        study.folder, candidate=candidate.id, seed=seed, out=out, formats=files.formats, say=say
    )
    return exported


def _levels_of(plan: Plan) -> list[dict[str, VirtualNetwork]]:
    """By level, a network for every task: its highest where it has no more."""
    by_task: dict[str, list[VirtualNetwork]] = {}
    for network in plan.places:
        by_task.setdefault(network.task, []).append(network)
    most = max(map(len, by_task.values()))
    return [
        {task: own[min(level, len(own) - 1)] for task, own in by_task.items()}
        for level in range(most)
    ]


def _level_costs(
    config: StudyConfig,
    plan: Plan,
    networks: Mapping[str, VirtualNetwork],
    classes: Mapping[str, int],
    training: MethodTraining,
) -> tuple[Masks, Costs]:
    """Masks of a level, a row for every task, and what its networks cost.

    The union is all that the method keeps, for all its levels. Where weights are shared out one by
    one, or a network has layers before its head, its parameters are those that it keeps; where
    they are chosen per image, parameters and multiply-accumulates are means over validation images.

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
    chosen = training.choices.get("validation", {})
    for task, part, row in rows:
        own = plan.parts[part]
        if (measured := chosen.get(str(networks[task]))) is not None:
            parameters[task] = round(measured["parameters"] + measured["selector_parameters"])
            macs[task] = round(measured["macs"] + measured["selector_macs"])
            continue
        macs[task] = macs[task] * own.copies + own.layers(row) * square
        if own.pruned or own.layers(row) or own.copies > 1:
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
