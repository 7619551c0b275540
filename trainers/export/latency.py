"""How long networks take on this machine, beside each other."""

import platform
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

Key = TypeVar("Key", bound=Hashable)
#: Turns that each takes at least, and seconds after which there are no more.
TURNS, SECONDS = 7, 2.0


def latencies(
    runs: Mapping[Key, Callable[[], object]], *, turns: int = TURNS, seconds: float = SECONDS
) -> dict[Key, float]:
    """Median time of a call in milliseconds, by the clock.

    They take turns, in an order drawn anew every time, so that what else the machine does meets all
    alike. A first turn is to get warm.

    Args:
        runs: What is timed, by name.
        turns: Of each at least.
        seconds: After which, for all together, no further turn begins.
    """
    taken: dict[Key, list[float]] = {key: [] for key in runs}
    rng, keys = np.random.default_rng(0), list(runs)
    for key in keys:
        runs[key]()
    begun = time.perf_counter()
    while len(taken[keys[0]]) < turns or time.perf_counter() - begun < seconds:
        for at in rng.permutation(len(keys)):
            started = time.perf_counter()
            runs[keys[at]]()
            taken[keys[at]].append(1000 * (time.perf_counter() - started))
    return {key: float(np.median(times)) for key, times in taken.items()}


def processor() -> str:
    """What this machine's processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within it torch computes with so many threads of the processor; 0 leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
