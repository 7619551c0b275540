"""Which cluster a search joins, and that one which is gone does not hold it up."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._private import ray_constants

from search.arms import connect
from trainers.device import DeviceError


@pytest.fixture(autouse=True)
def no_cluster() -> Iterator[None]:
    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture
def dead() -> str:
    """An address that nothing listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_the_address_that_a_crash_left_behind_is_passed_over(
    dead: str, capfd: pytest.CaptureFixture[str]
) -> None:
    left = Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster")
    left.parent.mkdir(exist_ok=True)
    left.write_text(dead)
    try:
        started = time.monotonic()
        connect()
        assert time.monotonic() - started < 60, "Ray waits minutes where it believes the address"
        assert ray.is_initialized()
        assert f"({dead}) does not answer" in capfd.readouterr().err
        assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
        assert left.read_text() == dead, "nobody is to join a Ray that ends with its search"
        # What is started in this process afterwards is not of this machine alone.
        assert ray_constants.ENABLE_RAY_CLUSTER
        assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ
    finally:
        left.unlink(missing_ok=True)


@pytest.mark.parametrize("address", ["", "127.0.0.1:99999", "no port"])
def test_a_named_cluster_that_does_not_answer_is_an_error(
    address: str, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address or dead)
    with pytest.raises(DeviceError, match="nothing answers there"):
        connect()
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_ray_of_another_token_was_here_before() -> None:
    """Ray's own, as where a notebook calls `ray.init` first."""
    code = (
        "import ray; ray.init(include_dashboard=False); ray.shutdown(); "
        "from search.arms import connect; connect(); print(len(ray.nodes()))"
    )
    hidden = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name not in hidden},
    )  # fmt: skip
    assert done.stdout == "1\n", done.stderr


def test_whoever_handled_sigterm_does_so_while_ray_starts() -> None:
    """Ray's handlers ended the process by status 15, without a word."""
    code = (
        "import os, signal, sys, ray\n"
        "from search.arms import connect\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('ours'))\n"
        "core_worker = ray._raylet.CoreWorker\n"
        "def signalled(*args, **kwargs):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return core_worker(*args, **kwargs)\n"
        "ray._raylet.CoreWorker = signalled\n"
        "connect()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "ours\n")


def test_a_machine_too_busy_for_ray_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(DeviceError, match=r"timed out during startup\. Is the machine very busy"):
        connect()


@pytest.mark.slow
def test_a_ray_that_asks_for_its_token() -> None:
    """As one that a notebook started; it does not let others in."""
    hidden = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS")
    bare = {name: value for name, value in os.environ.items() if name not in hidden}
    code = (
        "import ray; found = ray.init(include_dashboard=False, log_to_driver=False); "
        "print(found.address_info['gcs_address'], flush=True); input()"
    )
    joins = "from search.arms import connect; connect(); import ray; print(len(ray.nodes()))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=bare,
    ) as notebook:  # fmt: skip
        assert notebook.stdout is not None
        named = bare | {"RAY_ADDRESS": notebook.stdout.readline().strip()}
        for more, out, err in (
            ({}, "", "asks for a token"),
            ({"RAY_AUTH_MODE": "token"}, "1\n", ""),
        ):
            done = subprocess.run(
                [sys.executable, "-c", joins], capture_output=True, text=True, check=False,
                env=named | more,
            )  # fmt: skip
            assert done.stdout == out, done.stderr
            assert err in done.stderr
        notebook.communicate("\n")
