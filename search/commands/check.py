"""`apportion check`: all that is wrong with a config at once, and what its tasks hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from search.config import ConfigError, StudyConfig, TrunkConfig, load_config, reveal
from search.study import Say, check_strategies
from trainers.backbones import BackboneConfig
from trainers.data import DataConfig, TaskConfig, load_task
from trainers.teachers import load_checkpoint

#: The parts of a config that decide what a strategy may be told to do.
SEEN_BY_STRATEGIES = {
    "tasks", "backbone", "space", "solver", "strategies", "seeds", "initial", "objective",
}  # fmt: skip


def check(path: str | Path, overrides: Sequence[str] = (), *, say: Say = print) -> StudyConfig:
    """Read a config and the data that it names; nothing is trained and no file is written.

    Args:
        path: As for `load_config`.
        overrides: As for `load_config`.
        say: Called with a line for every task: what was understood of its data.

    Returns:
        The config.

    Raises:
        ConfigError: Something is wrong; it has the problems of all keys, tasks and strategies.
    """
    found: list[str] = []
    config = None
    try:
        config = load_config(path, overrides)
        parts: Mapping[str, Any] = vars(config)
    except ConfigError as error:
        found += error.problems
        parts = error.sound or {}
    found += _data_problems(parts, say) + _strategy_problems(parts)
    if "tracking" in parts:
        found += _problems(partial(reveal, parts["tracking"].uri or ""))
    if found or config is None:
        raise ConfigError(*found)
    return config


def _strategy_problems(parts: Mapping[str, Any]) -> list[str]:
    """What is wrong with strategies in the space that they search, where both are sound."""
    if not parts.keys() >= SEEN_BY_STRATEGIES:
        return []
    seen: dict[str, Any] = {name: parts[name] for name in SEEN_BY_STRATEGIES}
    try:
        config = StudyConfig(name="unnamed", trunk=TrunkConfig(checkpoint="none"), **seen)
    except ValueError:  # which is a problem already
        return []
    found: list[str] = []
    for name, strategy in config.strategies.items():
        found += _problems(partial(check_strategies, replace(config, strategies={name: strategy})))
    return found


def _data_problems(parts: Mapping[str, Any], say: Say) -> list[str]:
    """What is wrong with the data of tasks and trunk, as far as the config names them soundly."""
    if not {"tasks", "evaluator", "data_root", "input_size", "trunk"} <= parts.keys():
        return []
    tasks: tuple[TaskConfig, ...] = parts["tasks"]
    if parts["evaluator"] == "simulated":
        for task in tasks:
            say(f"task {task.name}: simulated")
        return []
    root, size = parts["data_root"] or str(Path.cwd()), parts["input_size"]
    found: list[str] = []
    for task in tasks:
        found += _problems(partial(_understand, "", task, root, size, say))
    trunk: TrunkConfig | None = parts["trunk"]
    if trunk is not None and trunk.dataset is not None:
        found += _problems(partial(_understand, "trunk, ", trunk.dataset, root, size, say))
    elif trunk is not None and trunk.checkpoint is not None and "backbone" in parts:
        backbone: BackboneConfig = parts["backbone"]
        found += _problems(partial(load_checkpoint, backbone, Path(trunk.checkpoint)))
    return found


def _understand(prefix: str, task: TaskConfig, root: str, size: int, say: Say) -> None:
    """Say in a line what a task holds.

    Raises:
        ValueError: Its data cannot be used.
    """
    loaded = load_task(task, DataConfig(tasks=(task,), root=root, input_size=size))
    say(f"{prefix}task {task.name}: {loaded.summary()}")


def _problems(test: Callable[[], object]) -> list[str]:
    """The text of what a test refuses, or nothing."""
    try:
        test()
    except (ValueError, OSError) as error:
        return [str(error)]
    return []
