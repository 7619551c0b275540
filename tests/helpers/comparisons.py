"""Made-up arms, and what a comparison says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from search.candidates import Candidate
from search.comparison import Comparison, Terms, compare_strategies
from tests.helpers.candidates import measurement

REFERENCE = (0.0, 1.0)


def make(
    quality: float | None,
    cost: float | None = 0.5,
    strategy: str = "es",
    seed: int = 0,
    index: int = 0,
    seconds: float = 2.0,
    **changes: Any,
) -> Candidate:
    """A candidate of one task; without a quality it failed."""
    rungs = () if quality is None else (measurement(quality, seconds=seconds),)
    candidate = Candidate(
        strategy=strategy, seed=seed, index=index, vector=(0.5,), names=("use[a]",),
        quality=quality, cost=cost, rungs=rungs, started=float(index),
        finished=100.0 - index, error=None if quality is not None else "boom",
    )  # fmt: skip
    return replace(candidate, **changes)


def arms(
    levels: dict[str, float], seeds: Sequence[int], count: int = 4, noise: float = 0.01
) -> Iterator[Candidate]:
    """Arms of one cost whose quality grows to a level, with noise of their own."""
    for seed in seeds:
        for number, (name, level) in enumerate(levels.items()):
            draws = np.random.default_rng([seed, number])
            top = level + noise * draws.normal()
            for index in range(count):
                yield make(top * (index + 1) / count, 0.5, name, seed, index)


def compared(candidates: Sequence[Candidate], **changes: Any) -> Comparison:
    """Their comparison with a budget of four candidates."""
    names = list(dict.fromkeys(candidate.strategy for candidate in candidates))
    given = {"strategies": names, "budget": 4, "reference": REFERENCE} | changes
    return compare_strategies(candidates, Terms(**given))
