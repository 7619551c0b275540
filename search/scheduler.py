"""Ray Tune: arms as trials, each with a placement group for its evaluators (search/pool.py)."""

import math
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

# Tune's older output takes a reporter of our own; its newer one prints a fixed table.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Tune would take Ctrl-C for the end of the search and return as if the arms were done.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
import torch
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import ASHAScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.arm import Arm, Budget, Pool
from search.candidate import Candidate
from search.config import StudyConfig
from search.config_sections import ScheduleConfig
from search.display import ArmState, Display
from search.pareto import hypervolume
from search.pool import ActorPool, start_evaluator
from search.prepare import Foundation, Jobs, Run
from search.progress import coordinates, scored
from search.simulated.evaluator import SimulatedPool
from search.strategies.protocol import TaskKnowledge
from search.study import baselines, build_space, build_strategy, fixed_names
from search.writer import Writer
from trainers.device import DeviceError, resolve_device
from trainers.features import FeatureCache

#: Seconds that a cluster's head has to take a connection.
ANSWERS_WITHIN = 3.0
#: Candidates that an evaluator on a GPU is handed at once, unless the config says.
GPU_COHORT = 64

#: Seconds between two results that an arm reports to Tune.
REPORT_EVERY = 0.5


def run_arm(
    settings: Mapping[str, Any],
    *,
    config: StudyConfig,
    knowledge: TaskKnowledge,
    writer: Any,
    supplies: list[Any],
) -> None:
    """A Tune trial: one strategy with one seed over the evaluators of its placement group."""
    name, _, number = settings["arm"].rpartition("-")
    seed = int(number)
    space = build_space(config)
    fixed = baselines(config, space, seed)
    strategy = build_strategy(config, name, seed, space, fixed, knowledge)
    labels = fixed_names(config, name, fixed)
    ladder = config.ladder
    if labels:  # what others are compared with is scored to the end, whatever it is
        ladder = tuple(replace(rung, keep=1.0) for rung in ladder)
    schedule = config.schedule
    pool: Pool
    if config.evaluator == "simulated":
        pool = SimulatedPool(config)
    else:
        pool = ActorPool(
            lambda index: start_evaluator(index, config, *supplies),
            evaluators=schedule.evaluators,
            attempts=schedule.attempts,
        )
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
        record=lambda candidate: ray.get(writer.add.remote(candidate)),
        keep=lambda candidate: ray.get(writer.keep.remote(candidate)),
        labels=labels,
        realisable=getattr(config.strategies[name].settings, "realisable", False),
    )
    report = _Report(config, budget=min(config.candidates, len(labels) or config.candidates))
    known, begun = ray.get([writer.known.remote(name, seed), writer.begun.remote(name, seed)])
    arm.run(known, report.told, begun)
    report.send()


