"""The Ray cluster: what it has to give, and jobs and actors that run on it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.arms.connection import connect
from search.arms.reasons import cause, reason
from search.candidates import Candidate
from search.config import ScheduleConfig, StudyConfig
from search.record import Writer
from search.study import Jobs, Run
from trainers.device import DeviceError, resolve_device

#: Seconds that MLflow has where a search is stopped.
ENDS_WITHIN = 5.0
#: Candidates that an evaluator on a GPU is handed at once, unless the config says.
GPU_COHORT = 64
#: Masks that an arm solves for at once, at most.
MOST_SOLVERS = 16


class WriterLostError(RuntimeError):
    """The writer ended before it was asked to."""


class JobError(RuntimeError):
    """A job of the cluster ended without a result; the message says why."""


def resolve_schedule(config: StudyConfig) -> StudyConfig:
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
    least = schedule.evaluators or 1
    if schedule.cpus * least > cpus and not schedule.wait_for_nodes:
        raise DeviceError(
            f"every arm needs {schedule.cpus * least:g} CPUs (schedule.evaluators x "
            f"schedule.cpus), but the cluster has {cpus:g}; lower one of them"
        )
    wants = config.compute.device.startswith("cuda")
    if schedule.gpus is None:
        use = 1.0 if (have and config.compute.device != "cpu") or wants else 0.0
        schedule = replace(schedule, gpus=use)
    if wants and not schedule.gpus:
        raise DeviceError("compute.device cuda needs schedule.gpus above 0, got 0")
    need = (schedule.gpus or 0.0) * least
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


def count_places(schedule: ScheduleConfig) -> int:
    """How many evaluators the nodes that are there have room for, all at once."""
    found = 0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        room = has.get("CPU", 0.0) / schedule.cpus
        if gpus := schedule.gpus:
            # A part of a GPU is never put together from several.
            each = int(1 / gpus) if gpus <= 1 else 1 / gpus
            room = min(room, has.get("GPU", 0.0) * each)
        found += int(room)
    return found


def share_out(places: int, arms: Sequence[str]) -> dict[str, int]:
    """How many evaluators each arm gets, at least one; the first arms get what is over.

    Example:
        >>> share_out(5, ["es-0", "es-1", "random-0"])
        {'es-0': 2, 'es-1': 2, 'random-0': 1}
    """
    each, over = divmod(max(places, len(arms)), len(arms))
    return {arm: each + (number < over) for number, arm in enumerate(arms)}


def count_solvers(schedule: ScheduleConfig, evaluators: Mapping[str, int]) -> int:
    """How many masks each arm may solve for at once on CPUs that no evaluator takes.

    Args:
        schedule: Of the study.
        evaluators: By arm.
    """
    free = ray.cluster_resources().get("CPU", 0.0) - schedule.cpus * sum(evaluators.values())
    return min(MOST_SOLVERS, int(max(0.0, free) / len(evaluators)))


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
        broken: JobError | None = None
        while refs:
            (ready,), _ = ray.wait(list(refs), num_returns=1)
            key = refs.pop(ready)
            try:
                result = _get(ready)
            except JobError as error:  # the others end first
                broken = broken or JobError(f"{key}: {error}")
                continue
            yield key, result
        if broken is not None:
            raise broken

    return run


def cluster_run(config: StudyConfig) -> Run:
    """Starts Ray with the first job, so that what is trained already needs no cluster."""

    def run(function: Callable[..., Any], jobs: Jobs) -> Iterator[tuple[str, Any]]:
        if jobs:
            connect()
            schedule = resolve_schedule(config).schedule
            yield from cluster_jobs(schedule)(function, jobs)

    return run


def _get(ref: Any) -> Any:
    """A remote result; what was raised there is raised here as itself."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise cause(error) from None
    except RayError as error:
        raise JobError(reason(error)) from error


def _with_threads(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    arguments = {k: ray.get(v) if isinstance(v, ray.ObjectRef) else v for k, v in arguments.items()}
    compute = arguments["compute"]
    if compute.threads:
        torch.set_num_threads(compute.threads)
    return function(**arguments)


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


def begin_arms(writer: Any, arms: Iterable[tuple[str, int]], scored_on: Mapping[str, str]) -> None:
    """Keep what the scores of arms, by strategy and seed, depend on, before they are run.

    Raises:
        RecordError: It could not be written.
    """
    _get(writer.begin.remote(list(arms), dict(scored_on)))


def record(writer: Any, candidates: Iterable[Candidate]) -> None:
    """Make candidates durable that no arm has scored; those that are there already stay.

    Raises:
        RecordError: They could not be written.
    """
    for candidate in candidates:
        _get(writer.add.remote(candidate))


def close_writer(
    writer: Any, finish: Callable[[Any, list[Candidate]], None], *, at_once: bool = False
) -> str | None:
    """Finish the mirror and close the record.

    Args:
        writer: The actor.
        finish: Ends the runs in MLflow.
        at_once: Leave what the mirror has not shown yet to a search that goes on.

    Returns:
        The mirror's last error, or None.

    Raises:
        WriterLostError: The writer is gone; what it had recorded is in the record.
    """
    try:
        closed = writer.close.remote(finish, at_once)
        failure: str | None = ray.get(closed, timeout=ENDS_WITHIN if at_once else None)
    except GetTimeoutError:
        failure = f"it did not answer within {ENDS_WITHIN:g} seconds"
    except (RayError, ConnectionError) as error:  # whatever ended us may have ended it, too
        raise WriterLostError(reason(error)) from error
    ray.kill(writer)
    return failure
