"""Trunk, teachers and features of a study: computed once, then read from the cache."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from partitioning import write_atomically
from search.config import ConfigError, StudyConfig, TrunkConfig
from search.strategies import TaskFacts, TaskKnowledge
from trainers.data import Task, check_tasks, commonest_share, load_task, load_tasks
from trainers.proxy import (
    FeatureCache,
    TaskFeatures,
    build_cache,
    compute_features,
    feature_bytes,
    features_digest,
    load_features,
    save_features,
)
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

#: Runs `function(**arguments)` for every entry and yields key and result as each is done, so that
#: it can be kept at once. The scheduler's runs them on the cluster; `run_here` in this process.
Jobs = Mapping[str, Mapping[str, Any]]
Run = Callable[[Callable[..., Any], Jobs], Iterator[tuple[str, Any]]]
Say = Callable[[str], None]

# Of the memory that is free: Ray's object store takes a third of all memory by default, and the
# evaluators need some, too.
SHARE_OF_MEMORY = 0.5


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
        load_checkpoint(config.backbone, _checkpoint(config.trunk))


def build_foundation(
    config: StudyConfig, run: Run, say: Say, tasks: Mapping[str, Task] | None = None
) -> Foundation:
    """Load the tasks, then make or load the trunk and the teachers.

    Args:
        config: The study; that of a seed where seeds have foundations of their own.
        run: Where training runs.
        say: Called with one line per thing that was done.
        tasks: The tasks if they are loaded already.

    Raises:
        ConfigError: The study's scores are simulated: there is nothing to train on.
    """
    if config.evaluator == "simulated" or config.trunk is None:
        raise ConfigError(
            f"the study {config.name} is simulated: it has no images to train networks on"
        )
    tasks = tasks or _tasks(config, say)
    trunk = _trunk(config, config.trunk, run, say)
    teachers = _teachers(config, tasks, trunk, config.trunk.seed, run, say)
    return Foundation(tasks=tasks, trunk=trunk, teachers=teachers)


def feature_cache(
    config: StudyConfig, base: Foundation, run: Run, say: Say, more: int = 0
) -> FeatureCache:
    """Compute or load the cached features of every task.

    Args:
        config: The study; that of a seed where seeds have foundations of their own.
        base: Tasks and teachers.
        run: Where the forward passes run.
        say: Called with one line per thing that was done.
        more: How many caches as large as this are to be held beside it and are not there yet.
    """
    needs = {name: _feature_bytes(config, task) for name, task in base.tasks.items()}
    mapped = _say_size(config, sum(needs.values()), more, say)
    paths = {
        name: config.cache_folder
        / "features-{}-{}.safetensors".format(
            name,
            features_digest(
                base.teachers[name],
                task,
                images=config.proxy.images,
                seed=config.proxy.seed,
                precision=config.compute.precision,
            )[:20],
        )
        for name, task in base.tasks.items()
    }
    missing = sum(needs[name] for name in needs if not paths[name].exists())
    _require_space(config, missing * (1 + more))
    computed = run(
        compute_features,
        {
            name: {
                "config": config.backbone,
                "teacher": base.teachers[name],
                "task": task,
                "images": config.proxy.images,
                "seed": config.proxy.seed,
                "compute": config.compute,
            }
            for name, task in base.tasks.items()
            if not paths[name].exists()
        },
    )
    for name, result in computed:
        save_features(result, paths[name])
    # Read back even what was just computed, so that a resumed study scores with the same bits.
    features: dict[str, TaskFeatures] = {
        name: load_features(path, mapped=mapped) for name, path in paths.items()
    }
    return build_cache(config.backbone, base.trunk, features, input_size=config.input_size)


def task_knowledge(config: StudyConfig, base: Foundation, run: Run, say: Say) -> TaskKnowledge:
    """What strategies may know of the tasks before the search: facts, and how alike teachers are.

    Args:
        config: The study.
        base: Tasks and teachers.
        run: Where the forward passes run.
        say: Called with one line per thing that was done.
    """
    digest = similarity_digest(base.teachers, base.tasks, precision=config.compute.precision)
    path = config.cache_folder / f"similarity-{digest[:20]}.npy"
    if not path.exists():
        say("similarity of the teachers: every teacher is shown images of every task")
        images = probe_images(list(base.tasks.values()))
        jobs = {
            name: {
                "config": config.backbone,
                "teacher": base.teachers[name],
                "task": task,
                "images": images,
                "compute": config.compute,
            }
            for name, task in base.tasks.items()
        }
        found = dict(run(teacher_features, jobs))
        with write_atomically(path) as partial:
            np.save(partial, linear_cka([found[name] for name in base.tasks]))
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
    return TaskKnowledge(tasks=facts, similarity=np.load(path))


def _tasks(config: StudyConfig, say: Say) -> Mapping[str, Task]:
    """The tasks, loaded, with a line for each."""
    tasks = load_tasks(config.data)
    for name, task in tasks.items():
        say(f"task {name}: {task.summary()}")
    return tasks


def _say_size(config: StudyConfig, need: int, more: int, say: Say) -> bool:
    """Say how many bytes features need, with `more` times as many to come; whether to map them."""
    mapped = need * (1 + more) > SHARE_OF_MEMORY * _free_memory()
    text = f"feature cache: {need / 2**20:.0f} MiB"
    if mapped:
        text += ", with those of other seeds" if more else ""
        text += (
            f", more than half of the free memory: read from {config.cache_folder}, which every "
            "node must see"
        )
    say(text)
    return mapped


def _feature_bytes(config: StudyConfig, task: Task) -> int:
    return feature_bytes(
        config.backbone,
        input_size=config.input_size,
        train_images=min(config.proxy.images, len(task.splits["train"])),
        validation_images=len(task.splits["validation"]),
    )


def _free_memory() -> int:
    """Bytes of memory that can be had; all of it where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _require_space(config: StudyConfig, need: int) -> None:
    """Refuse a feature cache that the disk has no room for, before any of it is computed."""
    folder = config.cache_folder
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            f"the feature cache needs {need / 2**30:.1f} GiB more in {folder}, which has "
            f"{free / 2**30:.1f} GiB left; lower proxy.images, or name another folder as cache"
        )


