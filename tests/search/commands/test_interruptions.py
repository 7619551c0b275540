"""Searches that are killed and resumed, stopped by hand, and lose a node."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from search.commands.search import search
from search.config import StudyConfig, dump_config
from search.record import read_record
from search.study import Study
from tests.helpers.studies import EXPECTED, RUNGS, accounted, mirrored, quiet, tiny, wait_for

# Ray starts and ends processes of its own in this one.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def start(config: StudyConfig, folder: Path, *, resume: bool = False) -> "subprocess.Popen[bytes]":
    path = folder / f"{config.name}.yaml"
    path.write_text(yaml.safe_dump(dump_config(config)))
    command = [sys.executable, "-m", "apportion", "search", str(path)]
    return subprocess.Popen(
        command + ["--resume"] * resume,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A shell's background jobs ignore Ctrl-C, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finished(process: "subprocess.Popen[bytes]", timeout: float = 300) -> None:
    _, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, errors.decode()


def count(config: StudyConfig) -> int:
    path = config.folder / "record.journal"
    return len(read_record(path, config.name)) if path.exists() else 0


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, cache: Path) -> None:
    """With rungs, where most can be lost; benchmarks/kills.py kills others at other points."""
    settings = RUNGS | {"cache": str(cache), "candidates": 16}
    whole = tiny(tmp_path, name="whole", **settings)
    finished(start(whole, tmp_path))
    killed = tiny(tmp_path, name="killed", **settings)
    process = start(killed, tmp_path)
    wait_for(lambda: count(killed) >= 12)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = count(killed)
    assert 12 <= before < 34
    finished(start(killed, tmp_path, resume=True))
    studies = [Study(whole.folder), Study(killed.folder)]
    expected = {name: indices[:16] for name, indices in EXPECTED.items()}
    for study in studies:
        assert accounted(study) == expected
        assert mirrored(study) == sorted(c.id for c in study.candidates())
    proposals = [{c.id: c.vector for c in study.candidates()} for study in studies]
    assert proposals[0] == proposals[1]
    scores = [{c.id: (c.quality, c.stopped) for c in study.candidates()} for study in studies]
    assert scores[0] == scores[1]
    assert not (killed.folder / "record.underway").exists()


@pytest.mark.slow
def test_ctrl_c_stops_without_training_a_winner(tmp_path: Path, cache: Path) -> None:
    config = tiny(
        tmp_path, name="stopped", cache=str(cache), candidates=2000, finish={"pick": "best"}
    )
    process = start(config, tmp_path)
    wait_for(lambda: count(config) >= 8)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert time.monotonic() - begun < 15  # a few on a machine that has nothing else to do
    assert process.returncode == 130
    assert b"go on with --resume" in errors
    assert not (config.folder / "trained").exists()
    assert 8 <= count(config) < 2000


@pytest.mark.slow
def test_a_study_survives_the_loss_of_a_node(tmp_path: Path, cache: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    config = tiny(tmp_path, name="lossy", cache=str(cache))
    lost_at: list[int] = []

    def lose() -> None:
        def all_nodes_at_work() -> bool:
            path = config.folder / "record.journal"
            if not path.exists():
                return False
            candidates = read_record(path, config.name)
            lost_at[:] = [len(candidates)]
            # The second node has two of the three CPUs: one of three arms at least runs there.
            return len({c.strategy for c in candidates}) >= 3

        wait_for(all_nodes_at_work)
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        study = search(config, console=quiet())
        thread.join()
        assert lost_at[0] < sum(map(len, EXPECTED.values())), "nothing was left to lose"
        assert accounted(study) == EXPECTED
        assert mirrored(study) == sorted(c.id for c in study.candidates())
        assert study.summary()["failed"] == 0
    finally:
        thread.join()
        ray.shutdown()
        cluster.shutdown()
