"""MLflow mirrors of made-up candidates, and what is in their stores."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from search.candidates import Candidate
from search.mirror import Tracker, default_uri
from tests.helpers import ROOT
from tests.helpers.candidates import costs, decoding, measurement

TASKS = ("digits", "shapes", "what? / why")


def make(index: int = 0, strategy: str = "es", seed: int = 0, **changes: Any) -> Candidate:
    """A candidate with all that a mirror shows, the same whenever it is made."""
    rng = np.random.default_rng([seed, index])
    masks_TC = rng.random((3, 64)) < 0.5
    realised = masks_TC.astype(float) @ masks_TC.T / 64
    use = dict(zip(TASKS, np.diag(realised).tolist(), strict=True))
    accuracy = dict(zip(TASKS, rng.uniform(0.3, 0.9, 3).tolist(), strict=True))
    candidate = Candidate(
        strategy=strategy,
        seed=seed,
        index=index,
        vector=tuple(rng.uniform(size=6).tolist()),
        names=(
            *(f"use[{task}]" for task in TASKS),
            "overlap[digits,shapes]",
            "overlap[digits,what? / why]",
            "overlap[shapes,what? / why]",
        ),
        quality=float(np.mean(list(accuracy.values()))),
        cost=float(np.mean(list(use.values()))),
        decoding=decoding(
            TASKS,
            {"block0": realised.tolist(), "block1": (realised / 2).tolist()},
            deviation={"block0": 2.0, "block1": 1.0},
            proven=True,
        ),
        costs=costs(use),
        rungs=(measurement(0.5, accuracy, distillation_loss=dict.fromkeys(TASKS, 0.25)),),
        started=1_700_000_000.5 + index,
        finished=1_700_000_002.25 + index,
    )
    return replace(candidate, **changes)


def in_process(code: str, folder: Path) -> subprocess.Popen[str]:
    """Python code in a process of its own, with nothing in its environment that mutes MLflow."""
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + "from tests.helpers.mirror import *\n" + code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH") if key in os.environ},
    )


def tracker(folder: Path, uri: str | None = None, study: str = "toy") -> Tracker:
    """A mirror that has started."""
    name = "apportion" if study != "other" else "other"
    found = Tracker(tracking_uri=uri, experiment=name, study=study, folder=folder)
    found.start({"study": study, "proxy": {"steps": 3000}})
    return found


def runs(folder: Path, where: str = "", uri: str | None = None) -> list[Run]:
    """The runs of a store that match a filter."""
    client = MlflowClient(tracking_uri=uri or default_uri(folder))
    experiment = client.get_experiment_by_name("apportion")
    return list(client.search_runs([experiment.experiment_id], where, ViewType.ACTIVE_ONLY))


def kind(name: str) -> str:
    """The filter for runs of a kind: study, arm or candidate."""
    return f"tags.`apportion.kind` = '{name}'"


# Used by the code that runs in processes of its own.
__all__ = ["TASKS", "Path", "in_process", "kind", "make", "runs", "sys", "tracker"]