def _checkpoint(source: TrunkConfig) -> Path:
    assert source.checkpoint is not None
    return Path(source.checkpoint).expanduser()


def _trunk(config: StudyConfig, source: TrunkConfig, run: Run, say: Say) -> Trained:
    if source.dataset is None:
        trunk = load_checkpoint(config.backbone, _checkpoint(source))
        say(f"trunk: {source.checkpoint}")
        return trunk
    task = load_task(source.dataset, config.data)
    say(f"trunk's dataset {task.name}: {task.summary()}")
    sgd, seed = source.sgd, source.seed
    digest = trunk_digest(config.backbone, task, sgd, seed=seed, precision=config.compute.precision)
    path = config.cache_folder / f"trunk-{digest[:20]}.safetensors"
    if not path.exists():
        say(f"trunk: pretraining on {task.name} for {sgd.steps} steps of {sgd.batch_size} images")
        job = {
            "config": config.backbone,
            "task": task,
            "sgd": sgd,
            "seed": seed,
            # Nothing else can run before the trunk is there, so it takes every core.
            "compute": replace(config.compute, threads=os.cpu_count() or 1),
        }
        for _, trained in run(pretrain_trunk, {"trunk": job}):
            store(trained, path)
    trunk = load(path)
    say(f"trunk: {trunk.accuracy:.3f} validation accuracy on {task.name}")
    return trunk


def _teachers(
    config: StudyConfig,
    tasks: Mapping[str, Task],
    trunk: Trained,
    seed: int,
    run: Run,
    say: Say,
) -> dict[str, Trained]:
    paths: dict[str, Path] = {}
    jobs: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        digest = teacher_digest(
            config.backbone, trunk, task, config.teachers, seed=seed,
            precision=config.compute.precision,
        )  # fmt: skip
        paths[name] = config.cache_folder / f"teacher-{name}-{digest[:20]}.safetensors"
        if not paths[name].exists():
            jobs[name] = {
                "config": config.backbone,
                "trunk": trunk,
                "task": task,
                "teacher": config.teachers,
                "seed": seed,
                "compute": config.compute,
            }
    if jobs:
        say(f"teachers: training {len(jobs)} for {config.teachers.sgd.steps} steps each")
    for name, trained in run(train_teacher, jobs):
        store(trained, paths[name])
    teachers = {name: load(path) for name, path in paths.items()}
    for name, teacher in teachers.items():
        say(f"teacher {name}: {teacher.accuracy:.3f} validation accuracy")
    return teachers
