"""`apportion doctor`: what works on this machine and what does not."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from search.candidates import Candidate
from search.config import PROJECT

#: What the product stands on; versions are compared with those that the tests ran with.
PACKAGES = (
    "torch", "ray", "optuna", "pulp", "highspy", "mlflow", "numpy", "pandas", "datasets",
    "pyarrow", "safetensors", "moocore",
)  # fmt: skip


class AbsentError(RuntimeError):
    """Something optional is not there; worth saying, not an error."""


def examine(console: Console) -> bool:
    """Try every part that a study needs, and print what works.

    Args:
        console: Where to.

    Returns:
        Whether everything needed works; what is optional may be absent.
    """
    healthy = True
    for name, test in CHECKS.items():
        started = time.perf_counter()
        try:
            answer = escape(test())
            mark = "[green]ok[/]  "
        except AbsentError as reason:
            answer, mark = escape(str(reason)), "[yellow]none[/]"
        except Exception as error:  # whatever is broken is what this command is there to say
            answer, mark = escape(f"{type(error).__name__}: {error}"), "[red]bad[/] "
            healthy = False
        seconds = time.perf_counter() - started
        console.print(f"{mark} {name:9} {answer} [dim]({seconds:.1f} s)[/]", highlight=False)
    console.print("everything needed works" if healthy else "something needed does not work")
    return healthy


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> str:
    pinned = _pinned()
    parts = []
    for name in PACKAGES:
        version = importlib.metadata.version(name)
        wanted = pinned.get(name)
        differs = wanted is not None and version.partition("+")[0] != wanted
        parts.append(f"{name} {version}" + (f" (tested with {wanted})" if differs else ""))
    return ", ".join(parts)


def _pinned() -> dict[str, str]:
    file = PROJECT / "constraints.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    return dict(
        line.strip().split("==", 1) for line in lines if "==" in line and not line.startswith("#")
    )


def _cpu() -> str:
    import torch

    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {size:.0f} GiB of memory, torch uses {torch.get_num_threads()}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise AbsentError("torch sees no CUDA device here; studies run on the CPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    value = float((torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda"))[0, 0])
    if value != 64.0:
        raise RuntimeError(f"{names[0]} multiplies wrongly: {value} instead of 64")
    return ", ".join(names)


def _solver() -> str:
    from partitioning import realised, refine, solve

    raw = np.random.default_rng(0).uniform(size=(9, 9))
    raw = np.triu(raw) + np.triu(raw, 1).T
    solution = solve(refine(raw), 64)
    use = realised(solution.masks_TC).diagonal().mean()
    proven = "proven optimal" if solution.proven else f"gap {solution.gap:.1%}"
    return f"9 tasks x 64 channels in {solution.seconds:.2f} s, {proven}, mean use {use:.2f}"


def _record() -> str:
    from search.record import Record, read_record

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.journal"
        with Record(path, "doctor") as record:
            record.add(
                Candidate(
                    strategy="random", seed=0, index=0, vector=(0.5,), names=("use[a]",),
                    quality=0.5, cost=0.5,
                )
            )  # fmt: skip
        count = len(read_record(path, "doctor"))
    return f"Optuna journal: {count} candidate written and read back"


def _mlflow() -> str:
    from search.mirror import Tracker

    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        tracker = Tracker(
            tracking_uri=uri, experiment="doctor", study="doctor", folder=Path(folder)
        )
        tracker.start({})
        tracker.finish("FINISHED")
    return "SQLite store made, a run logged"


def _ray() -> str:
    import ray

    from search.arms import connect

    connect()
    resources = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    return (
        f"{nodes} node{'s' if nodes > 1 else ''}, {resources.get('CPU', 0):g} CPUs, "
        f"{resources.get('GPU', 0):g} GPUs"
    )


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    with tempfile.NamedTemporaryFile(dir=Path.cwd()):
        pass
    return f"{Path.cwd()} can be written, {free:.0f} GiB free"


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "packages": _packages,
    "cpu": _cpu,
    "gpu": _gpu,
    "solver": _solver,
    "record": _record,
    "mlflow": _mlflow,
    "ray": _ray,
    "disk": _disk,
}
