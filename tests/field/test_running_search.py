"""A search under way: who can hear it, a second driver beside it, and how SIGTERM ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from search.record import read_record
from search.study import Study
from tests.helpers.mlflow_server import mlflow_server
from tests.helpers.studies import SIMULATED

# MLflow opens its store without closing it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

#: State of a listening socket in /proc/net/tcp.
LISTENS = "0A"
PASSWORD = "hunter2hunter3"


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
            except OSError:
                continue
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def listening(pids: list[int]) -> set[str]:
    """Addresses, in hexadecimal, that processes listen at."""
    inodes = set()
    for pid in pids:
        try:
            inodes |= {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and f"socket:[{words[9]}]" in inodes:
                found.add(words[1].partition(":")[0])
    return found


def named(pids: list[int], option: str) -> str:
    """The value that a process among these was started with, as --option=value."""
    for pid in pids:
        for word in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
            if word.startswith(f"--{option}="):
                return word.partition("=")[2]
    raise AssertionError(f"nobody was started with --{option}")


def heard(address: str, token: str) -> str:
    """What Ray's store of keys answers to somebody who shows a token."""
    code = f"from ray._raylet import GcsClient; GcsClient({address!r}).internal_kv_keys(b'', None)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
    )  # fmt: skip
    return done.stderr


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's own tables")
def test_a_search_is_heard_by_nobody_refuses_others_and_ends_when_asked(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with mlflow_server(store) as uri:
        running_search(tmp_path, uri)
    held = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"mlflow.db", "config.yaml", "record.journal"} <= {path.name for path in held}
    for path in held:
        assert PASSWORD.encode() not in path.read_bytes(), path


def running_search(tmp_path: Path, uri: str) -> None:
    """Start a search, look at it, and end it."""
    path = tmp_path / "a.yaml"
    tracking = {"candidates": True, "uri": uri.replace("://", "://me:$SECRET_OF_MLFLOW@")}
    changed = {"output": str(tmp_path), "candidates": 5000, "tracking": tracking}
    path.write_text(yaml.safe_dump(SIMULATED | changed))
    folder = tmp_path / "simulated"
    command = [sys.executable, "-m", "apportion", "search", str(path)]
    # Neither a home folder nor a short one for temporary files.
    long = tmp_path / ("long" * 30)
    long.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_TMPDIR", "RAY_ADDRESS")}
    environment |= {"HOME": "/proc/none", "TMPDIR": str(long), "LC_ALL": "C"}
    environment |= {"SECRET_OF_MLFLOW": PASSWORD}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while (
            not (folder / "record.journal").exists()
            or len(read_record(folder / "record.journal", "simulated")) < 20
        ):
            assert process.poll() is None, process.communicate()
            time.sleep(0.5)
        pids = family(process.pid)
        addresses = listening(pids)
        assert addresses, "Ray's processes listen somewhere"
        loopback = {"0100007F", "00000000000000000000000001000000",
                    "0000000000000000FFFF00000100007F"}  # fmt: skip
        assert addresses <= loopback
        variables = Path(f"/proc/{pids[-1]}/environ").read_bytes().decode().split("\0")
        (token,) = [v.partition("=")[2] for v in variables if v.startswith("RAY_AUTH_TOKEN=")]
        assert not heard(named(pids, "gcs-address"), token)
        assert "nauthenticated" in heard(named(pids, "gcs-address"), "0" * 64)
        second = subprocess.run(
            [*command, "--resume"], env=environment, capture_output=True, text=True, check=False
        )
        assert second.returncode == 2
        assert "it is being written by process" in second.stderr
        assert second.stderr.count("\n") == 1
        session = Path(named(pids, "session-dir"))
    finally:
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        out, err = process.communicate(timeout=100)
        seconds = time.monotonic() - begun
    assert process.returncode == 143
    assert err == "ended by SIGTERM; what was scored is in the record: go on with --resume\n"
    assert seconds < 15  # a few on a machine that has nothing else to do
    assert PASSWORD not in out
    for log in (session / "logs").rglob("*"):
        assert not log.is_file() or PASSWORD.encode() not in log.read_bytes(), log
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "apportion"]
    runs = client.search_runs([experiment.experiment_id])
    ended = {run.info.status for run in runs if run.data.tags["apportion.kind"] != "candidate"}
    assert ended == {"KILLED"}
    assert 20 <= len(Study(folder).candidates()) < 5000
