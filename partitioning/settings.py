"""Rules that settings state beside their types, and that are checked when settings are made.

    @dataclass(frozen=True, kw_only=True)
    @checked()
    class Descent:
        steps: Annotated[int, at_least(1)] = 1000
        window: Annotated[int, at_least(2), at_most("steps")] = 10
        patience: Annotated[float | None, POSITIVE, Unit("seconds")] = None

A value that breaks its rules is refused by name, with what must hold and what was given, all such
values at once. The same words are the ranges in docs/config.md. What no rule of one field can say
is said by a method `_check`, which runs after the rules.
"""

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

T = TypeVar("T")


class SettingsError(ValueError):
    """Settings that break their rules.

    Args:
        problems: A line each, at least one.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _UnknownError(Exception):
    """A field was looked at whose value is not known."""


#: An end of a range: a number, or the name of another field of the same settings.
Bound = float | str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What must hold of the value of a field.

    Attributes:
        words: What completes "must be ...". Other fields of the settings stand in braces.
        holds: (value, settings) to whether it holds. It must be False of NaN.
        hint: What is added to the text of an error about a value, such as what it may be meant for.
    """

    words: str
    holds: Callable[[Any, Any], bool]
    hint: Callable[[Any], str] = lambda value: ""


@dataclass(frozen=True)
class Unit:
    """What the numbers of a field count or measure, in the plural: pixels, seconds."""

    name: str


@dataclass(frozen=True, kw_only=True)
class FieldTerms:
    """What is said of a field beside its type.

    Attributes:
        rules: What must hold of its values, all at once.
        unit: What its numbers count or measure; empty where they have no unit.
        optional: Whether None is allowed, of which no rule needs to hold.
    """

    rules: tuple[Rule, ...]
    unit: str
    optional: bool

    @property
    def words(self) -> str:
        """The rules in words; other fields stand in braces."""
        text = ""
        for rule in self.rules:
            if text:
                text += " " if text == WHOLE.words else _joint(rule)
            text += rule.words
        return text


def at_least(bound: Bound, note: str = "") -> Rule:
    """The value is this bound or more; the note says why."""
    words = f"at least {_shown(bound)}{_bracketed(note)}"
    return Rule(words=words, holds=lambda value, own: value >= _bound(bound, own))


def at_most(bound: Bound, note: str = "") -> Rule:
    """The value is this bound or less; the note says why."""
    words = f"at most {_shown(bound)}{_bracketed(note)}"
    return Rule(words=words, holds=lambda value, own: value <= _bound(bound, own))


def above(bound: Bound, note: str = "") -> Rule:
    """The value is more than this bound; the note says why."""
    words = f"above {_shown(bound)}{_bracketed(note)}"
    return Rule(words=words, holds=lambda value, own: value > _bound(bound, own))


def between(low: Bound, high: Bound, note: str = "") -> Rule:
    """The value lies between two bounds or is one of them; the note says why."""
    return Rule(
        words=f"from {_shown(low)} to {_shown(high)}{_bracketed(note)}",
        holds=lambda value, own: _bound(low, own) <= value <= _bound(high, own),
    )


def interval(text: str, note: str = "") -> Rule:
    """The value lies in an interval as it is written: "(0, 1]" leaves out 0. The note says of what.

    Example:
        >>> interval("(0, 1]").holds(1, None), interval("(0, 1]").holds(0, None)
        (True, False)
    """
    low, high = map(float, text[1:-1].split(","))

    def holds(value: Any, own: Any) -> bool:
        above_low = low < value or (text[0] == "[" and value == low)
        return bool(above_low and (value < high or (text[-1] == "]" and value == high)))

    return Rule(words=f"in {text}{', ' if note else ''}{note}", holds=holds)


def one_of(names: Iterable[str]) -> Rule:
    """The value is one of these names, such as the keys of a registry."""
    known = tuple(names)
    return Rule(
        words=f"one of {', '.join(known)}",
        holds=lambda value, own: value in known,
        hint=lambda value: nearest(str(value), known),
    )


def each(rule: Rule) -> Rule:
    """Every entry of the value keeps the rule."""
    return Rule(
        words=f"each {rule.words}",
        holds=lambda value, own: all(rule.holds(entry, own) for entry in value),
    )


FINITE = Rule(words="finite", holds=lambda value, own: math.isfinite(value))
POSITIVE = Rule(words="positive and finite", holds=lambda value, own: 0 < value < math.inf)
NOT_NEGATIVE = Rule(words="finite and not negative", holds=lambda value, own: 0 <= value < math.inf)
WHOLE = Rule(words="a whole number", holds=lambda value, own: isinstance(value, int))
SOME = Rule(words="one or more numbers", holds=lambda value, own: len(value) > 0)
DIFFERENT = Rule(
    words="one or more different numbers",
    holds=lambda value, own: 0 < len(value) == len(set(value)),
)
ASCENDING = Rule(words="ascending", holds=lambda value, own: sorted(set(value)) == list(value))


