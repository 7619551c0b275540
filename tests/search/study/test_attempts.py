"""Trainings of which one fails."""

import pytest

from search.study import Failure, attempt


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "reason", "final"),
    [
        (FloatingPointError("the loss is not finite"), "the loss is not finite", True),
        (OverflowError(34, "out of range"), "OverflowError: (34, 'out of range')", True),
        (MemoryError("no room"), "MemoryError: no room", False),
        (OSError("disk full"), "OSError: disk full", False),
    ],
)
def test_why_a_training_came_to_nothing(error: Exception, reason: str, final: bool) -> None:
    assert attempt(fail, error=error) == Failure(reason=reason, final=final)


def test_what_is_wrong_with_the_code_is_not_a_training_that_failed() -> None:
    with pytest.raises(TypeError):
        attempt(fail, error=TypeError("a bug"))
    assert attempt(dict, a=1) == {"a": 1}
