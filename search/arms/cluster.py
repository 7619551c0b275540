"""The Ray cluster: which one is joined, what it has to give, and jobs and actors that run on it."""

import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.candidates import Candidate
from search.config import ScheduleConfig, StudyConfig
from search.record import Writer
from search.study import Jobs, Run
from trainers.device import DeviceError, resolve_device

#: Seconds that a cluster's head has to take a connection.
ANSWERS_WITHIN = 3.0
#: What every worker process calls first, lest the user's own files pass for our packages there. A
#: worker imports it by this name, as our packages may not be found before.
WORKERS_FIRST = "apportion.precedence.take_precedence"
#: Candidates that an evaluator on a GPU is handed at once, unless the config says.
GPU_COHORT = 64


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names or that `ray start` left here, else start one.

    Ray itself waits minutes for a cluster that is gone, and a machine that crashed leaves its
    address behind: who does not answer is found out first.

    Raises:
        DeviceError: Nothing answers at RAY_ADDRESS; or Ray was started before in this process,
            and its workers would take the user's own files for our packages.
    """
    if ray.is_initialized():
        _refuse_shadowed_workers()
        return
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "error",
        "include_dashboard": False,
        "runtime_env": {"worker_process_setup_hook": WORKERS_FIRST},
    }
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
            options["address"] = "local"
    ray.init(**options)


def _refuse_shadowed_workers() -> None:
    """Workers of a Ray that was not started by `connect` look into the user's folders first."""
    environment = ray.get_runtime_context().runtime_env
    if environment.get("worker_process_setup_hook") == WORKERS_FIRST:
        return
    script = Path(sys.argv[0]).resolve().parent
    for folder in {Path.cwd(), *([script] if str(script) in sys.path else [])}:
        for name in ("partitioning", "trainers", "search"):
            spec = PathFinder.find_spec(name, [str(folder)])
            if spec is not None and spec.origin not in (None, sys.modules[name].__file__):
                raise DeviceError(
                    f"Ray was started before Apportion, and its workers would import {name} from "
                    f"{folder} and not Apportion's own: let Apportion start or join Ray, or call "
                    f"ray.init(runtime_env={{'worker_process_setup_hook': '{WORKERS_FIRST}'}})"
                )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN):
            return True
    except (OSError, ValueError, OverflowError):
        return False


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
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


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


def close_writer(writer: Any, finish: Callable[[Any, list[Candidate]], None]) -> str | None:
    """Finish the mirror and close the record; the mirror's first error, or None."""
    failure: str | None = ray.get(writer.close.remote(finish))
    ray.kill(writer)
    return failure