class _Report:
    """Tells Tune how far an arm is."""

    def __init__(self, config: StudyConfig, *, budget: int) -> None:
        self._reference = config.objective.reference
        self._budget = budget
        self._halvings = config.halvings
        self._told: list[Candidate] = []
        self._last = 0.0

    def told(self, candidate: Candidate) -> None:
        self._told.append(candidate)
        # Arms are held against each other after exactly as many candidates, however fast they are.
        if len(self._told) in self._halvings or time.monotonic() - self._last >= REPORT_EVERY:
            self.send()

    def send(self) -> None:
        cost_N, quality_N = coordinates(scored(self._told)).T
        tune.report(
            {
                "candidates": len(self._told),
                "budget": self._budget,
                "failed": sum(c.failed for c in self._told),
                "stopped": sum(c.stopped for c in self._told),
                "best": max(quality_N, default=float("nan")),
                "hypervolume": hypervolume(quality_N, cost_N, self._reference),
            }
        )
        self._last = time.monotonic()


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names or that `ray start` left here, else start one.

    Ray itself waits minutes for a cluster that is gone, and a machine that crashed leaves its
    address behind: who does not answer is found out first.

    Raises:
        DeviceError: Nothing answers at RAY_ADDRESS.
    """
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    named = os.environ.get("RAY_ADDRESS", "")
    if named not in ("", "auto", "local") and "://" not in named and not _answers(named):
        raise DeviceError(
            f"RAY_ADDRESS is {named}, but nothing answers there: start that cluster, name "
            "another as host:port, or unset RAY_ADDRESS to search on this machine alone"
        )
    places = ["RAY_TMPDIR", *(["TMPDIR"] if sys.platform == "linux" else [])]
    folder = next((os.environ[name] for name in places if name in os.environ), "/tmp")
    last = Path(folder, "ray", "ray_current_cluster")
    if not named and last.exists():
        address = last.read_text().strip()
        if not _answers(address):
            print(
                f"the Ray cluster last started here ({address}) does not answer: starting one on "
                "this machine (`ray stop` makes Ray forget the old one)",
                file=sys.stderr,
            )
            quiet["address"] = "local"
    ray.init(**quiet, include_dashboard=False)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def settled(config: StudyConfig) -> StudyConfig:
    """The config with `schedule.gpus` settled on what the cluster has.

    Raises:
        DeviceError: An arm needs more CPUs or GPUs than the cluster has, or a device that Ray
            cannot hand out.
    """
    have = ray.cluster_resources().get("GPU", 0.0)
    cpus = ray.cluster_resources().get("CPU", 0.0)
    schedule = config.schedule
    if config.compute.device.startswith("cuda:"):
        raise DeviceError(
            f"compute.device {config.compute.device!r}: Ray chooses which GPU an evaluator gets; "
            "use cuda, and CUDA_VISIBLE_DEVICES to keep some out"
        )
    if config.compute.device == "mps":
        resolve_device("mps")
    if schedule.cpus * schedule.evaluators > cpus and not schedule.wait_for_nodes:
        raise DeviceError(
            f"every arm needs {schedule.cpus * schedule.evaluators:g} CPUs (schedule.evaluators x "
            f"schedule.cpus), but the cluster has {cpus:g}; lower one of them"
        )
    wants = config.compute.device.startswith("cuda")
    if schedule.gpus is None:
        use = 1.0 if (have and config.compute.device != "cpu") or wants else 0.0
        schedule = replace(schedule, gpus=use)
    if wants and not schedule.gpus:
        raise DeviceError("compute.device cuda needs schedule.gpus above 0, got 0")
    need = (schedule.gpus or 0.0) * schedule.evaluators
    if need > have and not schedule.wait_for_nodes:
        raise DeviceError(
            f"every arm needs {need:g} GPUs (schedule.evaluators x schedule.gpus, compute.device "
            f"{config.compute.device}), but the cluster has {have:g}; use --set compute.device=cpu "
            "--set schedule.gpus=0, or set schedule.wait_for_nodes where an autoscaler adds them"
        )
    if schedule.cohort is None:
        batch = schedule.gpus or config.evaluator == "simulated"
        schedule = replace(schedule, cohort=GPU_COHORT if batch else 1)
    return replace(config, schedule=schedule)


def cluster_jobs(schedule: ScheduleConfig) -> Run:
    """Run jobs as Ray tasks, as many at once as the cluster has room for."""

    def run(function: Callable[..., Any], jobs: Jobs) -> Iterator[tuple[str, Any]]:
        remote = ray.remote(_with_threads).options(
            num_cpus=schedule.cpus, num_gpus=schedule.gpus or 0, max_retries=3
        )
        given = [value for arguments in jobs.values() for value in arguments.values()]
        times = Counter(map(id, given))
        # What several jobs are given lies in the object store once, not once for each.
        shared = {id(v): ray.put(v) for v in {id(v): v for v in given if times[id(v)] > 1}.values()}
        refs = {
            remote.remote(function, {k: shared.get(id(v), v) for k, v in arguments.items()}): key
            for key, arguments in jobs.items()
        }
        while refs:
            (ready,), _ = ray.wait(list(refs), num_returns=1)
            yield refs.pop(ready), _get(ready)

    return run


def _get(ref: Any) -> Any:
    """A remote result; what was raised there is raised here as itself."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


