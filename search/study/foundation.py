"""Tasks, trunk and teachers of a study: made once, then read from where they are kept."""

import filecmp
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from partitioning import write_atomically
from search.config import ConfigError, StudyConfig, TrunkConfig
from search.strategies import TaskFacts, TaskKnowledge
from search.study.basis import Check, accept, data_basis, origin, program_basis, weights_basis
from search.study.shelf import Say, Shelf, own_folder
from trainers.data import Task, check_tasks, commonest_share, load_task, load_tasks
from trainers.similarity import linear_cka, probe_images, similarity_digest, teacher_features
from trainers.teachers import (
    Trained,
    load,
    load_checkpoint,
    pretrain_trunk,
    store,
    teacher_digest,
    train_teacher,
    trunk_digest,
)
from trainers.tensor_files import load_arrays, save_arrays

#: Runs `function(**arguments)` for every entry and yields key and result as each is done, so that
#: it can be kept at once. The scheduler's runs them on the cluster; `run_here` in this process.
Jobs = Mapping[str, Mapping[str, Any]]
Run = Callable[[Callable[..., Any], Jobs], Iterator[tuple[str, Any]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Foundation:
    """What candidates are scored and trained on.

    Attributes:
        tasks: Images and labels, by task.
        trunk: The pretrained network.
        teachers: By task.
    """

    tasks: Mapping[str, Task]
    trunk: Trained
    teachers: Mapping[str, Trained]


def run_here(function: Callable[..., Any], jobs: Jobs) -> Iterator[tuple[str, Any]]:
    """Run jobs one after another in this process."""
    for key, arguments in jobs.items():
        yield key, function(**arguments)


def check_inputs(config: StudyConfig) -> None:
    """Refuse, before any compute, data or a checkpoint that cannot be used.

    Raises:
        DataError: Of a dataset.
        CheckpointError: Of the trunk's checkpoint.
    """
    if config.evaluator == "simulated" or config.trunk is None:
        return
    check_tasks(config.data)
    if config.trunk.dataset is not None:
        check_tasks(replace(config.data, tasks=(config.trunk.dataset,)))
    else:
        load_checkpoint(config.backbone, _checkpoint(config, config.trunk))


def build_foundation(
    config: StudyConfig,
    run: Run,
    say: Say,
    tasks: Mapping[str, Task] | None = None,
    check: Check = accept,
) -> Foundation:
    """Load the tasks, then make or load the trunk and the teachers.

    Files that are damaged are moved aside and made again.

    Args:
        config: The study; that of a seed where seeds have foundations of their own.
        run: Where training runs.
        say: Called with one line per thing that was done.
        tasks: The tasks if they are loaded already.
        check: Called with digests of all this depends on, each before anything is made of it.

    Raises:
        DataError: A task's data is missing, or not what the config says.
        ConfigError: The study's scores are simulated: there is nothing to train on.
    """
    check(program_basis())
    tasks = tasks or read_tasks(config, say)
    assert config.trunk is not None, "only simulated studies have none"
    check(data_basis(tasks))
    trunk = _trunk(config, config.trunk, run, say, check)
    teachers = _teachers(config, tasks, trunk, config.trunk.seed, run, say, check)
    return Foundation(tasks=tasks, trunk=trunk, teachers=teachers)


def task_knowledge(config: StudyConfig, base: Foundation, run: Run, say: Say) -> TaskKnowledge:
    """What strategies may know of the tasks before the search: facts, and how alike teachers are.

    Args:
        config: The study.
        base: Tasks and teachers.
        run: Where the forward passes run.
        say: Called with one line per thing that was done.
    """
    digest = similarity_digest(base.teachers, base.tasks, precision=config.compute.precision)
    shelf, name = Shelf.of(config), f"similarity-{digest[:20]}.safetensors"
    kept = shelf.find(name, functools.partial(load_arrays, digest=digest), say)
    if kept is not None:
        similarity = kept[0]["similarity"]
    else:
        say("similarity of the teachers: every teacher is shown images of every task")
        images = probe_images(list(base.tasks.values()))
        jobs = {
            task: {
                "config": config.backbone,
                "teacher": base.teachers[task],
                "task": base.tasks[task],
                "images": images,
                "compute": config.compute,
            }
            for task in base.tasks
        }
        found = dict(run(teacher_features, jobs))
        similarity = linear_cka([found[task] for task in base.tasks])
        arrays, metadata = {"similarity": similarity}, {"digest": digest}
        shelf.keep(name, functools.partial(save_arrays, arrays, metadata=metadata))
    facts = tuple(
        TaskFacts(
            name=name,
            classes=task.num_classes,
            images=len(task.splits["train"]),
            teacher_accuracy=base.teachers[name].accuracy,
            floor=commonest_share(task.splits["validation"]),
        )
        for name, task in base.tasks.items()
    )
    return TaskKnowledge(tasks=facts, similarity=similarity)


def read_tasks(config: StudyConfig, say: Say) -> Mapping[str, Task]:
    """The tasks of a study, with a line for each.

    Raises:
        DataError: A task's data is missing, or not what the config says.
        ConfigError: The same, of a study that is there; or its scores are simulated.
    """
    if config.evaluator == "simulated":
        raise ConfigError(
            f"the study {config.name} is simulated: it has no images to train networks on"
        )
    try:
        tasks = load_tasks(config.data)
    except ValueError as error:
        kept = config.folder / "config.yaml"
        if not kept.is_file():
            raise
        raise ConfigError(f"{error}. {kept} says where the data lies: data_root") from error
    for name, task in tasks.items():
        say(f"task {name}: {task.summary()}")
    return tasks


def _kept_checkpoint(config: StudyConfig, source: TrunkConfig) -> Path:
    assert source.checkpoint is not None
    return own_folder(config.folder) / f"checkpoint{Path(source.checkpoint).suffix}"


def _checkpoint(config: StudyConfig, source: TrunkConfig) -> Path:
    """Where the config says that the checkpoint lies; the study's copy where it does no more."""
    assert source.checkpoint is not None
    given, kept = Path(source.checkpoint).expanduser(), _kept_checkpoint(config, source)
    return kept if kept.is_file() and not given.exists() else given


def _keep_checkpoint(config: StudyConfig, source: TrunkConfig, path: Path) -> None:
    """Copy a checkpoint to the study, if it has a folder: a link would change with the file."""
    kept = _kept_checkpoint(config, source)
    if not (config.folder / "config.yaml").is_file() or path == kept:
        return
    if not (kept.is_file() and filecmp.cmp(path, kept, shallow=False)):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(kept) as partial:
            shutil.copyfile(path, partial)


def _trunk(config: StudyConfig, source: TrunkConfig, run: Run, say: Say, check: Check) -> Trained:
    what = f"the trunk of seed {source.seed}"
    if source.dataset is None:
        path = _checkpoint(config, source)
        trunk = load_checkpoint(config.backbone, path)
        check(weights_basis(what, trunk))
        _keep_checkpoint(config, source, path)
        say(f"trunk: {path}")
        return trunk
    task = load_task(source.dataset, config.data)
    say(f"trunk's dataset {task.name}: {task.summary()}")
    check(data_basis({task.name: task}, "the trunk's dataset"))
    sgd, seed = source.sgd, source.seed
    digest = trunk_digest(config.backbone, task, sgd, seed=seed, precision=config.compute.precision)
    check(origin(what, digest))
    shelf, name = Shelf.of(config), f"trunk-{digest[:20]}.safetensors"
    found = shelf.find(name, functools.partial(load, digest=digest), say)
    if found is None:
        say(f"trunk: pretraining on {task.name} for {sgd.steps} steps of {sgd.batch_size} images")
        job = {
            "config": config.backbone,
            "task": task,
            "sgd": sgd,
            "seed": seed,
            # Nothing else can run before the trunk is there, so it takes every core.
            "compute": replace(config.compute, threads=os.cpu_count() or 1),
        }
        ((_, trained),) = run(pretrain_trunk, {"trunk": job})
        found = load(shelf.keep(name, functools.partial(store, trained)))
    check(weights_basis(what, found))
    say(f"trunk: {found.accuracy:.3f} validation accuracy on {task.name}")
    return found


def _teachers(
    config: StudyConfig,
    tasks: Mapping[str, Task],
    trunk: Trained,
    seed: int,
    run: Run,
    say: Say,
    check: Check,
) -> dict[str, Trained]:
    shelf = Shelf.of(config)
    files: dict[str, str] = {}
    teachers: dict[str, Trained] = {}
    for name, task in tasks.items():
        digest = teacher_digest(
            config.backbone, trunk, task, config.teachers, seed=seed,
            precision=config.compute.precision,
        )  # fmt: skip
        check(origin(_teacher(name, seed), digest))
        files[name] = f"teacher-{name}-{digest[:20]}.safetensors"
        found = shelf.find(files[name], functools.partial(load, digest=digest), say)
        if found is not None:
            teachers[name] = found
    jobs = {
        name: {
            "config": config.backbone,
            "trunk": trunk,
            "task": tasks[name],
            "teacher": config.teachers,
            "seed": seed,
            "compute": config.compute,
        }
        for name in tasks
        if name not in teachers
    }
    if jobs:
        say(f"teachers: training {len(jobs)} for {config.teachers.sgd.steps} steps each")
    for name, trained in run(train_teacher, jobs):
        teachers[name] = load(shelf.keep(files[name], functools.partial(store, trained)))
    for name in tasks:
        check(weights_basis(_teacher(name, seed), teachers[name]))
        say(f"teacher {name}: {teachers[name].accuracy:.3f} validation accuracy")
    return {name: teachers[name] for name in tasks}


def _teacher(task: str, seed: int) -> str:
    return f"the teacher of {task} of seed {seed}"
