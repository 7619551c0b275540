"""A search in a process of its own: its status, its end, and signals to the one that waits."""

import signal
import subprocess
import sys

import pytest

from tests.helpers import ROOT

HEAD = "import os, signal, sys, time; from search.run import outlived\n"


def start(work: str) -> "subprocess.Popen[str]":
    code = f"{HEAD}def work():\n    {work}\nsys.exit(outlived(work))"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("work", "status"),
    [("return 0", 0), ("return 3", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9)],
)
def test_its_status_is_that_of_the_search(work: str, status: int) -> None:
    process = start(work)
    process.communicate()
    assert process.returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_search(number: int) -> None:
    handle = f"signal.signal({number:d}, lambda *_: sys.exit(7))"
    # Many short sleeps: a signal just before a sleep is seen when the sleep is over.
    process = start(f"{handle}; print('ready', flush=True); [time.sleep(0.1) for _ in range(600)]")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 7
