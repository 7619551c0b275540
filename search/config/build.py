"""A mapping as YAML gives it to a frozen dataclass, with errors that name the dotted key."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A config that cannot be used; says what is wrong and how to mend it."""


def unknown(what: str, got: str, known: Iterable[str]) -> str:
    """The text of an error about a name that is not known, with the nearest that is."""
    names = list(known)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names))}"
    return f"unknown {what} {got!r}; {hint}"


def build(cls: type[T], raw: Any, path: str) -> T:
    """An instance of a config dataclass from a mapping.

    Args:
        cls: A dataclass whose fields are scalars, tuples, mappings or dataclasses.
        raw: Its values by field name.
        path: Dotted key of this part, for errors.

    Raises:
        ConfigError: A key is unknown or missing, a value has another type, or the class refuses it.
    """
    if isinstance(raw, cls):
        return raw
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path or 'config'} must be a mapping, got {raw!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    dot = f"{path}." if path else ""
    for key in raw:
        if key not in fields:
            raise ConfigError(f"{dot}{key}: {unknown('key', str(key), fields)}")
    for name, entry in fields.items():
        required = (
            entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        )
        if required and name not in raw:
            raise ConfigError(f"{dot}{name} is missing")
    values = {str(key): _convert(hints[key], value, f"{dot}{key}") for key, value in raw.items()}
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


def _convert(hint: Any, value: Any, path: str) -> Any:
    """A YAML value as the type that a field declares."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, path)
    if origin is tuple:
        return _tuple(arguments, value, path)
    if origin is not None and issubclass(origin, Mapping):
        return value
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path)  # type: ignore[arg-type]
    return _scalar(hint, value, path)


def _tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{path} must be a list, got {value!r}")
    if arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise ConfigError(f"{path} must have {len(arguments)} entries, got {value!r}")
        return tuple(_convert(a, v, path) for a, v in zip(arguments, value, strict=True))
    return tuple(_convert(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))


def _scalar(hint: Any, value: Any, path: str) -> Any:
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            pass
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{path} must be {wanted}, got {value!r}")
    return value


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as dicts, lists and scalars that YAML writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    return value
