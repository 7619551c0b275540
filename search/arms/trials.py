"""Arms as Ray Tune trials, each with a placement group for its evaluators (`pool.py`)."""

import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.schedulers import ASHAScheduler

from partitioning import Masks
from search.arms.clock import Clock
from search.arms.cluster import count_places, count_solvers, share_out
from search.arms.display import ArmState, Display
from search.arms.loop import Arm, Budget
from search.arms.masks import in_parallel
from search.arms.nodes import facts, require_same
from search.arms.pool import ActorPool, start_evaluator
from search.arms.reasons import reason
from search.arms.scoring import Pool
from search.arms.simulated_pool import SimulatedPool
from search.candidates import (
    REFERENCE,
    Candidate,
    Utilisation,
    coordinates,
    hypervolume,
    scored,
    shares,
)
from search.config import StudyConfig
from search.record import RecordError
from search.strategies import TaskKnowledge
from search.study import Supplies, baseline_names, baselines, build_space, build_strategy
from trainers.export import LatencyTable

#: Seconds between two results that an arm reports to Tune.
REPORT_EVERY = 0.5
#: Seconds between two times that what evaluators did with their time is kept.
KEEP_EVERY = 300.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What the arms of a seed are handed: references to what is large, in the object store.

    Attributes:
        knowledge: What strategies may know of the tasks.
        cache: To the features; to None where scores are simulated.
        base: To tasks, trunk and teachers; None where no rung trains on them.
        latency: Of the network's layers, where it is the study's cost.
    """

    knowledge: TaskKnowledge
    cache: Any
    base: Any
    latency: LatencyTable | None


def run_arm(
    settings: Mapping[str, Any],
    *,
    config: StudyConfig,
    supplies: Mapping[int, Given],
    writer: Any,
    evaluators: Mapping[str, int],
    solvers: int,
    code: Mapping[str, str],
) -> None:
    """A Tune trial: one strategy with one seed over the evaluators of its placement group."""
    require_same(code)
    name, seed = _strategy_and_seed(settings["arm"])
    given, config = supplies[seed], config.of_seed(seed)
    space, clock = build_space(config), Clock()
    vectors = baselines(config, space, seed)
    strategy = build_strategy(config, name, seed, space, vectors, given.knowledge)
    labels = baseline_names(config, name, vectors)
    ladder = config.ladder
    if labels:  # what others are compared with is scored to the end, whatever it is
        ladder = tuple(replace(rung, keep=1.0) for rung in ladder)
    schedule = config.schedule
    report = _Report(config, budget=min(config.candidates, len(labels) or config.candidates))
    pool: Pool
    if config.evaluator == "simulated":
        pool = SimulatedPool(config)
    else:
        pool = ActorPool(
            lambda index: start_evaluator(index, config, given.cache, given.base, code),
            evaluators=evaluators[settings["arm"]],
            attempts=schedule.attempts,
            timeout=schedule.timeout,
            clock=clock,
            say=report.note,
        )

    def written(answer: Any) -> None:
        with clock.doing("record"):
            ray.get(answer)

    latency: Callable[[Masks], float] | None = None
    if given.latency is not None:
        latency = functools.partial(given.latency.relative, config.network)
    arm = Arm(
        name=name,
        seed=seed,
        strategy=strategy,
        space=space,
        pool=pool,
        budget=Budget(
            candidates=config.candidates,
            cohort=schedule.cohort or 1,
            bracket=config.bracket,
            seconds=config.device_seconds or math.inf,
        ),
        ladder=ladder,
        cost=config.objective.cost,
        latency=latency,
        record=lambda candidate: written(writer.add.remote(candidate)),
        keep=lambda candidate: written(writer.keep.remote(candidate)),
        labels=labels,
        realisable=getattr(config.strategies[name].settings, "realisable", False),
        mapped=in_parallel(solvers, code) if solvers else map,
        clock=clock,
    )
    report.watch(pool.utilisation, functools.partial(writer.use.remote, name, seed, time.time()))
    known, begun = ray.get([writer.known.remote(name, seed), writer.begun.remote(name, seed)])
    report.known = len(known)
    report.send()  # of how many candidates it is, before the first is scored
    try:
        arm.run(known, report.told, begun)
    except RayTaskError as error:
        if not isinstance(error.cause, RecordError):
            raise
        # To try again would end in the same way; the writer keeps the reason for the driver.
        return
    finally:
        report.keep()
    report.send()


class _Report:
    """Tells Tune how far an arm is; `known` are the candidates that were in the record before."""

    def __init__(self, config: StudyConfig, *, budget: int) -> None:
        self._reference = config.objective.reference or REFERENCE
        self._budget = budget
        self._halvings = config.halvings
        self._told: list[Candidate] = []
        self.known = 0
        self._last = 0.0
        self._notes = 0
        self._note = ""
        self._utilisation: Callable[[], Utilisation] = dict
        self._keep: Callable[[Utilisation], Any] = lambda used: None
        self._kept = time.monotonic()

    def watch(
        self, utilisation: Callable[[], Utilisation], keep: Callable[[Utilisation], Any]
    ) -> None:
        """Tell of evaluators' time, too, and have it kept now and then."""
        self._utilisation, self._keep = utilisation, keep

    def keep(self) -> None:
        """Have what evaluators did with their time kept, where they scored anything."""
        used = self._utilisation()
        if "busy" in used:
            with suppress(RayError):  # no candidate is lost with it
                ray.get(self._keep(used))
        self._kept = time.monotonic()

    def note(self, line: str) -> None:
        """Have the driver say a line."""
        self._notes += 1
        self._note = line
        self.send()

    def told(self, candidate: Candidate) -> None:
        self._told.append(candidate)
        # Arms are held against each other after exactly as many candidates, however fast they are.
        halved = len(self._told) in self._halvings  # after which Tune may end it
        if halved or time.monotonic() - self._kept >= KEEP_EVERY:
            self.keep()
        if halved or time.monotonic() - self._last >= REPORT_EVERY:
            self.send()

    def send(self) -> None:
        cost_N, quality_N = coordinates(scored(self._told)).T
        used = self._utilisation()
        tune.report(
            {
                "candidates": len(self._told),
                "known": self.known,
                "budget": self._budget,
                "failed": sum(c.failed for c in self._told),
                "stopped": sum(c.stopped for c in self._told),
                "best": max(quality_N, default=float("nan")),
                "hypervolume": hypervolume(quality_N, cost_N, self._reference),
                "busy": shares(used).get("busy", math.nan),
                "held": sum(used.values()),
                "notes": self._notes,
                "note": self._note,
            }
        )
        self._last = time.monotonic()


