"""What strategies are told, and the book they keep of it."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from search.strategies import Outcome, Problem
from search.strategies.ledger import Ledger


def make_problem() -> Problem:
    return Problem(dim=5, names=tuple("abcde"), use_dims=(0, 1), seed=0, baselines={})


def test_a_ledger_keeps_its_own_vectors() -> None:
    ledger, vector = Ledger(), np.zeros(2)
    ledger.queue([vector])
    vector[:] = 1.0
    (given,) = ledger.ask(1)
    np.testing.assert_array_equal(given, np.zeros(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0, "names": ()}, "dim must be at least 1, got 0"),
        ({"names": ("a",)}, "names must have dim = 5 entries, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"use_dims": (0, 5)}, "use_dims must be different positions from 0 to 4"),
        ({"use_dims": (1, 1)}, "use_dims must be different positions from 0 to 4"),
        ({"baselines": {"half": np.zeros(4)}}, r"'half' must have shape .* got \(4,\)"),
        ({"baselines": {"half": np.full(5, 1.5)}}, r"'half' must lie in \[0, 1\]"),
        ({"baselines": {"half": np.full(5, np.nan)}}, r"'half' must lie in \[0, 1\]"),
    ],
)
def test_wrong_problems_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make_problem(), **changes)


def test_a_problem_keeps_its_own_baselines() -> None:
    given = {"half": np.full(5, 0.5)}
    problem = dataclasses.replace(make_problem(), baselines=given)
    given["half"][:] = 0.0
    given["other"] = np.zeros(5)
    assert list(problem.baselines) == ["half"]
    np.testing.assert_array_equal(problem.baselines["half"], np.full(5, 0.5))
    with pytest.raises(ValueError, match="read-only"):
        problem.baselines["half"][0] = 1.0


def test_scores_of_a_failed_outcome_are_refused() -> None:
    failed = Outcome(index=3, vector=np.zeros(5), quality=None, cost=None, error="out of memory")
    with pytest.raises(ValueError, match="candidate 3 failed and has no scores: out of memory"):
        failed.scores()
    assert Outcome(index=3, vector=np.zeros(5), quality=0.7, cost=0.4).scores() == (0.7, 0.4)
