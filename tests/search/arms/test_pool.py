"""The pool over real Ray actors that crash, raise, and come back."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle

from search.arms.pool import ActorPool
from search.arms.scoring import Scored
from search.candidates import Rung


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # Workers cannot import this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init("local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


class Fragile:
    """Scores numbers; some of them kill it or make it raise, each so many times."""

    def __init__(self, folder: Path, deadly: dict[int, int], raising: dict[int, int]) -> None:
        self.folder, self.deadly, self.raising = folder, deadly, raising

    def evaluate(self, cohort: Sequence[int], rung: Rung) -> list[Scored]:
        for number in cohort:
            seen = len(list(self.folder.glob(f"{number}-*")))
            (self.folder / f"{number}-{seen}").touch()
            if seen < self.deadly.get(number, 0):
                os._exit(1)
            if seen < self.raising.get(number, 0):
                raise RuntimeError(f"number {number} is bad")
        return [Scored(evaluator=f"scored {number} in {rung.steps}") for number in cohort]


def scores(
    folder: Path, cohorts: Sequence[Sequence[int]], *, attempts: int = 3, **trouble: Any
) -> dict[int, list[Scored]]:
    arguments = {"deadly": {}, "raising": {}} | trouble
    made: list[int] = []

    def make(index: int) -> Any:
        made.append(index)
        return ray.remote(Fragile).options(num_cpus=0).remote(folder, **arguments)

    pool = ActorPool(make, evaluators=2, attempts=attempts)
    for ticket, cohort in enumerate(cohorts):
        pool.submit(ticket, cohort, Rung(steps=10 + ticket))  # type: ignore[arg-type]  # numbers stand for masks
    found = dict(pool.wait() for _ in cohorts)
    assert sorted(found) == list(range(len(cohorts)))
    assert (len(made) > 2) == bool(arguments["deadly"]), "replaced only when one died"
    return found


def test_cohorts_are_scored_in_order(tmp_path: Path) -> None:
    found = scores(tmp_path, [[0, 1], [2], [3, 4, 5], [6]])
    assert [s.evaluator for s in found[2]] == [f"scored {n} in 12" for n in (3, 4, 5)]


def test_an_evaluator_that_dies_is_replaced_and_its_cohort_asked_again(tmp_path: Path) -> None:
    found = scores(tmp_path, [[0, 1, 2], [3], [4]], deadly={1: 1})
    assert all(s.error is None for results in found.values() for s in results)
    assert [s.evaluator for s in found[0]] == [f"scored {n} in 10" for n in (0, 1, 2)]


@pytest.mark.parametrize("trouble", ["deadly", "raising"])
def test_what_keeps_failing_fails_alone(tmp_path: Path, trouble: str) -> None:
    found = scores(tmp_path, [[0, 1, 2], [3]], **{trouble: {1: 99}})
    assert [s.error is None for s in found[0]] == [True, False, True]
    assert (found[0][1].error or "").startswith("failed 3 times; last: ")
    assert found[1][0].error is None
    assert len(list(tmp_path.glob("1-*"))) == 3


def test_the_reason_is_kept(tmp_path: Path) -> None:
    found = scores(tmp_path, [[7]], raising={7: 99}, attempts=1)
    assert found[0][0].error == "failed 1 times; last: number 7 is bad"