class _Reporter(tune.CLIReporter):  # type: ignore[misc]  # Ray has no types
    """Shows Tune's trials as they go, in place of Tune's own table."""

    def __init__(self, display: Display, budget: int) -> None:
        super().__init__(max_report_frequency=1)
        self._display, self._budget = display, budget
        self._told: dict[str, int] = {}
        self._said: dict[str, tuple[int, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its run config for its own restore, which studies do not use; a terminal
        # cannot be pickled.
        return {key: value for key, value in vars(self).items() if key != "_display"}

    def report(self, trials: list[Any], done: bool, *sys_info: Any) -> None:
        self._display.show([self._state(trial) for trial in trials], done=done)
        for trial in trials:
            self._say_note(str(trial), trial.last_result or {})

    def _say_note(self, name: str, result: Mapping[str, Any]) -> None:
        note = result.get("notes", 0), result.get("note", "")
        if note[0] and note != self._said.get(name):
            self._said[name] = note
            self._display.say(f"{name}: {note[1]}")

    def _state(self, trial: Any) -> ArmState:
        result = trial.last_result or {}
        # An arm that is started again replays its record: its count must not run backwards.
        told = max(result.get("candidates", 0), self._told.get(str(trial), 0))
        self._told[str(trial)] = told
        return ArmState(
            name=str(trial),
            status=trial.status,
            candidates=told,
            known=min(told, result.get("known", 0)),
            budget=result.get("budget", self._budget),
            failed=result.get("failed", 0),
            stopped=result.get("stopped", 0),
            best=result.get("best", math.nan),
        )


def run_arms(
    config: StudyConfig,
    supplies: Mapping[int, Supplies],
    writer: Any,
    display: Display,
) -> list[str]:
    """Run every strategy with every seed as a Tune trial.

    Args:
        config: The study.
        supplies: What the arms of every seed are given.
        writer: The study's writer actor.
        display: Shows progress.

    Returns:
        A line for each arm that could not be brought to its end, the best known reason first; none
        where all could.
    """
    schedule = config.schedule
    given = _handed(supplies, trains=config.ladder[-1].fidelity == "full")
    # Seed by seed, so that what is recorded of a search that was stopped can be compared.
    arms = [f"{name}-{seed}" for seed, name in product(config.seeds, config.strategies)]
    evaluators = _evaluators(config, arms, display)
    trainable = tune.with_parameters(
        run_arm,
        config=config,
        supplies=given,
        writer=writer,
        evaluators=evaluators,
        solvers=count_solvers(schedule, evaluators),
        code=facts(),
    )

    def resources(settings: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        bundle = {"CPU": schedule.cpus} | ({"GPU": schedule.gpus} if schedule.gpus else {})
        bundles = [dict(bundle) for _ in range(evaluators[settings["arm"]])]
        return tune.PlacementGroupFactory([{}, *bundles])

    # A study does not use Tune's files, and should not fail for want of room for them.
    with tempfile.TemporaryDirectory(prefix="apportion-tune-", ignore_cleanup_errors=True) as aside:
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"arm": tune.grid_search(arms)},
            tune_config=tune.TuneConfig(
                metric="hypervolume",
                mode="max",
                trial_dirname_creator=_arm_name,
                trial_name_creator=_arm_name,
                # A simulated arm takes less time than the start of a process.
                reuse_actors=config.evaluator == "simulated",
                scheduler=_halving(config),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=aside,
                failure_config=tune.FailureConfig(max_failures=schedule.arm_retries),
                progress_reporter=_Reporter(display, config.candidates),
                verbose=1,
            ),
        )
        try:
            results = tuner.fit()
            _keep_ended(results, evaluators, count_places(schedule), writer)
            errors = [result.error for result in results if result.error is not None]
        except Exception as error:  # Tune's own, such as one of reading what a full disk cut short
            errors = [error]
    trouble = ray.get(writer.trouble.remote())
    return [*([trouble] if trouble else []), *map(reason, errors)]


def _keep_ended(
    results: Iterable[Any], evaluators: Mapping[str, int], places: int, writer: Any
) -> None:
    """Have kept how long places were empty after arms had ended, whose none was left to take.

    Args:
        results: Tune's.
        evaluators: By arm.
        places: For evaluators, at once.
        writer: The study's.
    """
    now = time.time()
    last = {result.config["arm"]: result.metrics or {} for result in results}
    last = {arm: said for arm, said in last.items() if said.get("busy", math.nan) >= 0}
    after = {arm: (now - said["timestamp"]) * evaluators[arm] for arm, said in last.items()}
    if not sum(after.values()):
        return
    begun = min(said["timestamp"] - said["time_total_s"] for said in last.values())
    held = sum(said["held"] for said in last.values())
    empty = min(places, sum(evaluators.values())) * (now - begun) - held
    share = min(1.0, max(0.0, empty / sum(after.values())))
    for arm, seconds in after.items():
        used = {"ended": seconds * share}
        ray.get(writer.use.remote(*_strategy_and_seed(arm), now, used))


def _evaluators(config: StudyConfig, arms: Sequence[str], display: Display) -> dict[str, int]:
    """Evaluators by arm; says where devices stay empty."""
    if config.evaluator == "simulated":  # which arms score themselves
        return dict.fromkeys(arms, 1)
    places = count_places(config.schedule)
    if config.schedule.evaluators is None:
        return share_out(places, arms)
    found = dict.fromkeys(arms, config.schedule.evaluators)
    if (used := sum(found.values())) < places:
        display.say(
            f"warning: {places - used} of {places} places for evaluators stay empty: "
            f"{len(arms)} arms have {config.schedule.evaluators} each; leave schedule.evaluators "
            "out, and they are shared out"
        )
    return found


def _handed(supplies: Mapping[int, Supplies], *, trains: bool) -> dict[int, Given]:
    """Supplies put into the object store, once where seeds share them; bases where rungs train."""
    once = {
        each: Given(
            knowledge=each.knowledge,
            cache=ray.put(each.cache),
            base=ray.put(each.base) if trains else None,
            latency=each.latency,
        )
        for each in set(supplies.values())
    }
    return {seed: once[each] for seed, each in supplies.items()}


def _halving(config: StudyConfig) -> ASHAScheduler | None:
    """Stops arms that are among the worse half (asynchronous halving, Li et al. 2020, algorithm 2).

    An arm is held against those that came as far before it, so the first to come goes on.
    """
    if not config.halvings:
        return None
    return ASHAScheduler(
        time_attr="candidates",
        grace_period=config.halvings[0],
        max_t=config.candidates,
        reduction_factor=2,
    )


def _strategy_and_seed(arm: str) -> tuple[str, int]:
    """Of an arm named `<strategy>-<seed>`."""
    name, _, seed = arm.rpartition("-")
    return name, int(seed)


def _arm_name(trial: Any) -> str:
    return str(trial.config["arm"])
