"""Whole searches on a real Ray: to the end, killed and resumed, and with a node lost."""

import collections
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
import yaml
from ray.cluster_utils import Cluster
from rich.console import Console

from partitioning import Masks
from search.commands.search import search
from search.commands.sync import sync
from search.config import StudyConfig, dump_config, parse_config
from search.record import read_record
from search.study import Study, StudyError, build_foundation, run_here
from trainers.joint import train_jointly

# Ray starts and ends processes of its own in this one.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

TINY: dict[str, Any] = {
    "name": "tiny",
    "input_size": 8,
    "tasks": [
        {"name": "digits", "source": "toy", "limit": 200},
        {"name": "colours", "source": "toy", "limit": 200},
        {"name": "gratings", "source": "toy", "limit": 200},
    ],
    "backbone": {"family": "resnet14", "width": 4},
    "trunk": {
        "dataset": {"name": "glyphs", "source": "toy", "limit": 200},
        "sgd": {"steps": 20, "batch_size": 32},
    },
    "teachers": {"sgd": {"steps": 20, "batch_size": 32}},
    "proxy": {
        "images": 64,
        "norm_images": 32,
        "sgd": {"steps": 12, "batch_size": 8, "learning_rate": 0.5, "momentum": 0.0},
    },
    "train": {"sgd": {"steps": 20, "batch_size": 16}},
    "strategies": {
        "baselines": {"names": ["share_all", "independent"]},
        "random": {},
        "es": {"directions": 2},
        "policy_gradient": {"cost_weights": [0.0, 0.3], "samples": 3},
    },
    "candidates": 24,
    "initial": 4,
    "compute": {"device": "cpu"},
    "schedule": {"cpus": 1, "gpus": 0},
}


def tiny(output: Path, **changed: Any) -> StudyConfig:
    return parse_config(TINY | {"output": str(output)} | changed)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trunk and teachers, made once for all searches of this file."""
    folder = tmp_path_factory.mktemp("cache")
    torch.set_num_threads(1)
    config = tiny(folder, cache=str(folder))
    build_foundation(config, run_here, lambda line: None)
    return folder


@pytest.fixture
def ray_here() -> Iterator[None]:
    yield
    ray.shutdown()


def quiet() -> Console:
    return Console(file=io.StringIO())


def accounted(study: Study) -> dict[str, list[int]]:
    """Indices by arm, of the record; each arm's must be 0, 1, ... without gap or repetition."""
    arms = collections.defaultdict(list)
    for candidate in study.candidates():
        arms[candidate.strategy].append(candidate.index)
    return dict(arms)


def mirrored(study: Study) -> list[str]:
    """Names of the candidates in the MLflow mirror."""
    from mlflow import MlflowClient

    client = MlflowClient(study.store_uri)
    runs = []
    for experiment in client.search_experiments():
        token = None
        while True:
            page = client.search_runs(
                [experiment.experiment_id],
                "tags.`apportion.kind` = 'candidate'",
                page_token=token,
            )
            runs += [run.data.tags["candidate"] for run in page]
            token = page.token
            if not token:
                break
    return sorted(runs)


RUNGS: dict[str, Any] = {"rungs": [{"steps": 4, "keep": 0.5}], "bracket": 8}

EXPECTED = {
    "baselines": list(range(2)),
    "random": list(range(24)),
    "es": list(range(24)),
    "policy_gradient": list(range(24)),
}


def test_from_a_config_to_an_exported_winner(tmp_path: Path, cache: Path, ray_here: None) -> None:
    config = tiny(
        tmp_path, cache=str(cache), finish={"pick": "knee", "seeds": 2}, schedule={"cohort": 2}
    )
    study = search(config, console=quiet())
    assert accounted(study) == EXPECTED
    summary = study.summary()
    assert summary["candidates"] == 74
    assert summary["failed"] == 0
    assert 0 < summary["hypervolume"] < 1.1
    assert summary["hypervolume"] >= max(s["hypervolume"] for s in summary["strategies"].values())
    assert mirrored(study) == sorted(c.id for c in study.candidates())
    for name in ("front.csv", "front.png", "front.html"):
        assert (study.folder / name).stat().st_size > 100
    share_all = next(c for c in study.candidates() if c.evaluation.get("label") == "share_all")
    assert share_all.cost == 1.0
    knee = study.pick("knee")
    assert study.pick("best").quality == max(c.quality or 0 for c in study.candidates())
    trained = study.train("knee", seeds=2, run=_no_jobs)
    assert len(trained.accuracy) == 2
    assert not np.isnan(trained.std["validation"])
    exported = study.folder / "exported" / knee.id
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for task in ("digits", "colours", "gratings"):
        program = torch.export.load(exported / task / "network.pt2").module()
        assert program(images).shape[0] == 2
    assert Masks.load(exported / "masks.json") == study.masks(knee)
    with pytest.raises(StudyError, match="already holds this study with 74 candidates"):
        search(config, console=quiet())
    with pytest.raises(StudyError, match=r"another study.*\n  proxy\.sgd\.steps: 12 in the study"):
        search(replace_steps(config), resume=True, console=quiet())
    sync(study)
    assert mirrored(study) == sorted(c.id for c in study.candidates())


