"""Evaluators as Ray actors, and the pool that hands them cohorts and outlives their deaths."""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from partitioning import Masks
from search.arms.reasons import reason
from search.arms.scoring import Scored
from search.candidates import Rung
from search.config import StudyConfig
from search.study import Foundation
from trainers.cost import costs
from trainers.joint import train_jointly
from trainers.proxy import DivergedError, Evaluation, FeatureCache, Proxy


class Evaluator:
    """Scores cohorts; lives on its share of a GPU or on some CPUs and keeps the cache warm.

    Args:
        cache: Features; shared by the evaluators of a node without copies.
        config: The study: how candidates are scored, and on what.
        base: Tasks, trunk and teachers, for rungs that train in full; None where there are none.
    """

    def __init__(self, cache: FeatureCache, config: StudyConfig, base: Foundation | None) -> None:
        if config.compute.threads:
            torch.set_num_threads(config.compute.threads)
        self._config, self._base = config, base
        share = min(1.0, config.schedule.gpus or 1.0)
        self._proxy = Proxy(cache, config.proxy, config.compute, share)
        self._name = f"{ray.util.get_node_ip_address()}:{os.getpid()}"

    def ready(self) -> None:
        """Answers once the features are loaded."""

    def evaluate(self, cohort: Sequence[Masks], rung: Rung) -> list[Scored]:
        """Score a cohort; a candidate whose training diverges is an error of that candidate."""
        if rung.fidelity == "full":
            results = [self._train(masks, rung.steps) for masks in cohort]
        else:
            proxy = self._config.proxy
            proxy = replace(proxy, sgd=replace(proxy.sgd, steps=rung.steps))
            results = self._proxy.score(cohort, proxy)
        return [
            Scored(error=str(result), evaluator=self._name)
            if isinstance(result, DivergedError)
            else Scored(evaluation=result, evaluator=self._name)
            for result in results
        ]

    def _train(self, masks: Masks, steps: int) -> Evaluation | DivergedError:
        """What a short training on the images reaches."""
        assert self._base is not None, "a study with a rung of fidelity full hands it over"
        config, tasks = self._config, self._base.tasks
        try:
            result = train_jointly(
                masks,
                tasks,
                self._base.trunk,
                self._base.teachers,
                replace(config.train, sgd=replace(config.train.sgd, steps=steps)),
                backbone=config.backbone,
                seed=config.proxy.seed,
                compute=config.compute,
            )
        except FloatingPointError as error:
            return DivergedError(str(error))
        classes = [tasks[network.task].num_classes for network in masks.networks]
        return Evaluation(
            accuracy=result.accuracy["validation"],
            distillation_loss={},
            costs=costs(config.backbone, masks, classes, input_size=config.input_size),
            seconds=result.seconds,
        )


#: Seconds that an evaluator has to load what it works on.
STARTS_WITHIN = 600.0


class PoolError(RuntimeError):
    """No evaluator of an arm can be started."""


@dataclass(kw_only=True)
class _Work:
    """A cohort on its way: positions not scored yet, and how often each was tried."""

    ticket: int
    cohort: Sequence[Masks]
    rung: Rung
    results: list[Scored | None]
    attempts: list[int]


@dataclass(frozen=True, kw_only=True)
class _Flight:
    """What an evaluator was asked: positions of a cohort, since when."""

    evaluator: int
    work: _Work
    positions: list[int]
    since: float


