"""Studies of seconds: configs, what they must have done, and what their mirrors show."""

import collections
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from search.config import StudyConfig, parse_config
from search.study import Study

# A config that is valid; nothing of it is computed.
SMALL: dict[str, Any] = {
    "name": "small",
    "input_size": 8,
    "tasks": [{"name": "a", "source": "npz", "path": "a.npz"}],
    "backbone": {"model": "resnet14", "args": {"width": 4}},
    "trunk": {"dataset": {"name": "glyphs", "source": "toy"}},
    "strategies": {"random": {}},
    "compute": {"device": "cpu"},
}

# Whole searches in seconds.
TINY: dict[str, Any] = {
    "name": "tiny",
    "input_size": 8,
    "tasks": [
        {"name": "digits", "source": "toy", "limit": 200},
        {"name": "colours", "source": "toy", "limit": 200},
        {"name": "gratings", "source": "toy", "limit": 200},
    ],
    "backbone": {"model": "resnet14", "args": {"width": 4}},
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
        "policy_gradient": {"cost_weights": [0.0, 0.3], "samples": 3},
    },
    "candidates": 24,
    "initial": 4,
    "compute": {"device": "cpu"},
    "schedule": {"cpus": 1, "gpus": 0},
}


def tiny(output: Path, **changed: Any) -> StudyConfig:
    """The config of a whole search in seconds, in a folder, with other settings."""
    return parse_config(TINY | {"output": str(output)} | changed)


def wait_for(condition: Callable[[], bool], *, within: float = 180) -> None:
    """Wait until something holds; it is an error where it does not within so many seconds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


def quiet() -> Console:
    """A console that nobody sees."""
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


def calibrated(folder: Path, cache: Path, **changed: Any) -> StudyConfig:
    """The same with a calibration of seven trainings, five of them of different candidates."""
    settings = {"candidates": 5, "trained_twice": 2, "multiples": [0.01, 1000.0]}
    return tiny(folder, cache=str(cache), calibration=settings | changed)


# The candidates of `tiny` by strategy, and settings with which half of them are stopped.
EXPECTED = {
    "baselines": list(range(2)),
    "random": list(range(24)),
    "policy_gradient": list(range(24)),
}
RUNGS: dict[str, Any] = {"rungs": [{"steps": 4, "keep": 0.5}], "bracket": 8}


# Studies without training.
SIMULATED: dict[str, Any] = {
    "name": "simulated",
    "evaluator": "simulated",
    "tasks": [{"name": name} for name in ("a", "b", "c")],
    "backbone": {"model": "resnet14", "args": {"width": 4}},
    "strategies": {"random": {}},
    "candidates": 20,
    "tracking": {"candidates": False},
}


def simulated(**changed: Any) -> StudyConfig:
    """The config of a study of a synthetic problem with three tasks."""
    return parse_config(SIMULATED | changed)