def nearest(word: str, known: Iterable[str]) -> str:
    """Half a sentence with the known word nearest to `word`, empty where none is near.

    Example:
        >>> nearest("parqet", ["toy", "parquet"])
        "; did you mean 'parquet'?"
    """
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def checked(naming: str = "{field}") -> Callable[[type[T]], type[T]]:
    """A decorator of settings, below `dataclass`: their rules are checked when they are made.

    Args:
        naming: How errors name a field. It is a format of `field`, its name, and of `self`, the
            settings: "solver.{field}", or "task {self.name!r}: {field}".

    Returns:
        The decorator. The class that it is given may have a method `_check` for what rules of
        single fields cannot say; it raises a ValueError and runs once they are kept.
    """

    def decorate(cls: type[T]) -> type[T]:
        def __post_init__(self: Any) -> None:  # noqa: N807
            try:
                for field, said in terms(self.__class__).items():
                    _keep(self, field, said, naming)
                if check := getattr(self, "_check", None):
                    check()
            except ValueError:
                raise SettingsError(problems(self.__class__, vars(self))) from None

        cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
        cls._naming = naming  # type: ignore[attr-defined]
        return cls

    return decorate


def problems(cls: Any, values: Mapping[str, Any]) -> list[str]:
    """All that is wrong with settings, as far as their values are known.

    Args:
        cls: A class of settings; without `checked` it has no rules.
        values: By field. What depends on a field that is left out is not judged.

    Returns:
        A line for each field that breaks a rule, and those of `_check`.
    """
    if not hasattr(cls, "_naming"):
        return []
    own = object.__new__(_partial(cls))
    vars(own).update(values)
    found = []
    for field in terms(cls):
        if field not in values:
            continue
        try:
            _keep(own, field, terms(cls)[field], cls._naming)
        except _UnknownError:
            continue
        except ValueError as error:
            found.append(str(error))
            del vars(own)[field]
    return found + (all_broken(own._check) if hasattr(cls, "_check") else [])


def all_broken(*checks: Callable[[], object]) -> list[str]:
    """What several checks say, each of which may raise a ValueError, a line each."""
    found: list[str] = []
    for check in checks:
        try:
            check()
        except _UnknownError:
            continue
        except SettingsError as error:
            found += error.problems
        except ValueError as error:
            found.append(str(error))
    return found


def require_all(*checks: Callable[[], object]) -> None:
    """Run all checks, for a `_check` that is made of several.

    Raises:
        SettingsError: Some raise a ValueError; it has the lines of all.
    """
    if found := all_broken(*checks):
        raise SettingsError(found)


@cache
def _partial(cls: Any) -> type[Any]:
    """The class for settings of which some are not known: whoever looks at those is told so."""
    fields = frozenset(terms(cls))

    def __getattribute__(self: Any, name: str) -> Any:  # noqa: N807
        if name in fields and name not in object.__getattribute__(self, "__dict__"):
            raise _UnknownError(name)
        return object.__getattribute__(self, name)

    return type(cls.__name__, (cls,), {"__getattribute__": __getattribute__})


@cache
def terms(cls: type[Any]) -> Mapping[str, FieldTerms]:
    """What is said of every field of a dataclass beside its type, in their order."""
    found = {}
    for field, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind, *said = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        union = typing.get_origin(kind) in (types.UnionType, typing.Union)
        found[field] = FieldTerms(
            rules=tuple(entry for entry in said if isinstance(entry, Rule)),
            unit=next((entry.name for entry in said if isinstance(entry, Unit)), ""),
            optional=union and type(None) in typing.get_args(kind),
        )
    return found


def _keep(own: Any, field: str, said: FieldTerms, naming: str) -> None:
    """Refuses settings of which a field breaks a rule.

    Raises:
        ValueError: It does; the text names the field and says all that must hold.
    """
    value = getattr(own, field)
    broken = next((rule for rule in said.rules if not _holds(rule, value, own, said)), None)
    if broken is None:
        return
    known = vars(own)
    others = {
        name: f"{name} = {known[name]}" if name in known else name for name in terms(own.__class__)
    }
    words = said.words.format(**others)
    if said.unit:
        one = said.unit.removesuffix("es" if said.unit.endswith("ches") else "s")
        counted = one if words.endswith(" 1") else said.unit
        words += f" {counted}" if words[-1].isdigit() else f", in {said.unit}"
    if said.optional:
        words += ", or null"
    shown = list(value) if isinstance(value, tuple) else value
    must = f"each be {words.removeprefix('each ')}" if words.startswith("each ") else f"be {words}"
    raise ValueError(f"{_named(naming, field, own)} must {must}, got {shown!r}{broken.hint(value)}")


def _named(naming: str, field: str, own: Any) -> str:
    try:
        return naming.format(field=field, self=own)
    except _UnknownError:  # the name that stands in it
        return field


def _holds(rule: Rule, value: Any, own: Any, said: FieldTerms) -> bool:
    return (value is None and said.optional) or rule.holds(value, own)


def _joint(rule: Rule) -> str:
    return ", " if rule.words.startswith("each ") else " and "


def _bound(bound: Bound, own: Any) -> Any:
    return getattr(own, bound) if isinstance(bound, str) else bound


def _shown(bound: Bound) -> str:
    return f"{{{bound}}}" if isinstance(bound, str) else f"{bound:g}"


def _bracketed(note: str) -> str:
    return f" ({note})" if note else ""
