"""YAML to a study's config: files, overrides on the command line, grids of strategies."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from partitioning import STUDY
from search.config.build import BROKEN, ConfigError, build, shown, unknown
from search.config.paths import PROJECT, expand_paths
from search.config.reading import read_yaml, read_yaml_file
from search.config.secrets import without_secrets
from search.config.sections import EntryConfig
from search.config.study_config import StudyConfig
from search.strategies import STRATEGIES
from trainers.joint import RECIPES
from trainers.methods import METHODS

#: Sections whose entries go by a name, which is also the kind unless they say it: what one is
#: called, and the registry of kinds.
NAMED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "strategies": ("strategy", STRATEGIES),
    "methods": ("method", METHODS),
}


#: The key of the recipe of full training.
RECIPE = "train.recipe"


def load_config(
    path: str | Path, overrides: Sequence[str] = (), methods: Sequence[str] = ()
) -> StudyConfig:
    """Read a study's config.

    Args:
        path: A YAML file; looked for below the working folder, then below the project's folder.
        overrides: `key=value` with a dotted key ("proxy.sgd.steps=300"), whose value is YAML; or
            `@FILE`, a YAML file that maps such keys to values.
        methods: Names of methods that it must have: those that it lacks are added, with defaults.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value is refused; it
            has all problems of the file.
        FormatError: It is the config of a study of another version.
    """
    file = _find(path)
    found: list[str] = []
    try:
        raw = read_yaml_file(file)
    except ConfigError as error:
        if not isinstance(error.sound, dict):
            raise
        raw, found = error.sound, [*error.problems]
    if not isinstance(raw, dict):
        got = "nothing" if raw is None else shown(raw)
        raise ConfigError(f"{file} must hold a mapping of keys to values, got {got}")
    if "version" in raw:  # a study keeps its config, by which it goes on, wherever it lies now
        folder = file.absolute().parent
        raw = without_header(raw, file)
        raw |= {"name": folder.name, "output": str(folder.parent)}
    settings: list[tuple[str, Any]] = []
    for override in overrides:
        try:
            settings += settings_of(override).items()
        except ConfigError as error:
            found += error.problems
    # What is set beside a recipe changes it, whichever comes first.
    for key, value in sorted(settings, key=lambda each: each[0].strip() != RECIPE):
        try:
            raw = _overridden(raw, key, value)
        except ConfigError as error:
            found += error.problems
    if methods:
        own = raw.get("methods") or {}
        if isinstance(own, Mapping):
            raw = {**raw, "methods": {**dict.fromkeys(methods), **own}}
    try:
        return _parsed(raw, found)
    except ConfigError as error:
        lines = [f"{file}: {line}" for line in error.problems[len(found) :]]
        raise ConfigError(*found, *lines, sound=error.sound) from None


def parse_config(raw: Mapping[str, Any]) -> StudyConfig:
    """Build a study's config from a mapping, as `load_config` does from a file.

    Raises:
        ConfigError: A key is unknown, or a value is refused; it has all problems of the mapping.
    """
    return _parsed(raw, [])


def _parsed(raw: Mapping[str, Any], before: Sequence[str]) -> StudyConfig:
    """A study's config; the values of problems that are known before are BROKEN."""
    raw, found = dict(raw), list(before)
    expand_paths(raw, found)
    _apply_recipe(raw, found)
    for section in NAMED:
        if section in raw:
            raw[section] = _named(section, raw[section], found)
    config: StudyConfig = build(StudyConfig, raw, "", found)
    return config


def _apply_recipe(raw: dict[str, Any], found: list[str]) -> None:
    """Put the settings of `train.recipe` in its place; those that are set beside it stay."""
    train = raw.get("train")
    if not isinstance(train, Mapping) or "recipe" not in train:
        return
    own = {key: value for key, value in train.items() if key != "recipe"}
    recipe = train["recipe"]
    if recipe not in RECIPES:
        if recipe is not BROKEN:
            found.append(f"train.recipe: {unknown('recipe', str(recipe), RECIPES)}")
        recipe = next(iter(RECIPES))
    raw["train"] = {**RECIPES[recipe], **own}


def _named(section: str, raw: Any, found: list[str]) -> Any:
    """Sound entries by name, and a problem more for each other one; BROKEN if none is sound.

    Args:
        section: Key of `NAMED`.
        raw: Its value.
        found: Gets the problems.
    """
    if raw is BROKEN:
        return raw
    if not isinstance(raw, Mapping):
        found.append(f"{section} must be a mapping of names to settings, got {shown(raw)}")
        return BROKEN
    entries: dict[str, EntryConfig] = {}
    for name, entry in raw.items():
        if _is_broken(entry):  # which is a problem already
            continue
        try:
            for each, settings in _expanded(section, str(name), entry):
                if each in entries:
                    raise ConfigError(
                        f"{section}: {each} is the name of two {section} (those of a grid are "
                        "numbered from 1); give one another name, and its kind"
                    )
                entries[each] = _entry(section, each, settings)
        except ConfigError as error:
            found += error.problems
    return entries or (BROKEN if raw else raw)


