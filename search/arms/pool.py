"""Evaluators as Ray actors, and the pool that hands them cohorts and outlives their deaths."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from partitioning import Masks
from search.arms.clock import Clock
from search.arms.nodes import require_same
from search.arms.reasons import reason
from search.arms.scoring import Scored
from search.candidates import Rung, Utilisation, total
from search.config import StudyConfig
from search.study import Foundation
from trainers.cost import costs
from trainers.joint import train_jointly
from trainers.proxy import DivergedError, Evaluation, FeatureCache, Proxy


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an evaluator answers: the results of a cohort in order, and the seconds they took."""

    scored: list[Scored]
    seconds: float


class Evaluator:
    """Scores cohorts; lives on its share of a GPU or on some CPUs and keeps the cache warm.

    Args:
        cache: Features; shared by the evaluators of a node without copies.
        config: The study: how candidates are scored, and on what.
        base: Tasks, trunk and teachers, for rungs that train in full; None where there are none.
        code: What the search runs, as `facts` says it.

    Raises:
        DeviceError: Its node, which may have joined since, has other code or libraries.
    """

    def __init__(
        self,
        cache: FeatureCache,
        config: StudyConfig,
        base: Foundation | None,
        code: Mapping[str, str],
    ) -> None:
        require_same(code)
        if config.compute.threads:
            torch.set_num_threads(config.compute.threads)
        self._config, self._base = config, base
        share = min(1.0, config.schedule.gpus or 1.0)
        self._proxy = Proxy(cache, config.proxy, config.compute, share)
        self._name = f"{ray.util.get_node_ip_address()}:{os.getpid()}"

    def ready(self) -> None:
        """Answers once the features are loaded."""

    def evaluate(self, cohort: Sequence[Masks], rung: Rung) -> Answer:
        """Score a cohort; a candidate whose training diverges is an error of that candidate."""
        started = time.monotonic()
        if rung.fidelity == "full":
            results = [self._train(masks, rung.steps) for masks in cohort]
        else:
            proxy = self._config.proxy
            proxy = replace(proxy, sgd=replace(proxy.sgd, steps=rung.steps))
            results = self._proxy.score(cohort, proxy)
        scored = [
            Scored(error=str(result), evaluator=self._name)
            if isinstance(result, DivergedError)
            else Scored(evaluation=result, evaluator=self._name)
            for result in results
        ]
        return Answer(scored=scored, seconds=time.monotonic() - started)

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
                config.train.seen_once(replace(config.train.sgd, steps=steps)),
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
            costs=costs(config.network, masks, classes),
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
    wait for another for ever. One that does not answer in time is taken for lost. Whenever a cohort
    comes in, those that have answered are handed what waits.

    Args:
        make: Starts evaluator number i.
        evaluators: How many.
        attempts: Tries of a candidate before it is given up as failed, and of starting an
            evaluator.
        timeout: Seconds after which an evaluator that was asked is taken for lost; where its rung
            took long before, ten times the longest.
        clock: Knows why evaluators are idle.
        say: Called with a line about every evaluator that is lost.
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        *,
        evaluators: int,
        attempts: int,
        timeout: float,
        clock: Clock | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._make, self._say, self._clock = make, say, clock or Clock()
        self._attempts, self._timeout = attempts, timeout
        self._actors: dict[int, Any] = {}
        self._starts = [0] * evaluators
        #: Evaluators that have nothing to do, and those that are given up, and since when.
        self._idle: dict[int, float] = {}
        self._given_up: dict[int, float] = {}
        #: Evaluators that have not answered yet, and since when.
        self._starting: dict[Any, tuple[int, float]] = {}
        self._flying: dict[Any, _Flight] = {}
        self._queue: deque[tuple[_Work, list[int]]] = deque()
        #: Cohorts whose results are all there.
        self._done: deque[_Work] = deque()
        #: Seconds that the slowest cohort took, by rung.
        self._longest: dict[Rung, float] = {}
        #: What evaluators did with their time.
        self._used: dict[str, float] = {}
        self.evaluators = evaluators
        # As many again wait, so that no evaluator is idle while an older cohort is still out.
        self.slots = 2 * evaluators
        for evaluator in range(evaluators):
            self._start(evaluator)

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        """Start scoring a cohort as soon as an evaluator is free.

        Raises:
            PoolError: No evaluator answers, though all were started again.
        """
        size = len(cohort)
        work = _Work(
            ticket=ticket, cohort=cohort, rung=rung, results=[None] * size, attempts=[0] * size
        )
        self._queue.append((work, list(range(size))))
        self._dispatch()
        while not self._idle and self._hear(within=0.0):
            pass

    def wait(self) -> tuple[int, list[Scored]]:
        """Block until a cohort is scored; its ticket and its results in order.

        Raises:
            PoolError: No evaluator answers, though all were started again.
        """
        while not self._done:
            asked = [*self._flying, *self._starting]
            left = min(map(self._deadline, asked)) - time.monotonic()
            if not self._hear(within=max(0.0, left)):
                late = min(asked, key=self._deadline)
                error = GetTimeoutError(f"no answer within {self._limit(late):.0f} seconds")
                self._take_down(late, error)
                self._dispatch()
        work = self._done.popleft()
        return work.ticket, [scored for scored in work.results if scored is not None]

    def utilisation(self) -> Utilisation:
        """What evaluators have done with their time so far."""
        now = time.monotonic()
        for evaluator, since in self._idle.items():
            self._spent(**self._clock.split(since, now))
            self._idle[evaluator] = now
        asked = [{"busy": now - flight.since} for flight in self._flying.values()]
        starting = [{"start": now - since} for _, since in self._starting.values()]
        lost = [{"lost": now - since} for since in self._given_up.values()]
        return total([self._used, *asked, *starting, *lost])

    def _hear(self, *, within: float) -> bool:
        """Take in one answer and hand out what waits; whether one came within so many seconds."""
        ready, _ = ray.wait(
            [*self._flying, *self._starting], num_returns=1, timeout=within, fetch_local=False
        )
        for ref in ready:
            if ref in self._starting:
                self._take_up(ref)
            else:
                self._land(ref)
        self._dispatch()
        return bool(ready)

    def _spent(self, **seconds: float) -> None:
        self._used = total([self._used, seconds])

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
            evaluator, since = self._starting.pop(ref)
            self._starts[evaluator] = 0
            self._idle[evaluator] = time.monotonic()
            self._spent(start=self._idle[evaluator] - since)

    def _land(self, ref: Any) -> None:
        """Take in what an evaluator answers."""
        flight = self._flying[ref]
        try:
            answer: Answer = ray.get(ref)
        except RayTaskError as error:  # the evaluator lives
            del self._flying[ref]
            self._idle[flight.evaluator] = now = time.monotonic()
            self._spent(busy=now - flight.since)
            self._failed(flight, error)
        except RayError as error:
            self._take_down(ref, error)
        else:
            del self._flying[ref]
            for position, scored in zip(flight.positions, answer.scored, strict=True):
                flight.work.results[position] = scored
            took = time.monotonic() - flight.since
            rung = flight.work.rung
            self._longest[rung] = max(took, self._longest.get(rung, 0.0))
            # Its answer may have waited until the arm had time for it.
            self._idle[flight.evaluator] = flight.since + min(took, answer.seconds)
            self._spent(busy=min(took, answer.seconds))
            self._look(flight.work)

    def _look(self, work: _Work) -> None:
        """See whether all of a cohort has been scored."""
        if all(scored is not None for scored in work.results):
            self._done.append(work)

    def _take_down(self, ref: Any, error: RayError) -> None:
        """Replace an evaluator that died, or that does not answer."""
        flight, now = self._flying.pop(ref, None), time.monotonic()
        evaluator, since = (flight.evaluator, flight.since) if flight else self._starting.pop(ref)
        self._spent(lost=now - since)
        self._say(f"evaluator {evaluator} is lost ({reason(error)})")
        ray.kill(self._actors[evaluator])
        if flight:
            self._failed(flight, error)
        self._starts[evaluator] += 1
        if self._starts[evaluator] <= self._attempts:
            self._start(evaluator)
            return
        self._given_up[evaluator] = now
        self._say(f"evaluator {evaluator} is given up; the others do its work")
        if not (self._flying or self._starting or self._idle):
            raise PoolError(f"no evaluator can be started; the last: {reason(error)}")

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
        self._look(work)

    def _dispatch(self) -> None:
        now = time.monotonic()
        while self._idle and self._queue:
            evaluator = next(iter(self._idle))
            self._spent(**self._clock.split(self._idle.pop(evaluator), now))
            work, positions = self._queue.popleft()
            cohort = [work.cohort[p] for p in positions]
            ref = self._actors[evaluator].evaluate.remote(cohort, work.rung)
            self._flying[ref] = _Flight(
                evaluator=evaluator, work=work, positions=positions, since=now
            )

    def _limit(self, ref: Any) -> float:
        """Seconds that an evaluator has to answer."""
        if ref in self._starting:
            return STARTS_WITHIN
        return max(self._timeout, 10 * self._longest.get(self._flying[ref].work.rung, 0.0))

    def _deadline(self, ref: Any) -> float:
        flight = self._flying.get(ref)
        return (flight.since if flight else self._starting[ref][1]) + self._limit(ref)


def start_evaluator(
    index: int, config: StudyConfig, cache: Any, base: Any, code: Mapping[str, str]
) -> Any:
    """Start evaluator number `index` in its bundle of the trial's placement group.

    Args:
        index: From 0.
        config: The study.
        cache: A reference to the features in the object store.
        base: One to the `Foundation`; None where no rung needs it.
        code: What the search runs, as `facts` says it.
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
        .remote(cache, config, base, code)
    )
