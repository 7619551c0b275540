"""`apportion check`: all that is wrong with a config at once, and what its tasks hold."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from search.config import (
    ConfigError,
    StudyConfig,
    TrunkConfig,
    load_config,
    reveal,
)
from search.study import Say, batches, check_methods, check_strategies, given_weights_of
from trainers.data import DataConfig, Inputs, TaskConfig, load_task
from trainers.export import check_exportable
from trainers.networks import BackboneConfig, build_backbone, network_inputs
from trainers.teachers import given_weights

#: The parts of a config that decide what a strategy may be told to do.
SEEN_BY_STRATEGIES = {
    "tasks", "input_size", "backbone", "space", "solver", "strategies", "seeds", "initial",
    "objective",
}  # fmt: skip


#: Stands for what a trunk may be pretrained on.
_ANY = TaskConfig(name="any")


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
    found += _data_problems(parts, say)
    of_network = _network_problems(parts, config)
    found += of_network or _strategy_problems(parts)
    if config is not None and not of_network:
        found += _problems(partial(check_methods, config))
    if "tracking" in parts:
        found += _problems(partial(reveal, parts["tracking"].uri or ""))
    if found or config is None:
        raise ConfigError(*found)
    return config


def _network_problems(parts: Mapping[str, Any], config: StudyConfig | None) -> list[str]:
    """What is wrong with the network, whatever else is, as far as it is described soundly."""
    if not {"backbone", "input_size", "evaluator"} <= parts.keys():
        return []
    backbone: BackboneConfig = parts["backbone"]

    def size() -> int:
        return parts["input_size"] or network_inputs(backbone)[0]

    found = _problems(lambda: build_backbone(backbone, size()))
    if found or parts["evaluator"] == "simulated":
        return found
    network = build_backbone(backbone, size())
    found += _problems(lambda: network.check_batches(batches(parts)))
    found += _problems(lambda: check_exportable(network, size()))
    if backbone.pretrained:
        # A config that is sound may be a study's, which has a copy.
        found += _problems(
            partial(given_weights_of, config)
            if config is not None
            else partial(given_weights, backbone, input_size=size())
        )
    return found


def _strategy_problems(parts: Mapping[str, Any]) -> list[str]:
    """What is wrong with strategies in the space that they search, where both are sound."""
    if not parts.keys() >= SEEN_BY_STRATEGIES | {"evaluator"}:
        return []
    seen: dict[str, Any] = {name: parts[name] for name in SEEN_BY_STRATEGIES}
    try:
        config = StudyConfig(
            name="unnamed", evaluator=parts["evaluator"], trunk=TrunkConfig(dataset=_ANY), **seen
        )
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
    root = parts["data_root"] or str(Path.cwd())
    size, inputs = parts["input_size"] or 32, Inputs()
    with suppress(ValueError, KeyError):  # which is a problem of the network
        own, inputs = network_inputs(parts["backbone"])
        size = parts["input_size"] or own
    data = DataConfig(tasks=tasks, root=root, input_size=size, inputs=inputs)
    found: list[str] = []
    for task in tasks:
        found += _problems(partial(_understand, "", task, data, say))
    trunk: TrunkConfig | None = parts["trunk"]
    if trunk is not None and trunk.dataset is not None:
        found += _problems(partial(_understand, "trunk, ", trunk.dataset, data, say))
    return found


def _understand(prefix: str, task: TaskConfig, data: DataConfig, say: Say) -> None:
    """Say in a line what a task holds.

    Raises:
        ValueError: Its data cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:  # for images that are too many for memory
        loaded = load_task(task, data, Path(folder))
        say(f"{prefix}task {task.name}: {loaded.summary()}")


def _problems(test: Callable[[], object]) -> list[str]:
    """The text of what a test refuses, or nothing."""
    try:
        test()
    except (ValueError, OSError) as error:
        return [str(error)]
    return []
