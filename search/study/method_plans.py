"""The plans of a study's methods, and the masks that their settings name."""

import hashlib
from contextlib import suppress
from pathlib import Path

from partitioning import Masks
from search.config import ConfigError, StudyConfig
from search.study.folder import Study
from trainers.methods import METHODS, Plan, Problem

#: Stands between a study and a pick where a setting names masks.
AT = "@"


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
        backbone=config.network,
        seed=seed,
        masks=lambda where: _masks(config, name, where),
    )
    try:
        plan: Plan = METHODS[entry.kind].build(problem, entry.settings)
        plan.steps(config.train.sgd.steps)
        _check_sizes(config, plan)
    except ValueError as error:
        raise ConfigError(f"methods.{name}: {error}") from error
    return plan


def _check_sizes(config: StudyConfig, plan: Plan) -> None:
    """Refuse images of several sizes where tasks learn from each other's images or features."""
    sizes = {task.size or config.size for task in config.tasks}
    for size in sizes - {config.size}:
        config.network.stem_stride(size)
    if len(sizes) > 1 and any(p.distilled or p.changes == "head" for p in plan.phases):
        raise ValueError(
            "tasks whose networks go on from each other's must have images of one size"
        )


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


def keep_masks(config: StudyConfig, name: str) -> None:
    """Keep the masks that a method's setting names, once: it stays with what they were.

    Args:
        config: The study.
        name: The method's.
    """
    where = getattr(config.methods[name].settings, "masks", None)
    if where is not None and not (kept := _kept(config, name, where)).is_file():
        read_masks(config, where).save(kept)


def refresh_masks(config: StudyConfig, name: str) -> None:
    """Read the masks of a method again of which nothing is recorded yet, if they are still there.

    Args:
        config: The study.
        name: The method's.
    """
    where = getattr(config.methods[name].settings, "masks", None)
    if where is not None and (kept := _kept(config, name, where)).is_file():
        with suppress(ValueError, OSError):
            read_masks(config, where).save(kept)


def _masks(config: StudyConfig, name: str, where: str) -> Masks:
    """The masks that a method's setting names: those that it was first trained with, if it was."""
    kept = _kept(config, name, where)
    return Masks.load(kept) if kept.is_file() else read_masks(config, where)


def _kept(config: StudyConfig, name: str, where: str) -> Path:
    """Under what the setting says, since a study without any candidate may be given another."""
    named = hashlib.sha256(where.encode()).hexdigest()[:12]
    return config.folder / "methods" / name / f"masks-{named}.json"
