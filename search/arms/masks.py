"""Masks of several candidates at once, on CPUs of the cluster that no evaluator takes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError

from search.arms.nodes import require_same

Item = TypeVar("Item")
Function = Callable[[Item], Item]
#: Seconds that an item has, once it is the next. Then those CPUs are taken by somebody else.
PATIENCE = 120.0


@ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")  # type: ignore[untyped-decorator]
def _done(function: Function[Item], item: Item, code: Mapping[str, str]) -> Item:
    require_same(code)
    return function(item)


def in_parallel(
    workers: int, code: Mapping[str, str]
) -> Callable[[Function[Item], Iterable[Item]], Iterator[Item]]:
    """What maps as `map` does, in order, with so many items under way.

    An item that fails elsewhere is done here; where it does not come, so are all after it.

    Args:
        workers: Items at once, at least 1.
        code: What the search runs, as `facts` says it.
    """

    def mapped(function: Function[Item], items: Iterable[Item]) -> Iterator[Item]:
        given = ray.put(function)
        under_way: deque[tuple[Item, Any]] = deque()
        alone = False

        def first() -> Item:
            nonlocal alone
            item, answer = under_way.popleft()
            if not alone:
                try:
                    found: Item = ray.get(answer, timeout=PATIENCE)
                    return found
                except RayError as error:
                    alone = isinstance(error, GetTimeoutError)
            return function(item)

        for item in items:
            if len(under_way) == workers:
                yield first()
            under_way.append((item, None if alone else _done.remote(given, item, code)))
        while under_way:
            yield first()

    return mapped