def _is_broken(value: Any) -> bool:
    """Whether something in a value can be misread."""
    if isinstance(value, Mapping):
        return any(map(_is_broken, value.values()))
    return any(map(_is_broken, value)) if isinstance(value, list) else value is BROKEN


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
        if candidate.is_dir():
            raise ConfigError(f"config {candidate.resolve()} is a folder; name a YAML file in it")
        if candidate.exists():
            return candidate
    raise ConfigError(
        f"config {path} does not exist (looked in {Path.cwd()} and {PROJECT}); "
        f"the project's own: {', '.join(sorted(p.name for p in PROJECT.glob('configs/*.yaml')))}"
    )


def _overridden(raw: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A config with a dotted key changed, as `--set` does.

    Raises:
        ConfigError: A list has no such entry.
    """
    found: dict[str, Any] = _replaced(dict(raw), key.strip().split("."), value, key)
    if key.strip() == RECIPE:  # in place of what a recipe before it said
        decided = {each for settings in RECIPES.values() for each in settings}
        kept = {name: own for name, own in found["train"].items() if name not in decided}
        found["train"] = kept
    return found


def settings_of(override: str) -> Mapping[str, Any]:
    """Values by dotted key of what `--set` was given: `key=value`, or `@FILE`.

    Raises:
        ConfigError: There is no "=", the value can be misread, or the file cannot be read.
    """
    if override.startswith("@"):
        file = Path(override[1:]).expanduser()
        try:
            read = read_yaml_file(file)
        except OSError as error:
            raise ConfigError(f"--set {override}: {error.strerror}: {file.absolute()}") from error
        if not isinstance(read, dict):
            raise ConfigError(f"--set {override}: {file} must map keys to values")
        return read
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            "--set needs key=value, for example proxy.sgd.steps=300, or @FILE; got "
            f"{shown(override)}"
        )
    return {key: read_yaml(text, f"--set {without_secrets(key)}")}


def _replaced(node: Any, path: Sequence[str], value: Any, key: str) -> Any:
    """A copy of a mapping or a list in which the value at a path is another."""
    if not path:
        return value
    if isinstance(node, list):
        at = _position(node, path[0], key)
        return [*node[:at], _replaced(node[at], path[1:], value, key), *node[at + 1 :]]
    inner = node if isinstance(node, Mapping) else {}
    return {**inner, path[0]: _replaced(inner.get(path[0]), path[1:], value, key)}


def _position(items: list[Any], part: str, key: str) -> int:
    for position, item in enumerate(items):
        if str(position) == part or (isinstance(item, dict) and item.get("name") == part):
            return position
    names = [str(item.get("name")) for item in items if isinstance(item, dict)]
    known = ", ".join(names) or f"positions from 0 to {len(items) - 1}"
    raise ConfigError(f"--set {key}: no entry {part!r} in the list; it has {known}")


def _expanded(section: str, name: str, entry: Any) -> Iterator[tuple[str, Any]]:
    """An entry as it is, or one of every combination of the settings in its `grid`."""
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
            f"{section}.{name}.grid must map settings to lists of values to try, got {shown(grid)}"
        )
    rest = {key: value for key, value in entry.items() if key != "grid"}
    if both := sorted(map(str, set(grid) & set(rest))):
        raise ConfigError(f"{section}.{name}: {', '.join(both)} is set and in the grid, too")
    for setting, values in grid.items():
        if any(values.count(value) > 1 for value in values):
            raise ConfigError(
                f"{section}.{name}.grid.{setting} must hold different values, got {shown(values)}"
            )
    for number, values in enumerate(product(*grid.values()), start=1):
        yield f"{name}.{number}", {"kind": name, **rest, **dict(zip(grid, values, strict=True))}


def _entry(section: str, name: str, entry: Any) -> EntryConfig:
    """A strategy or method as the config has it, by its kind."""
    what, registry = NAMED[section]
    if entry is not None and not isinstance(entry, Mapping):
        raise ConfigError(f"{section}.{name} must be a mapping of settings, got {shown(entry)}")
    settings = dict(entry or {})
    kind = str(settings.pop("kind", name))
    if kind not in registry:
        raise ConfigError(f"{section}.{name}: {unknown(what, kind, registry)}; give its kind")
    built = build(registry[kind].settings, settings, f"{section}.{name}")
    return EntryConfig(kind=kind, settings=built)
