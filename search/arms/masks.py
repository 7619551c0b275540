"""Masks of several candidates at once, on CPUs of the cluster that no evaluator takes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

Item = TypeVar("Item")
Function = Callable[[Item], Item]


def in_parallel(workers: int) -> Callable[[Function[Item], Iterable[Item]], Iterator[Item]]:
    """What maps as `map` does, in order, with so many items ahead of those that were asked for.

    An item whose worker process dies is done here.

    Args:
        workers: Items at once, at least 1. They reserve nothing, so that none waits for ever.
    """

    def mapped(function: Function[Item], items: Iterable[Item]) -> Iterator[Item]:
        remote = ray.remote(function).options(
            num_cpus=0, max_retries=1, scheduling_strategy="SPREAD"
        )
        under_way: deque[tuple[Item, Any]] = deque()

        def first() -> Item:
            item, answer = under_way.popleft()
            try:
                found: Item = ray.get(answer)
            except RayTaskError:
                raise
            except RayError:
                found = function(item)
            return found

        for item in items:
            under_way.append((item, remote.remote(item)))
            if len(under_way) > workers:
                yield first()
        while under_way:
            yield first()

    return mapped
