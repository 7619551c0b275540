"""Trainings of which one may fail while others go on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class TrainingsError(RuntimeError):
    """Trainings were cut short: of memory, a device or a disk; the rest is kept."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a training came to nothing.

    Attributes:
        reason: In words.
        final: Whether it would fail again: a candidate that failed is recorded.
    """

    reason: str
    final: bool


def attempt(function: Callable[..., Any], **arguments: Any) -> Any:
    """What a function gives, or why it failed."""
    try:
        return function(**arguments)
    except FloatingPointError as error:
        return Failure(reason=str(error), final=True)
    except ArithmeticError as error:
        return Failure(reason=f"{type(error).__name__}: {error}", final=True)
    except (RuntimeError, MemoryError, OSError) as error:  # of memory, a device, a disk
        return Failure(reason=f"{type(error).__name__}: {error}", final=False)
