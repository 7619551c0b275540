"""Streams of random numbers: one per purpose, so that no two strategies of a seed draw alike."""

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """First word of a spawn key; a number that is taken is never given to another purpose."""

    UNIFORM = 0
    ES = 1
    POLICY_GRADIENT = 2
    EVEN = 3
    TPE = 10
    GP = 11
    NSGA2 = 12
    NSGA3 = 13
    CMA_ES = 14
    SOBOL = 15
    REGULARISED_EVOLUTION = 16
    LOCAL_REFINEMENT = 17
    TASK_MODELS = 18


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """A generator that is a function of its arguments alone.

    Args:
        seed: Of the problem, not negative.
        stream: What is drawn.
        position: Where in the stream, such as the number of a batch; none of them negative.

    Example:
        >>> first, again = generator(0, Stream.ES, 3), generator(0, Stream.ES, 3)
        >>> bool(first.random() == again.random() != generator(0, Stream.SOBOL, 3).random())
        True
    """
    return np.random.default_rng(_sequence(seed, stream, *position))


def seed_of(seed: int, stream: Stream, *position: int) -> int:
    """A seed of 32 bits for another library's generator, a function of its arguments alone.

    Args:
        seed: Of the problem, not negative.
        stream: What is drawn.
        position: Where in the stream, such as the number of a batch; none of them negative.
    """
    return int(_sequence(seed, stream, *position).generate_state(1)[0])


def _sequence(seed: int, stream: Stream, *position: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(int(stream), *position))
