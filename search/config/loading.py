"""YAML to a study's config: files, overrides on the command line, grids of strategies."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from partitioning import STUDY
from search.config.build import ConfigError, build, unknown
from search.config.sections import StrategyConfig
from search.config.study_config import StudyConfig
from search.strategies import STRATEGIES

#: Where `configs/...` is looked for when it is not below the working folder (a script that `ray
#: submit` copied elsewhere).
PROJECT = Path(__file__).resolve().parents[2]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study's config.

    Args:
        path: A YAML file; looked for below the working folder, then below the project's folder.
        overrides: `key=value` with a dotted key ("proxy.sgd.steps=300"); the value is YAML.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value is refused.
        FormatError: It is the config of a study of another version.
    """
    file = _find(path)
    try:
        raw = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file} must hold a mapping of keys to values, got {type(raw).__name__}")
    if "version" in raw:  # a study keeps its config, by which it goes on, wherever it lies now
        folder = file.absolute().parent
        raw = without_header(raw, file)
        raw |= {"name": folder.name, "output": str(folder.parent)}
    for override in overrides:
        _override(raw, override)
    return parse_config(raw)


def parse_config(raw: Mapping[str, Any]) -> StudyConfig:
    """Build a study's config from a mapping, as `load_config` does from a file."""
    raw = dict(raw)
    if isinstance(raw.get("data_root"), str):
        raw["data_root"] = str(_resolve(raw["data_root"]))
    trunk = raw.get("trunk")
    if isinstance(trunk, Mapping) and isinstance(trunk.get("checkpoint"), str):
        raw["trunk"] = {**trunk, "checkpoint": str(_resolve(trunk["checkpoint"]))}
    if "strategies" in raw:
        if not isinstance(raw["strategies"], Mapping):
            raise ConfigError(
                f"strategies must be a mapping of names to settings, got {raw['strategies']!r}"
            )
        strategies: dict[str, StrategyConfig] = {}
        for name, entry in raw["strategies"].items():
            for each, settings in _expanded(str(name), entry):
                if each in strategies:
                    raise ConfigError(
                        f"strategies: {each} is the name of two strategies (those of a grid are "
                        "numbered from 1); give one another name, and its kind"
                    )
                strategies[each] = _strategy(each, settings)
        raw["strategies"] = strategies
    config: StudyConfig = build(StudyConfig, raw, "")
    return config


def without_header(raw: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The config that a study keeps, without its format, version and id.

    Args:
        raw: The whole file.
        file: Its path, for the message.

    Raises:
        FormatError: It is not of the version that is read.
    """
    STUDY.check(raw.get("version"), file)
    return {key: value for key, value in raw.items() if key not in {*STUDY.header, "id"}}


def _find(path: str | Path) -> Path:
    for candidate in (Path(path), PROJECT / path):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"config {path} does not exist (looked in {Path.cwd()} and {PROJECT}); "
        f"the project's own: {', '.join(sorted(p.name for p in PROJECT.glob('configs/*.yaml')))}"
    )


def _resolve(path: str) -> Path:
    given = Path(path).expanduser()
    here = given.resolve()
    return here if here.exists() or given.is_absolute() else (PROJECT / given).resolve()


def _override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            f"--set needs key=value, for example proxy.sgd.steps=300; got {override!r}"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value {text!r} is not YAML: {error}") from error
    *parents, last = key.strip().split(".")
    node: Any = raw
    for part in parents:
        if isinstance(node, list):
            node = _item(node, part, override)
        else:
            if not isinstance(node.get(part), (dict, list)):
                node[part] = {}
            node = node[part]
    if isinstance(node, list):
        node[node.index(_item(node, last, override))] = value
    else:
        node[last] = value


def _item(items: list[Any], part: str, override: str) -> Any:
    for position, item in enumerate(items):
        if str(position) == part or (isinstance(item, dict) and item.get("name") == part):
            return item
    names = [str(item.get("name")) for item in items if isinstance(item, dict)]
    raise ConfigError(f"--set {override}: no entry {part!r} in the list; it has {', '.join(names)}")


def _expanded(name: str, entry: Any) -> Iterator[tuple[str, Any]]:
    """A strategy as it is, or one of every combination of the settings in its `grid`."""
    if not isinstance(entry, Mapping) or "grid" not in entry:
        yield name, entry
        return
    grid = entry["grid"]
    if (
        not isinstance(grid, Mapping)
        or not grid
        or not all(isinstance(values, list) and values for values in grid.values())
    ):
        raise ConfigError(
            f"strategies.{name}.grid must map settings to lists of values to try, got {grid!r}"
        )
    rest = {key: value for key, value in entry.items() if key != "grid"}
    if both := sorted(map(str, set(grid) & set(rest))):
        raise ConfigError(f"strategies.{name}: {', '.join(both)} is set and in the grid, too")
    for setting, values in grid.items():
        if any(values.count(value) > 1 for value in values):
            raise ConfigError(
                f"strategies.{name}.grid.{setting} must hold different values, got {values}"
            )
    for number, values in enumerate(product(*grid.values()), start=1):
        yield f"{name}.{number}", {"kind": name, **rest, **dict(zip(grid, values, strict=True))}


def _strategy(name: str, entry: Any) -> StrategyConfig:
    if entry is not None and not isinstance(entry, Mapping):
        raise ConfigError(f"strategies.{name} must be a mapping of settings, got {entry!r}")
    settings = dict(entry or {})
    kind = str(settings.pop("kind", name))
    if kind not in STRATEGIES:
        raise ConfigError(
            f"strategies.{name}: {unknown('strategy', kind, STRATEGIES)}; give its kind"
        )
    built = build(STRATEGIES[kind].settings, settings, f"strategies.{name}")
    return StrategyConfig(kind=kind, settings=built)
