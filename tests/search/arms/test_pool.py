"""The pool over real Ray actors that crash, raise, and come back."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle

from search.arms.clock import Clock
from search.arms.pool import ActorPool, Answer, PoolError
from search.arms.scoring import Scored
from search.candidates import Rung
from tests.helpers.studies import wait_for


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # Workers cannot import this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init("local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


class Fragile:
    """Scores numbers; some of them kill it, make it raise or hang, each so many times."""

    def __init__(
        self,
        folder: Path,
        deadly: dict[int, int],
        raising: dict[int, int],
        hanging: dict[int, int],
    ) -> None:
        self.folder, self.deadly, self.raising, self.hanging = folder, deadly, raising, hanging

    def ready(self) -> None:
        pass

    def evaluate(self, cohort: Sequence[int], rung: Rung) -> Answer:
        for number in cohort:
            seen = len(list(self.folder.glob(f"{number}-*")))
            (self.folder / f"{number}-{seen}").touch()
            if seen < self.deadly.get(number, 0):
                os._exit(1)
            if seen < self.raising.get(number, 0):
                raise RuntimeError(f"number {number} is bad")
            if seen < self.hanging.get(number, 0):
                time.sleep(3600)
        scored = [Scored(evaluator=f"scored {number} in {rung.steps}") for number in cohort]
        return Answer(scored=scored, seconds=0.0)


def scores(
    folder: Path,
    cohorts: Sequence[Sequence[int]],
    *,
    attempts: int = 3,
    timeout: float = 600,
    **trouble: Any,
) -> dict[int, list[Scored]]:
    arguments: dict[str, Any] = {"deadly": {}, "raising": {}, "hanging": {}} | trouble
    made: list[int] = []
    said: list[str] = []

    def make(index: int) -> Any:
        made.append(index)
        return ray.remote(Fragile).options(num_cpus=0).remote(folder, **arguments)

    pool = ActorPool(make, evaluators=2, attempts=attempts, timeout=timeout, say=said.append)
    for ticket, cohort in enumerate(cohorts):
        pool.submit(ticket, cohort, Rung(steps=10 + ticket))  # type: ignore[arg-type]  # numbers stand for masks
    found = dict(pool.wait() for _ in cohorts)
    assert sorted(found) == list(range(len(cohorts)))
    died = bool(arguments["deadly"] or arguments["hanging"])
    assert (len(made) > 2) == bool(said) == died, "replaced only when one died"
    return found


def test_cohorts_are_scored_in_order(tmp_path: Path) -> None:
    found = scores(tmp_path, [[0, 1], [2], [3, 4, 5], [6]])
    assert [s.evaluator for s in found[2]] == [f"scored {n} in 12" for n in (3, 4, 5)]


def test_an_evaluator_that_dies_is_replaced_and_its_cohort_asked_again(tmp_path: Path) -> None:
    found = scores(tmp_path, [[0, 1, 2], [3], [4]], deadly={1: 1})
    assert all(s.error is None for results in found.values() for s in results)
    assert [s.evaluator for s in found[0]] == [f"scored {n} in 10" for n in (0, 1, 2)]


def test_an_evaluator_that_hangs_is_replaced_and_its_cohort_asked_again(tmp_path: Path) -> None:
    found = scores(tmp_path, [[0, 1], [2], [3]], hanging={1: 1}, timeout=5)
    assert all(s.error is None for results in found.values() for s in results)


@pytest.mark.parametrize(
    "trouble", ["deadly", "raising", pytest.param("hanging", marks=pytest.mark.slow)]
)
def test_what_keeps_failing_fails_alone(tmp_path: Path, trouble: str) -> None:
    timeout = 5 if trouble == "hanging" else 600
    found = scores(tmp_path, [[0, 1, 2], [3]], timeout=timeout, **{trouble: {1: 99}})
    assert [s.error is None for s in found[0]] == [True, False, True]
    assert (found[0][1].error or "").startswith("failed 3 times; last: ")
    assert found[1][0].error is None
    assert len(list(tmp_path.glob("1-*"))) == 3


def actor(cls: type, **resources: float) -> Any:
    return ray.remote(cls).options(num_cpus=0, resources=resources).remote


def test_one_that_waits_for_a_node_for_ever_is_not_asked(tmp_path: Path) -> None:
    """As one whose node is lost does, for which its bundle finds no other."""
    lost = []

    def make(index: int) -> Any:
        lost.append(index)
        nowhere = {"a node that is gone": 1} if index == 1 else {}
        return actor(Fragile, **nowhere)(tmp_path, {}, {}, {})

    pool = ActorPool(make, evaluators=2, attempts=1, timeout=600)
    for ticket in range(4):
        pool.submit(ticket, [ticket], Rung(steps=1))  # type: ignore[list-item]
    found = dict(pool.wait() for _ in range(4))
    assert [s.evaluator for results in found.values() for s in results] == [
        f"scored {n} in 1" for n in range(4)
    ]


def test_no_evaluator_can_be_started(tmp_path: Path) -> None:
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("no driver")

        def ready(self) -> None:
            pass

    said: list[str] = []
    pool = ActorPool(
        lambda index: actor(Broken)(), evaluators=2, attempts=2, timeout=600, say=said.append
    )
    pool.submit(0, [0], Rung(steps=1))  # type: ignore[list-item]
    with pytest.raises(
        PoolError, match=r"no evaluator can be started; the last: RuntimeError: no driver"
    ):
        pool.wait()
    assert len(said) == 2 * 3 + 2, "each is lost three times, and then given up"


def test_the_reason_is_kept(tmp_path: Path) -> None:
    found = scores(tmp_path, [[7]], raising={7: 99}, attempts=1)
    assert found[0][0].error == "failed 1 times; last: number 7 is bad"


class Slow(Fragile):
    """Takes a while, and says so."""

    def evaluate(self, cohort: Sequence[int], rung: Rung) -> Answer:
        began = time.monotonic()
        time.sleep(0.5)
        answer = super().evaluate(cohort, rung)
        return replace(answer, seconds=time.monotonic() - began)


def test_all_time_of_the_evaluators_is_accounted_for(tmp_path: Path) -> None:
    began = time.monotonic()
    clock = Clock()
    pool = ActorPool(
        lambda index: actor(Slow)(tmp_path, {}, {}, {}),
        evaluators=2, attempts=1, timeout=600, clock=clock,
    )  # fmt: skip
    for ticket in range(3):
        pool.submit(ticket, [ticket], Rung(steps=1))  # type: ignore[list-item]
    for _ in range(3):
        with clock.doing("outcomes"):
            pool.wait()
    with clock.doing("masks"):  # for so long both have nothing to do
        time.sleep(1)
    used = pool.utilisation()
    assert sum(used.values()) == pytest.approx(2 * (time.monotonic() - began), rel=0.05)
    assert used["busy"] == pytest.approx(1.5, abs=0.3)
    assert used["masks"] == pytest.approx(2, abs=0.3)
    assert used["start"] > 0
    assert used["outcomes"] > 0, "the third cohort had one evaluator, the other none"
    pool.submit(3, [3], Rung(steps=1))  # type: ignore[list-item]
    pool.wait()
    for evaluator in range(2):
        ray.kill(pool._actors[evaluator])
    pool.submit(4, [4], Rung(steps=1))  # type: ignore[list-item]
    pool.wait()
    used = pool.utilisation()
    assert used["lost"] >= 0
    assert sum(used.values()) == pytest.approx(2 * (time.monotonic() - began), rel=0.05)


def test_what_waits_is_handed_out_while_the_arm_is_busy(tmp_path: Path) -> None:
    """An evaluator that has answered need not wait until the arm waits, too."""
    pool = ActorPool(
        lambda index: actor(Slow)(tmp_path, {}, {}, {}), evaluators=1, attempts=1, timeout=600
    )
    for ticket in range(4):
        pool.submit(ticket, [ticket], Rung(steps=1))  # type: ignore[list-item]
    pool.wait()
    time.sleep(1)  # cohort 1 is scored by now
    assert not (tmp_path / "2-0").exists()
    pool.submit(4, [4], Rung(steps=1))  # type: ignore[list-item]
    wait_for((tmp_path / "2-0").exists, within=10)
