"""Tasks, trunk and teachers of a study: made once, then read from where they are kept."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from partitioning import DamagedFileError
from search.config import ConfigError, StudyConfig
from search.strategies import TaskFacts, TaskKnowledge
from search.study.basis import (
    Check,
    accept,
    data_basis,
    origin,
    program_basis,
    teacher_of,
    trunk_of,
    weights_basis,
)
from search.study.shelf import Say, Shelf, own_folder
from trainers.data import Task, check_tasks, commonest_share, load_task, load_tasks
from trainers.export import check_exportable
from trainers.joint import require_library
from trainers.networks import BackboneError
from trainers.similarity import linear_cka, probe_images, similarity_digest, teacher_features
from trainers.teachers import (
    Trained,
    given_weights,
    load,
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

    @property
    def parts(self) -> tuple[Mapping[str, Task], Trained, Mapping[str, Trained]]:
        """Tasks, trunk and teachers."""
        return self.tasks, self.trunk, self.teachers


def run_here(function: Callable[..., Any], jobs: Jobs) -> Iterator[tuple[str, Any]]:
    """Run jobs one after another in this process."""
    for key, arguments in jobs.items():
        yield key, function(**arguments)


def check_inputs(config: StudyConfig) -> None:
    """Refuse, before any compute, data, a network or weights that cannot be used.

    Raises:
        DataError: Of a dataset.
        BackboneError: Of the network, or of the weights that it begins with.
        MissingLibraryError: Full training needs a library that is not installed.
        ExportError: Rows of the network cannot be exported.
    """
    network = config.network
    if config.evaluator == "simulated":
        return
    network.check_batches(batches(vars(config)))
    require_library(config.train)
    check_exportable(network, config.size)
    check_tasks(config.data)
    if config.pretraining.dataset is not None:
        check_tasks(replace(config.data, tasks=(config.pretraining.dataset,)))
    if config.backbone.pretrained:
        given_weights_of(config)


def batches(parts: Mapping[str, Any]) -> dict[str, int]:
    """How many images are normalised together, by the setting that says it.

    Args:
        parts: Of a config, those that are sound.
    """
    found = {}
    for name in ("proxy", "teachers", "train", "trunk"):
        if getattr(parts.get(name), "sgd", None) is not None:
            found[f"{name}.sgd.batch_size"] = parts[name].sgd.batch_size
    if "proxy" in parts:
        found["proxy.images"] = parts["proxy"].images
    return found


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
    check(program_basis(config))
    tasks = tasks or read_tasks(config, say)
    check(data_basis(tasks))
    trunk = _trunk(config, run, say, check)
    teachers = _teachers(config, tasks, trunk, config.pretraining.seed, run, say, check)
    return Foundation(tasks=tasks, trunk=trunk, teachers=teachers)


def single_networks(
    config: StudyConfig, base: Foundation, seed: int, run: Run, say: Say
) -> Mapping[str, Trained]:
    """Single-task networks of a seed, by task: those of a foundation, or others made like them.

    Args:
        config: The study whose foundation it is.
        base: Tasks, trunk and teachers.
        seed: Of the networks; that of the foundation's teachers is `config.pretraining.seed`.
        run: Where training runs.
        say: Called with one line per thing that was done.
    """
    if seed == config.pretraining.seed:
        return base.teachers
    return _teachers(config, base.tasks, base.trunk, seed, run, say, accept)


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
    facts = facts_of(base.tasks, base.teachers)
    return TaskKnowledge(tasks=facts, similarity=similarity)


def facts_of(
    tasks: Mapping[str, Task], teachers: Mapping[str, Trained] | None = None
) -> tuple[TaskFacts, ...]:
    """What is known of tasks, and of their teachers where there are any."""
    return tuple(
        TaskFacts(
            name=name,
            classes=task.num_classes,
            images=len(task.splits["train"]),
            teacher_accuracy=None if teachers is None else teachers[name].accuracy,
            floor=commonest_share(task.splits["validation"]),
        )
        for name, task in tasks.items()
    )


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
        tasks = load_tasks(config.data, config.images_folder)
    except ValueError as error:
        kept = config.folder / "config.yaml"
        if not kept.is_file():
            raise
        raise ConfigError(f"{error}. {kept} says where the data lies: data_root") from error
    for name, task in tasks.items():
        say(f"task {name}: {task.summary()}")
    return tasks


def given_weights_of(config: StudyConfig) -> Trained:
    """The weights that the network begins with; the study's copy where they are there no more.

    Raises:
        BackboneError: They cannot be read or do not fit.
    """
    try:
        return given_weights(config.backbone, input_size=config.size)
    except BackboneError:
        kept, file = _kept_weights(config), config.backbone.weights
        if not kept.is_file() or (file and Path(file).expanduser().exists()):
            raise
        copy = load(kept)
        return replace(copy, content=copy.digest)


def _kept_weights(config: StudyConfig) -> Path:
    return own_folder(config.folder) / "weights.safetensors"


def _keep_weights(config: StudyConfig, given: Trained) -> None:
    """Write what the network begins with to the study, if it has a folder and lacks them."""
    if not (config.folder / "config.yaml").is_file():
        return
    kept = _kept_weights(config)
    with suppress(DamagedFileError, OSError):
        if load(kept).digest == given.digest:
            return
    store(given, kept)


def _trunk(config: StudyConfig, run: Run, say: Say, check: Check) -> Trained:
    source = config.pretraining
    what = trunk_of(source.seed)
    given = given_weights_of(config) if config.backbone.pretrained else None
    if source.dataset is None:
        assert given is not None, "refused by the config"
        check(weights_basis(what, given))
        _keep_weights(config, given)
        say(f"trunk: the weights of {config.backbone.model} as they are given")
        return given
    task = load_task(source.dataset, config.data, config.images_folder)
    say(f"trunk's dataset {task.name}: {task.summary()}")
    check(data_basis({task.name: task}, "the trunk's dataset"))
    sgd, seed = source.sgd, source.seed
    digest = trunk_digest(
        config.backbone, task, sgd, start=given.digest if given else "", seed=seed,
        precision=config.compute.precision,
    )  # fmt: skip
    check(origin(what, digest))
    if given is not None:
        _keep_weights(config, given)
    shelf, name = Shelf.of(config), f"trunk-{digest[:20]}.safetensors"
    found = shelf.find(name, functools.partial(load, digest=digest), say)
    if found is None:
        say(f"trunk: pretraining on {task.name} for {sgd.steps} steps of {sgd.batch_size} images")
        job = {
            "config": config.backbone,
            "task": task,
            "sgd": sgd,
            "seed": seed,
            "start": given,
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
        check(origin(teacher_of(name, seed), digest))
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
        check(weights_basis(teacher_of(name, seed), teachers[name]))
        say(f"teacher {name}: {teachers[name].accuracy:.3f} validation accuracy")
    return {name: teachers[name] for name in tasks}
