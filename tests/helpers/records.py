"""Records: their candidates, and processes of their own that write and read them."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.record import Record, read_record
from search.record.record import Candidate, RecordError
from tests.helpers import ROOT
from tests.helpers.candidates import decoding, measurement

NAMES = ("use[digits]", "use[shapes]", "overlap[digits,shapes]")


def make(strategy: str = "es", seed: int = 0, index: int = 0, **changes: Any) -> Candidate:
    """A candidate with scores of its own, the same whenever it is made."""
    rng = np.random.default_rng([seed, abs(index)])
    cost = float(rng.uniform(0.1, 1.0))
    candidate = Candidate(
        strategy=strategy,
        seed=seed,
        index=index,
        vector=tuple(rng.uniform(size=3).tolist()),
        names=NAMES,
        quality=float(rng.uniform(0.3, 0.9)),
        cost=cost,
        error=None,
        decoding=decoding(
            ("digits", "shapes"), {"block0": [[0.5, 0.25], [0.25, 0.75]]}, proven=True
        ),
        rungs=(measurement(0.375, {"digits": 0.5, "shapes": 0.25}),),
        started=1_700_000_000.123456 + index,
        finished=1_700_000_001.654321 + index,
    )
    return replace(candidate, **changes)


def process(code: str, *args: object) -> list[str]:
    """The command of a process that runs Python code, with all that is imported here."""
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.helpers.records import *\n"
    return [sys.executable, "-c", head + code, *map(str, args)]


def in_process(code: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process of its own."""
    command = process(code, *args)
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)


def load_arm(path: Path, name: str) -> optuna.Study:
    """An arm as plain Optuna reads it."""
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


# Used by the code that runs in processes of its own.
__all__ = [
    "NAMES", "Path", "Record", "RecordError", "in_process", "load_arm", "make", "os", "process",
    "read_record", "resource", "sys",
]  # fmt: skip
