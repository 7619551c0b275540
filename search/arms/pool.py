"""Evaluators as Ray actors, and the pool that hands them cohorts and outlives their deaths."""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError
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


@dataclass(kw_only=True)
class _Work:
    """A cohort on its way: positions not scored yet, and how often each was tried."""

    ticket: int
    cohort: Sequence[Masks]
    rung: Rung
    results: list[Scored | None]
    attempts: list[int]


class ActorPool:
    """Hands cohorts to evaluator actors; replaces actors that die and asks their cohort again.

    Args:
        make: Starts evaluator number i.
        evaluators: How many.
        attempts: Tries of a candidate before it is given up as failed.
    """

    def __init__(self, make: Callable[[int], Any], *, evaluators: int, attempts: int) -> None:
        self._make = make
        self._attempts = attempts
        self._actors = [make(i) for i in range(evaluators)]
        self._idle = deque(range(evaluators))
        self._flying: dict[Any, tuple[int, _Work, list[int]]] = {}
        self._queue: deque[tuple[_Work, list[int]]] = deque()
        # As many again wait, so that no evaluator is idle while an older cohort is still out.
        self.slots = 2 * evaluators

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        """Start scoring a cohort as soon as an evaluator is free."""
        size = len(cohort)
        work = _Work(
            ticket=ticket, cohort=cohort, rung=rung, results=[None] * size, attempts=[0] * size
        )
        self._queue.append((work, list(range(size))))
        self._dispatch()

    def wait(self) -> tuple[int, list[Scored]]:
        """Block until a cohort is scored; its ticket and its results in order."""
        while True:
            ready, _ = ray.wait(list(self._flying), num_returns=1)
            evaluator, work, positions = self._flying.pop(ready[0])
            try:
                results = ray.get(ready[0])
            except RayError as error:
                self._failed(evaluator, work, positions, error)
            else:
                for position, scored in zip(positions, results, strict=True):
                    work.results[position] = scored
            self._idle.append(evaluator)
            self._dispatch()
            if all(scored is not None for scored in work.results):
                return work.ticket, [scored for scored in work.results if scored is not None]

    def _dispatch(self) -> None:
        while self._idle and self._queue:
            evaluator, (work, positions) = self._idle.popleft(), self._queue.popleft()
            cohort = [work.cohort[p] for p in positions]
            ref = self._actors[evaluator].evaluate.remote(cohort, work.rung)
            self._flying[ref] = (evaluator, work, positions)

    def _failed(self, evaluator: int, work: _Work, positions: list[int], error: RayError) -> None:
        if isinstance(error, ActorUnavailableError):
            # The network's fault, not the candidates'; if it is gone for good Ray says so soon.
            time.sleep(1.0)
            self._queue.appendleft((work, positions))
            return
        if not isinstance(error, RayTaskError):
            ray.kill(self._actors[evaluator])
            self._actors[evaluator] = self._make(evaluator)
        for position in positions:
            work.attempts[position] += 1
            if work.attempts[position] >= self._attempts:
                work.results[position] = Scored(
                    error=f"failed {self._attempts} times; last: {reason(error)}"
                )
            else:
                # Alone, so that one bad candidate does not take its cohort with it.
                self._queue.appendleft((work, [position]))


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
