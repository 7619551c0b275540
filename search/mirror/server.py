"""MLflow's own page on this machine, and where a study is in it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import urlencode

from search.mirror.store import TrackingError

#: Seconds that MLflow has to answer, and to end.
STARTS_WITHIN, ENDS_WITHIN = 120.0, 5.0
HOST = "127.0.0.1"


def view(experiment: str, identity: str) -> str:
    """What follows MLflow's address to see a study's front as a chart.

    It asks for the view of trained models, not for that of generative AI, which is MLflow's own.

    Args:
        experiment: MLflow's id of the experiment.
        identity: The study's id, under which its view is kept.
    """
    asked = {
        "workflowType": "machine_learning",
        "viewStateShareKey": identity,
        "compareRunsMode": "CHART",
    }
    return f"#/experiments/{experiment}/runs?{urlencode(asked)}"


def free_port(wanted: int = 0) -> int:
    """A port of the loopback interface on which nobody listens.

    Args:
        wanted: This one; 0 takes any.

    Raises:
        OSError: Somebody listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, wanted))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_page(uri: str, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Serve a store to this machine, and end all processes of that however this ends.

    Args:
        uri: Of the store.
        port: On which nobody listens.

    Yields:
        The process, which answers; MLflow starts others itself, in the same group.

    Raises:
        TrackingError: MLflow ended, or did not answer in time.
    """
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    with tempfile.TemporaryFile() as log, ThreadPoolExecutor(1) as starter:
        # A group of its own, all of which can be ended; Ctrl-C does not reach it. Started from a
        # thread, since a signal must not come between the process and its name here.
        started = starter.submit(
            subprocess.Popen, command, stdout=log, stderr=log, start_new_session=True
        )
        try:
            process = started.result()
            end = time.monotonic() + STARTS_WITHIN
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().splitlines()
                    raise TrackingError(f"MLflow's page did not start: {(said or ['no word'])[-1]}")
                time.sleep(0.2)
            yield process
        finally:
            _end_group(started.result())


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5).close()
    except OSError:
        return False
    return True


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it started, by force where they do not end soon."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_WITHIN)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
