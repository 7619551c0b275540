"""The rules that settings state beside their types: what each refuses, and in what words."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from partitioning.settings import (
    ASCENDING,
    DIFFERENT,
    FINITE,
    NOT_NEGATIVE,
    POSITIVE,
    SOME,
    WHOLE,
    Rule,
    Unit,
    above,
    at_least,
    at_most,
    between,
    checked,
    each,
    interval,
    nearest,
    one_of,
    terms,
)

RULES: list[tuple[Rule, list[Any], list[Any]]] = [
    (at_least(2), [2, 3, math.inf], [1.99, -math.inf]),
    (at_most(2), [2, -math.inf], [2.01, math.inf]),
    (above(0), [0.01, math.inf], [0, -1]),
    (between(1, 3), [1, 2, 3], [0.99, 3.01]),
    (interval("[0, 1]"), [0, 0.5, 1], [-0.01, 1.01]),
    (interval("(0, 1)"), [0.5], [0, 1, -1, 2]),
    (interval("[0, 1)"), [0, 0.99], [1, -0.01]),
    (interval("(0, 1]"), [0.01, 1], [0, 1.01]),
    (FINITE, [0, -5], [math.inf, -math.inf]),
    (POSITIVE, [1e-9, 5], [0, -1, math.inf]),
    (NOT_NEGATIVE, [0, 5], [-1e-9, math.inf]),
    (WHOLE, [0, -3], [0.5, 1.0]),
    (one_of(("a", "b")), ["a", "b"], ["c", "", None]),
    (SOME, [(1,), (1, 1)], [()]),
    (DIFFERENT, [(1,), (2, 1)], [(), (1, 1)]),
    (ASCENDING, [(), (1,), (1, 2)], [(2, 1), (1, 1)]),
    (each(above(0)), [(), (1, 2)], [(0,), (1, 0)]),
]
NUMERIC = [rule for rule, good, _ in RULES if isinstance(good[0], (int, float))]


@dataclass(frozen=True, kw_only=True)
@checked()
class Sample:
    """Settings of which every field is under one rule or several."""

    steps: Annotated[int, at_least(1)] = 9
    window: Annotated[int, at_least(2), at_most("steps"), Unit("outcomes")] = 5
    batch: Annotated[int, at_least(1, "or nothing is asked for"), Unit("candidates")] = 4
    patience: Annotated[float | None, POSITIVE, Unit("seconds")] = None
    kind: Annotated[str, one_of(("toy", "parquet"))] = "toy"
    weights: Annotated[tuple[float, ...], SOME, each(NOT_NEGATIVE)] = (1.0,)
    shares: Annotated[tuple[float, ...], each(interval("(0, 1)", "fractions of steps"))] = ()
    entries: Annotated[int, WHOLE, between(1, 9)] = 1
    name: str = "anything"


@dataclass(frozen=True, kw_only=True)
@checked("task {self.name!r}: {field}")
class Named:
    """Settings whose errors say of whom, and which have a rule between fields."""

    name: str = "cats"
    low: Annotated[float, FINITE] = 0.0
    high: float = 1.0

    def _check(self) -> None:
        if self.low + self.high < 0:
            raise ValueError(f"low and high must not sum to less than 0, got {self}")


@pytest.mark.parametrize(
    ("rule", "good", "bad"), RULES, ids=lambda part: getattr(part, "words", "")
)
def test_a_rule_holds_of_what_it_says(rule: Rule, good: list[Any], bad: list[Any]) -> None:
    assert all(rule.holds(value, None) for value in good)
    assert not any(rule.holds(value, None) for value in bad)


@pytest.mark.parametrize("rule", NUMERIC, ids=lambda rule: rule.words)
def test_no_rule_of_numbers_holds_of_nan(rule: Rule) -> None:
    assert not rule.holds(math.nan, None)
    assert not each(rule).holds((math.nan,), None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1 (or nothing is asked for), in candidates, got 0"),
        (
            {"window": 10},
            "window must be at least 2 and at most steps = 9 outcomes, got 10",
        ),
        ({"patience": 0.0}, "patience must be positive and finite, in seconds, or null, got 0.0"),
        ({"kind": "parqet"}, "kind must be one of toy, parquet, got 'parqet'; did you mean 'parq"),
        ({"kind": "zzz"}, "kind must be one of toy, parquet, got 'zzz'"),
        ({"weights": ()}, "weights must be one or more numbers, each finite and not negative, got"),
        ({"weights": (1.0, -1.0)}, "each finite and not negative, got [1.0, -1.0]"),
        ({"shares": (2.0,)}, "shares must each be in (0, 1), fractions of steps, got [2.0]"),
        ({"entries": 0.5}, "entries must be a whole number from 1 to 9, got 0.5"),
        ({"entries": 10}, "entries must be a whole number from 1 to 9, got 10"),
    ],
)
def test_refused_values_are_named_with_what_must_hold(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Sample(**given)


def test_a_unit_after_a_one_is_singular() -> None:
    @dataclass(frozen=True, kw_only=True)
    @checked()
    class Batch:
        size: Annotated[int, at_least(1), Unit("images")] = 1
        together: Annotated[int, at_least(1), Unit("batches")] = 1

    with pytest.raises(ValueError, match=r"^size must be at least 1 image, got 0$"):
        Batch(size=0)
    with pytest.raises(ValueError, match=r"^together must be at least 1 batch, got 0$"):
        Batch(together=0)


def test_none_passes_only_where_it_is_allowed() -> None:
    assert Sample(patience=None).patience is None
    with pytest.raises(TypeError):
        Sample(steps=None)


def test_a_bound_that_is_a_field_follows_it() -> None:
    assert Sample(steps=20, window=20).window == 20
    with pytest.raises(ValueError, match="at most steps = 4 outcomes, got 5"):
        Sample(steps=4)


def test_names_of_whom_and_rules_between_fields() -> None:
    with pytest.raises(ValueError, match=r"^task 'cats': low must be finite, got nan$"):
        Named(low=math.nan)
    with pytest.raises(ValueError, match="must not sum to less than 0"):
        Named(low=-2.0)


def test_terms_are_what_a_page_says_of_a_field() -> None:
    said = terms(Sample)
    assert list(said)[:2] == ["steps", "window"]
    assert said["window"].words == "at least 2 and at most {steps}"
    assert (said["window"].unit, said["window"].optional) == ("outcomes", False)
    assert (said["patience"].unit, said["patience"].optional) == ("seconds", True)
    assert said["weights"].words == "one or more numbers, each finite and not negative"
    assert said["entries"].words == "a whole number from 1 to 9"
    assert said["name"].words == ""


def test_the_nearest_word_is_suggested_only_where_one_is_near() -> None:
    assert nearest("parqet", ["toy", "parquet"]) == "; did you mean 'parquet'?"
    assert nearest("zzz", ["toy", "parquet"]) == ""
