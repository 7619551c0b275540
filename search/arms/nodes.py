"""The nodes of a joined cluster: each must have the code and the libraries of the driver's."""

import functools
import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.arms.reasons import reason
from trainers.device import DeviceError

PACKAGES = ("apportion", "partitioning", "trainers", "search")
#: Libraries on whose versions scores, proposals or the record depend.
LIBRARIES = ("torch", "numpy", "optuna", "pulp", "highspy")
#: Seconds that a node has to answer.
ANSWERS_WITHIN = 120.0


def facts() -> dict[str, str]:
    """What this process runs: a digest of the project's code as it first was, and versions."""
    return dict(_facts())


@functools.cache
def _facts() -> Mapping[str, str]:
    root = Path(__file__).resolve().parents[2]
    code = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            code.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    found = {"Apportion's code": code.hexdigest()[:12], "Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def require_same(code: Mapping[str, str]) -> None:
    """Refuse to work for a search of other code: this node may have joined since, or been changed.

    Args:
        code: What the search runs, as `facts` says it.

    Raises:
        DeviceError: This process runs something else.
    """
    if problems := different(ray.util.get_node_ip_address(), facts(), code):
        changed = "; where it was changed while the search runs, go on with --resume"
        raise DeviceError("; ".join(problems) + changed)


def check_nodes(here: Mapping[str, str]) -> None:
    """Have every other node of the cluster say what it runs.

    Args:
        here: What this one does, as `facts` says it.

    Raises:
        DeviceError: A node has other code or libraries than this one, or cannot say.
    """
    own = ray.get_runtime_context().get_node_id()
    asked = [
        (
            node["NodeManagerAddress"],
            ray.remote(facts)
            .options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote(),
        )
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != own
    ]
    problems = []
    for address, answer in asked:
        try:
            problems += different(address, ray.get(answer, timeout=ANSWERS_WITHIN), here)
        except GetTimeoutError:
            problems.append(f"node {address} did not answer within {ANSWERS_WITHIN:g} seconds")
        except RayError as error:
            problems.append(f"node {address} cannot run Apportion: {reason(error)}")
    if problems:
        raise DeviceError("\n  ".join(["the cluster's nodes do not go together:", *problems]))


def different(address: str, there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """A line for each thing that a node has otherwise than this one.

    Args:
        address: The node's.
        there: What it has.
        here: What this one has.
    """
    code = "; `ray up CLUSTER` copies it (`ray rsync-up` reaches the head alone)"
    return [
        f"node {address} has {what} {there.get(what, 'none')}, this one {version}"
        + (code if what == "Apportion's code" else "; install constraints.txt there")
        for what, version in here.items()
        if there.get(what) != version
    ]