class ActorPool:
    """Hands cohorts to evaluator actors; replaces actors that die and asks their cohort again.

    An evaluator is asked only once it has answered that it is ready: one whose node is gone may
    wait for another for ever. One that does not answer in time is taken for lost.

    Args:
        make: Starts evaluator number i.
        evaluators: How many.
        attempts: Tries of a candidate before it is given up as failed, and of starting an
            evaluator.
        timeout: Seconds after which an evaluator that was asked is taken for lost; where its rung
            took long before, ten times the longest.
        say: Called with a line about every evaluator that is lost.
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        *,
        evaluators: int,
        attempts: int,
        timeout: float,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._make, self._say = make, say
        self._attempts, self._timeout = attempts, timeout
        self._actors: dict[int, Any] = {}
        self._starts = [0] * evaluators
        self._idle: deque[int] = deque()
        #: Evaluators that have not answered yet, and since when.
        self._starting: dict[Any, tuple[int, float]] = {}
        self._flying: dict[Any, _Flight] = {}
        self._queue: deque[tuple[_Work, list[int]]] = deque()
        #: Seconds that the slowest cohort took, by rung.
        self._longest: dict[Rung, float] = {}
        # As many again wait, so that no evaluator is idle while an older cohort is still out.
        self.slots = 2 * evaluators
        for evaluator in range(evaluators):
            self._start(evaluator)

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        """Start scoring a cohort as soon as an evaluator is free."""
        size = len(cohort)
        work = _Work(
            ticket=ticket, cohort=cohort, rung=rung, results=[None] * size, attempts=[0] * size
        )
        self._queue.append((work, list(range(size))))
        self._dispatch()

    def wait(self) -> tuple[int, list[Scored]]:
        """Block until a cohort is scored; its ticket and its results in order.

        Raises:
            PoolError: No evaluator answers, though all were started again.
        """
        while True:
            asked = [*self._flying, *self._starting]
            left = min(map(self._deadline, asked)) - time.monotonic()
            ready, _ = ray.wait(asked, num_returns=1, timeout=max(0.0, left))
            work = None
            if not ready:
                late = min(asked, key=self._deadline)
                error = GetTimeoutError(f"no answer within {self._limit(late):.0f} seconds")
                work = self._take_down(late, error)
            elif ready[0] in self._starting:
                self._take_up(ready[0])
            else:
                work = self._land(ready[0])
            self._dispatch()
            if work is not None and all(scored is not None for scored in work.results):
                return work.ticket, [scored for scored in work.results if scored is not None]

    def _start(self, evaluator: int) -> None:
        self._actors[evaluator] = actor = self._make(evaluator)
        self._starting[actor.ready.remote()] = evaluator, time.monotonic()

    def _take_up(self, ref: Any) -> None:
        """An evaluator has answered that it is ready, or that it cannot be started."""
        try:
            ray.get(ref)
        except RayError as error:
            self._take_down(ref, error)
        else:
            evaluator, _ = self._starting.pop(ref)
            self._starts[evaluator] = 0
            self._idle.append(evaluator)

    def _land(self, ref: Any) -> _Work:
        """Take in what an evaluator answers."""
        flight = self._flying[ref]
        try:
            results = ray.get(ref)
        except RayTaskError as error:  # the evaluator lives
            del self._flying[ref]
            self._failed(flight, error)
        except RayError as error:
            self._take_down(ref, error)
            return flight.work
        else:
            del self._flying[ref]
            for position, scored in zip(flight.positions, results, strict=True):
                flight.work.results[position] = scored
            took = time.monotonic() - flight.since
            rung = flight.work.rung
            self._longest[rung] = max(took, self._longest.get(rung, 0.0))
        self._idle.append(flight.evaluator)
        return flight.work

    def _take_down(self, ref: Any, error: RayError) -> _Work | None:
        """Replace an evaluator that died, or that does not answer; the work that it had, if any."""
        flight = self._flying.pop(ref, None)
        evaluator = flight.evaluator if flight else self._starting.pop(ref)[0]
        self._say(f"evaluator {evaluator} is lost ({reason(error)})")
        ray.kill(self._actors[evaluator])
        if flight and isinstance(error, ActorUnavailableError):
            # The network's fault, not the candidates'.
            self._queue.appendleft((flight.work, flight.positions))
        elif flight:
            self._failed(flight, error)
        self._starts[evaluator] += 1
        if self._starts[evaluator] <= self._attempts:
            self._start(evaluator)
        elif not (self._flying or self._starting or self._idle):
            raise PoolError(f"no evaluator can be started; the last: {reason(error)}")
        return flight.work if flight else None

    def _failed(self, flight: _Flight, error: RayError) -> None:
        """Have those whose scoring failed scored again, or give them up."""
        work = flight.work
        for position in flight.positions:
            work.attempts[position] += 1
            if work.attempts[position] >= self._attempts:
                work.results[position] = Scored(
                    error=f"failed {self._attempts} times; last: {reason(error)}"
                )
            else:
                # Alone, so that one bad candidate does not take its cohort with it.
                self._queue.appendleft((work, [position]))

    def _dispatch(self) -> None:
        while self._idle and self._queue:
            evaluator, (work, positions) = self._idle.popleft(), self._queue.popleft()
            cohort = [work.cohort[p] for p in positions]
            ref = self._actors[evaluator].evaluate.remote(cohort, work.rung)
            self._flying[ref] = _Flight(
                evaluator=evaluator, work=work, positions=positions, since=time.monotonic()
            )

    def _limit(self, ref: Any) -> float:
        """Seconds that an evaluator has to answer."""
        if ref in self._starting:
            return STARTS_WITHIN
        return max(self._timeout, 10 * self._longest.get(self._flying[ref].work.rung, 0.0))

    def _deadline(self, ref: Any) -> float:
        flight = self._flying.get(ref)
        return (flight.since if flight else self._starting[ref][1]) + self._limit(ref)


def start_evaluator(index: int, config: StudyConfig, cache: Any, base: Any) -> Any:
    """Start evaluator number `index` in its bundle of the trial's placement group.

    Args:
        index: From 0.
        config: The study.
        cache: A reference to the features in the object store.
        base: One to the `Foundation`; None where no rung needs it.
    """
    group = get_current_placement_group()
    return (
        ray.remote(Evaluator)
        .options(
            num_cpus=config.schedule.cpus,
            num_gpus=config.schedule.gpus or 0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=group,
                # The trial's own bundle is empty and dropped, so evaluators count from 0.
                placement_group_bundle_index=index,
            ),
        )
        .remote(cache, config, base)
    )
