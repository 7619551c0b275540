"""The connection to Ray: to a cluster that is there, or to one for this machine alone.

Of the latter only this machine hears: it listens on the loopback interface, and asks for a token
that this process draws.
"""

import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from search.arms.nodes import check_nodes, facts
from trainers.device import DeviceError

#: Seconds that a cluster's head has to take a connection.
ANSWERS_WITHIN = 3.0
#: What every worker process calls first, lest the user's own files pass for our packages there. A
#: worker imports it by this name, as our packages may not be found before.
WORKERS_FIRST = "apportion.precedence.take_precedence"
#: Bytes that the path of a socket may have, and those that Ray puts behind its folder.
SOCKET_PATH = 107
BEHIND_FOLDER = len("/ray/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store")


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names or that `ray start` left here, else start one.

    Ray itself waits minutes for a cluster that is gone, and a machine that crashed leaves its
    address behind: who does not answer is found out first.

    Raises:
        DeviceError: Nothing answers at RAY_ADDRESS, or not to this search; or a node of the
            cluster has other code or libraries; or Ray takes too long to start; or it was started
            before in this process, and its workers would take the user's own files for our
            packages; or RAY_TMPDIR cannot hold Ray's files.
    """
    if ray.is_initialized():
        _refuse_shadowed_workers()
        return
    options: dict[str, Any] = {
        "log_to_driver": False,
        # What fails is said by us, in a line.
        "logging_level": "error" if os.environ.get("APPORTION_DEBUG") else "critical",
        "include_dashboard": False,
        "runtime_env": {"worker_process_setup_hook": WORKERS_FIRST},
    }
    joined = _is_joined()
    if not joined:
        options |= {"address": "local", "_temp_dir": str(_folder() / "ray")}
        _ask_for_token()
    with _sigterm_is_ours(), nullcontext() if joined else _loopback():
        try:
            ray.init(**options)
        except Exception as error:
            if joined and isinstance(error, ConnectionError):
                raise DeviceError(
                    f"{error}. Something answers there, but does not let this search in. A Ray "
                    "that a program started by ray.init() asks for a token: RAY_AUTH_MODE=token "
                    "brings it from ~/.ray/auth_token of whoever started it"
                ) from error
            if joined or type(error) is not Exception:  # Ray's own, where it takes too long
                raise
            raise DeviceError(
                f"Ray did not start on this machine: {error} Is the machine very busy, or out of "
                "memory or room? Try again, nothing is lost"
            ) from error
    if joined:
        check_nodes(facts())


@contextmanager
def _sigterm_is_ours() -> Iterator[None]:
    """Whoever handled SIGTERM still does, while Ray starts and from then on.

    Ray's handlers end its processes and ours without a word; those that its C++ installs for a
    moment are out of reach.
    """
    ours = signal.getsignal(signal.SIGTERM)
    with patch.object(ray._private.utils, "set_sigterm_handler", lambda theirs: None):
        yield
    if callable(ours) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ours)


def _is_joined() -> bool:
    """Whether there is a cluster to join.

    Raises:
        DeviceError: Nothing answers at RAY_ADDRESS.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named == "local":
        return False
    if named not in ("", "auto") and "://" not in named and not _answers(named):
        raise DeviceError(
            f"RAY_ADDRESS is {named}, but nothing answers there: start that cluster, name "
            "another as host:port, or unset RAY_ADDRESS to search on this machine alone"
        )
    if named:
        return True
    places = ["RAY_TMPDIR", *(["TMPDIR"] if sys.platform == "linux" else [])]
    folder = next((os.environ[name] for name in places if name in os.environ), "/tmp")
    last = Path(folder, "ray", "ray_current_cluster")
    if not last.exists():
        return False
    address = last.read_text().strip()
    if not _answers(address):
        print(
            f"the Ray cluster last started here ({address}) does not answer: starting one on "
            "this machine (`ray stop` makes Ray forget the old one)",
            file=sys.stderr,
        )
        return False
    return True


def _folder() -> Path:
    """Where Ray keeps its files: a folder that can be written and whose path is short enough.

    Raises:
        DeviceError: RAY_TMPDIR is not, or no folder is.
    """
    longest = SOCKET_PATH - BEHIND_FOLDER
    named = os.environ.get("RAY_TMPDIR")
    for folder in [named] if named else [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]:
        if len(os.fsencode(folder)) > longest:
            continue
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return Path(folder)
        except OSError:
            continue
    raise DeviceError(
        f"{f'RAY_TMPDIR, {named},' if named else 'no folder for temporary files'} can hold Ray's "
        f"files: set RAY_TMPDIR to a folder that you may write to and whose path has at most "
        f"{longest} letters, as sockets lie in it"
    )


def _ask_for_token() -> None:
    """Have whoever speaks to the Ray of this process show a token that this process draws."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    Config.initialize("")  # Ray has read the environment before, and maybe another token
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _loopback() -> Iterator[None]:
    """Ray's processes that start meanwhile take this machine for 127.0.0.1, and listen there."""
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        with patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False):
            yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


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
