"""Designs that an arm proposes again: scored once at every rung, whoever proposed them first."""

import math
from typing import Generic, TypeVar

from search.candidates import Candidate

W = TypeVar("W")


class Repeats(Generic[W]):
    """The designs (masks) that an arm has scored or has given out to be scored, by rung."""

    def __init__(self) -> None:
        self._firsts: dict[tuple[str, int], Candidate] = {}
        self._waiting: dict[tuple[str, int], list[W]] = {}

    def remember(self, candidate: Candidate) -> None:
        """Keep what rungs said of a candidate for equal designs that come after it."""
        for rung, said in enumerate(candidate.rungs):
            if said.quality is not None and math.isfinite(said.quality):
                design = _design(candidate, rung)
                first = self._firsts.get(design)
                if first is None or candidate.index < first.index:
                    self._firsts[design] = candidate

    def first(self, candidate: Candidate, rung: int) -> Candidate | None:
        """An equal design that was asked for earlier and scored at a rung; None if there is none.

        Not one that was asked for later: an interrupted search may have scored that, but a search
        that runs through has this candidate's score first.
        """
        first = self._firsts.get(_design(candidate, rung))
        return first if first is not None and first.index < candidate.index else None

    def give_out(self, candidate: Candidate, rung: int, waiter: W) -> bool:
        """Whether a candidate is to be scored now; else the waiter is told by `taken_back`."""
        design = _design(candidate, rung)
        if design in self._waiting:
            self._waiting[design].append(waiter)
            return False
        self._waiting[design] = []
        return True

    def taken_back(self, candidate: Candidate, rung: int) -> list[W]:
        """Who waited for a candidate that has been given out, now that it comes back."""
        return self._waiting.pop(_design(candidate, rung))


def _design(candidate: Candidate, rung: int) -> tuple[str, int]:
    return candidate.masks.digest(), rung