def test_rungs_up_to_a_short_training(tmp_path: Path, cache: Path, ray_here: None) -> None:
    rungs = [
        {"steps": 4, "keep": 0.5},
        {"steps": 12, "keep": 0.5},
        {"fidelity": "full", "steps": 10},
    ]
    config = tiny(
        tmp_path, cache=str(cache), rungs=rungs, bracket=8, schedule={"cohort": 3, "evaluators": 2}
    )
    study = search(config, console=quiet())
    assert accounted(study) == EXPECTED
    candidates = study.candidates()
    summary = study.summary()
    assert summary["failed"] == 0
    # Every bracket of 8 leaves 4, then 2.
    reached = collections.Counter((c.strategy, len(c.rungs)) for c in candidates)
    assert {n: reached["random", n] for n in (1, 2, 3)} == {1: 12, 2: 6, 3: 6}
    assert reached["baselines", 3] == 2, "baselines are never stopped"
    final = [c for c in candidates if not c.stopped]
    assert summary["stopped"] == len(candidates) - len(final) > 0
    assert {c.id for c in final} >= {member["candidate"] for member in summary["front"]}
    for candidate in candidates:
        kinds = [(rung["fidelity"], rung["steps"]) for rung in candidate.rungs]
        assert kinds == [("proxy", 4), ("proxy", 12), ("full", 10)][: len(kinds)]
        assert candidate.quality == candidate.rungs[-1]["quality"]
    # The last score is that of the training that `apportion train` does, cut to 10 steps.
    one = study.pick("knee")
    base = build_foundation(config, run_here, lambda line: None)
    again = train_jointly(
        study.masks(one), base.tasks, base.trunk, base.teachers,
        replace(config.train, sgd=replace(config.train.sgd, steps=10)),
        backbone=config.backbone, seed=0, compute=config.compute,
    )  # fmt: skip
    assert one.accuracy == again.accuracy["validation"]
    assert mirrored(study) == sorted(c.id for c in candidates)
    stopped = next(c for c in candidates if c.stopped)
    with pytest.raises(StudyError, match=f"{stopped.id} was stopped after (4|12) steps"):
        study.pick(stopped.id)


def _no_jobs(function: Any, jobs: Any) -> Iterator[tuple[str, Any]]:
    assert not jobs, "what is trained already is not trained again"
    return iter(())


def replace_steps(config: StudyConfig) -> StudyConfig:
    return replace(config, proxy=replace(config.proxy, sgd=replace(config.proxy.sgd, steps=13)))


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


def wait_for(condition: Any, timeout: float = 180) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


@pytest.mark.parametrize("changed", [{}, RUNGS], ids=["plain", "rungs"])
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, cache: Path, changed: dict[str, Any]
) -> None:
    whole = tiny(tmp_path, name="whole", cache=str(cache), **changed)
    finished(start(whole, tmp_path))
    killed = tiny(tmp_path, name="killed", cache=str(cache), **changed)
    process = start(killed, tmp_path)
    wait_for(lambda: count(killed) >= 25)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = count(killed)
    assert 25 <= before < 74
    finished(start(killed, tmp_path, resume=True))
    studies = [Study(whole.folder), Study(killed.folder)]
    for study in studies:
        assert accounted(study) == EXPECTED
        assert mirrored(study) == sorted(c.id for c in study.candidates())
    proposals = [{c.id: c.vector for c in study.candidates()} for study in studies]
    assert proposals[0] == proposals[1]
    scores = [{c.id: (c.quality, c.stopped) for c in study.candidates()} for study in studies]
    assert scores[0] == scores[1]
    assert not (killed.folder / "record.underway").exists()


def test_ctrl_c_stops_without_training_a_winner(tmp_path: Path, cache: Path) -> None:
    config = tiny(
        tmp_path, name="stopped", cache=str(cache), candidates=2000, finish={"pick": "best"}
    )
    process = start(config, tmp_path)
    wait_for(lambda: count(config) >= 8)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"go on with --resume" in errors
    assert not (config.folder / "trained").exists()
    assert 8 <= count(config) < 2000


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
