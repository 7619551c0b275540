"""A mapping as YAML gives it to a frozen dataclass, with errors that name the dotted key."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from partitioning.settings import problems
from search.config.secrets import without_passwords, without_secrets

T = TypeVar("T")


class ConfigError(ValueError):
    """A config that cannot be used; says what is wrong and how to mend it.

    Args:
        problems: A line each, at least one.
        sound: What has no problem of itself, by key of the top level, with defaults; None where
            nothing can be said of the rest.
    """

    def __init__(self, *problems: str, sound: Any = None) -> None:
        problems = tuple(map(without_passwords, problems))
        text = problems[0]
        if len(problems) > 1:
            text = "\n  ".join([f"{len(problems)} things are wrong:", *problems])
        super().__init__(text)
        self.problems, self.sound = problems, sound


INTEGER = re.compile(r"[-+]?(0|[1-9]\d*)", re.ASCII)
FLOAT = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.I)
#: Stands for a value that has a problem, which is told where it is found.
BROKEN: Any = object()


def unknown(what: str, got: str, known: Iterable[str]) -> str:
    """The text of an error about a name that is not known, with the nearest that is."""
    names = list(known)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names))}"
    return f"unknown {what} {got!r}; {hint}"


def build(cls: type[T], raw: Any, path: str, before: Sequence[str] = ()) -> T:
    """An instance of a config dataclass from a mapping.

    Args:
        cls: A dataclass whose fields are scalars, tuples, mappings or dataclasses.
        raw: Its values by field name.
        path: Dotted key of this part, for errors.
        before: Problems that are known already; the values that have them are `BROKEN`.

    Raises:
        ConfigError: A key is unknown or missing, a value has another type, or the class refuses it;
            it has the problems of all keys.
    """
    found = list(before)
    values = _fields(cls, raw, path, found)
    built = _built(cls, values, path, found)
    if found:
        raise ConfigError(*found, sound=values)
    assert isinstance(built, cls)
    return built


def _built(cls: type[Any], values: Mapping[str, Any], path: str, found: list[str]) -> Any:
    """An instance of values by field; BROKEN if some are wanting, or if the class refuses them."""
    if found or len(values) < len(dataclasses.fields(cls)):
        return BROKEN
    try:
        return cls(**values)
    except ValueError as error:
        found += _located(error, path)
        return BROKEN


def _fields(cls: type[Any], raw: Any, path: str, found: list[str]) -> dict[str, Any]:
    """By field: the values of a mapping, and defaults; what has a problem is not among them."""
    if not isinstance(raw, Mapping):
        found.append(f"{path or 'config'} must be a mapping, got {shown(raw)}")
        return {}
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    dot = f"{path}." if path else ""
    values: dict[str, Any] = {}
    unclear: set[str] = set()
    for key, value in raw.items():
        if key in fields:
            values[key] = _convert(hints[key], value, f"{dot}{key}", found)
        else:
            name = without_secrets(str(key))
            found.append(f"{dot}{name}: {unknown('key', name, fields)}")
            unclear |= set(difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)) - set(raw)
    defaults = {name: _default(entry) for name, entry in fields.items() if name not in raw}
    missing = [n for n, value in defaults.items() if value is BROKEN and n not in unclear]
    found += [f"{dot}{name} is missing" for name in missing]
    values = {n: value for n, value in (defaults | values).items() if value is not BROKEN}
    if found or len(values) < len(fields):  # what can be judged all the same
        values = {name: value for name, value in values.items() if name not in unclear}
        found += [f"{path}: {line}" if path else line for line in problems(cls, values)]
    return values


def _default(entry: "dataclasses.Field[Any]") -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return BROKEN if entry.default is dataclasses.MISSING else entry.default


def _located(error: ValueError, path: str) -> list[str]:
    """What a class says of its values, a line each, with the dotted key of its part."""
    lines = getattr(error, "problems", (str(error),))
    return [f"{path}: {line}" if path else line for line in lines]


def _convert(hint: Any, value: Any, path: str, found: list[str]) -> Any:
    """A YAML value as the type that a field declares; BROKEN, and a problem more, if it is not."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or value is BROKEN:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, path, found)
    if origin is tuple:
        return _tuple(arguments, value, path, found)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            found.append(f"{path} must be a mapping, got {shown(value)}")
            return BROKEN
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        own: list[str] = []
        built = _built(hint, _fields(hint, value, path, own), path, own)  # type: ignore[arg-type]
        found += own
        return built
    return _scalar(hint, value, path, found)


def _tuple(arguments: tuple[Any, ...], value: Any, path: str, found: list[str]) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence):
        found.append(f"{path} must be a list, got {shown(value)}")
        return BROKEN
    if arguments[-1] is Ellipsis:
        hints = dict.fromkeys((f"{path}[{i}]" for i in range(len(value))), arguments[0])
    elif len(value) == len(arguments):
        hints = {f"{path}[{i}]": hint for i, hint in enumerate(arguments)}
    else:
        found.append(f"{path} must have {len(arguments)} entries, got {shown(value)}")
        return BROKEN
    entries = [
        _convert(hint, entry, place, found)
        for (place, hint), entry in zip(hints.items(), value, strict=True)
    ]
    return BROKEN if any(entry is BROKEN for entry in entries) else tuple(entries)


def _scalar(hint: Any, value: Any, path: str, found: list[str]) -> Any:
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and FLOAT.fullmatch(value):
        return float(value)  # YAML 1.1 reads 1e-3 as text
    # 1e3 is a whole number, too; beyond 2^53 floats leave some of them out.
    if hint is int and isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        quotes = (
            " (text in quotes?)" if hint is str and isinstance(value, bool | int | float) else ""
        )
        found.append(f"{path} must be {wanted}, got {shown(value)}{quotes}")
        return BROKEN
    return value


def shown(value: Any) -> str:
    """A value in the words of YAML, not longer than a line, and without passwords."""
    words = {None: "null", True: "true", False: "false"}
    is_word = value is None or isinstance(value, bool)
    text = words[value] if is_word else repr(without_secrets(value))
    return text if len(text) <= 200 else text[:200] + " ..."


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as dicts, lists and scalars that YAML writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    return value