def _with_threads(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    arguments = {k: ray.get(v) if isinstance(v, ray.ObjectRef) else v for k, v in arguments.items()}
    compute = arguments["compute"]
    if compute.threads:
        torch.set_num_threads(compute.threads)
    return function(**arguments)


class _Reporter(tune.CLIReporter):  # type: ignore[misc]  # Ray has no types
    """Shows Tune's trials as they go, and Tune's own table at the end."""

    def __init__(self, display: Display, budget: int) -> None:
        super().__init__(
            metric_columns=["candidates", "failed", "stopped", "best", "hypervolume"],
            parameter_columns=["arm"],
            max_report_frequency=1,
        )
        self._display, self._budget = display, budget
        self._told: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its run config for its own restore, which studies do not use; a terminal
        # cannot be pickled.
        return {key: value for key, value in vars(self).items() if key != "_display"}

    def report(self, trials: list[Any], done: bool, *sys_info: Any) -> None:
        self._display.show([self._state(trial) for trial in trials], done=done)
        if done:
            lines = self._progress_str(trials, done).splitlines()
            self._display.say("\n".join(line for line in lines if line[:1] in ("+", "|")))

    def _state(self, trial: Any) -> ArmState:
        result = trial.last_result or {}
        # An arm that is started again replays its record: its count must not run backwards.
        told = max(result.get("candidates", 0), self._told.get(str(trial), 0))
        self._told[str(trial)] = told
        return ArmState(
            name=str(trial),
            status=trial.status,
            candidates=told,
            budget=result.get("budget", self._budget),
            failed=result.get("failed", 0),
            stopped=result.get("stopped", 0),
            best=result.get("best", float("nan")),
            hypervolume=result.get("hypervolume", 0.0),
        )


def start_writer(
    path: Path, study: str, make_tracker: Callable[[], Any] | None, config: dict[str, Any]
) -> Any:
    """The study's writer as an actor beside the driver.

    Raises:
        RecordError: Another process writes this record, or its folder cannot be written.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    writer = (
        ray.remote(Writer)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        .remote(path, study, make_tracker, config)
    )
    _get(writer.ready.remote())
    return writer


def close_writer(writer: Any, finish: Callable[[Any, list[Candidate]], None]) -> str | None:
    """Finish the mirror and close the record; the mirror's first error, or None."""
    failure: str | None = ray.get(writer.close.remote(finish))
    ray.kill(writer)
    return failure


def run_arms(
    config: StudyConfig,
    cache: FeatureCache | None,
    base: Foundation | None,
    knowledge: TaskKnowledge,
    writer: Any,
    display: Display,
    storage: Path,
) -> list[str]:
    """Run every strategy with every seed as a Tune trial.

    Args:
        config: The study.
        cache: Features, handed to evaluators through the object store; None where scores are
            simulated.
        base: Tasks, trunk and teachers; handed to them, too, where the last rung trains on them.
        knowledge: What strategies may know of the tasks.
        writer: The study's writer actor.
        display: Shows progress.
        storage: Folder of Tune's own files.

    Returns:
        One text per arm that could not be brought to its end.
    """
    schedule = config.schedule
    bundle = {"CPU": schedule.cpus} | ({"GPU": schedule.gpus} if schedule.gpus else {})
    resources = tune.PlacementGroupFactory([{}] + [dict(bundle)] * schedule.evaluators)
    trains = config.ladder[-1].fidelity == "full"
    supplies = [ray.put(cache), ray.put(base) if trains else None]
    trainable = tune.with_parameters(
        run_arm, config=config, knowledge=knowledge, writer=writer, supplies=supplies
    )
    # Seed by seed, so that what is recorded of a search that was stopped can be compared.
    arms = [f"{name}-{seed}" for seed, name in product(config.seeds, config.strategies)]
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
            storage_path=str(storage),
            failure_config=tune.FailureConfig(max_failures=schedule.arm_retries),
            progress_reporter=_Reporter(display, config.candidates),
            verbose=1,
        ),
    )
    results = tuner.fit()
    errors = [result.error for result in results if result.error is not None]
    return [(str(error).strip().splitlines() or [repr(error)])[-1] for error in errors]


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


def _arm_name(trial: Any) -> str:
    return str(trial.config["arm"])
