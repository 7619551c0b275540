"""Made-up results of a calibration, as `measure_calibration` would give them."""

import functools
import runpy
from collections.abc import Callable
from typing import Any

import numpy as np

from partitioning import FloatArray
from tests.helpers import ROOT

TASKS = ("digits", "colours", "gratings")
Result = dict[str, Any]


@functools.cache
def _made_up(kind: str) -> Callable[..., tuple[FloatArray, FloatArray, FloatArray]]:
    """What draws scores, full accuracies and uses (T, N), of benchmarks/calibration_verdict.py."""
    path = ROOT / "benchmarks" / "calibration_verdict.py"
    found: Callable[..., tuple[FloatArray, FloatArray, FloatArray]]
    found = runpy.run_path(str(path))[kind]
    return found


def made_up(kind: str, count: int, seed: int, *more: Any) -> list[Result]:
    """Candidates of a proxy that is `use_only` or `informed`, trained once."""
    score_TN, full_TN, use_TN = _made_up(kind)(count, seed, *more)
    return [
        result(index, 0, use_TN[:, index], score_TN[:, index], full_TN[:, index])
        for index in range(count)
    ]


def measurements(count: int = 32, trained_twice: int = 4, error: float = 0.05) -> list[Result]:
    """Accuracy rises with use and has a part of its own, of which the proxy sees some."""
    rng = np.random.default_rng(0)
    use_N = rng.uniform(0.1, 1, count)
    own_NT = 0.08 * rng.normal(size=(count, 3))
    results = []
    for index, seed in [(i, 0) for i in range(count)] + [(i, 1) for i in range(trained_twice)]:
        truth_T = 0.4 + 0.3 * use_N[index] + own_NT[index]
        full_T = truth_T + 0.02 * rng.normal(size=3)
        proxy_T = truth_T - 0.1 + error * rng.normal(size=3)
        early_ST = truth_T - 0.2 + 0.1 * rng.normal(size=(2, 3))
        use_T = use_N[index] * np.array([0.9, 1.0, 1.1])
        results.append(result(index, seed, use_T, proxy_T, full_T, early_ST))
    return results


def result(
    index: int,
    seed: int,
    use_T: FloatArray,
    proxy_T: FloatArray,
    full_T: FloatArray,
    early_ST: FloatArray | None = None,
) -> Result:
    """One candidate; without early accuracies its training has no snapshots."""
    early_ST = np.empty((0, len(use_T))) if early_ST is None else early_ST
    multiples = (1, 5)[: len(early_ST)]
    return {
        "index": index,
        "seed": seed,
        "candidate": None,
        "use": float(use_T.mean()),
        "costs": {"use": named(use_T), "parameters": named(1000 + 5000 * use_T**2)},
        "proxy": {"accuracy": named(proxy_T), "loss": named(proxy_T), "seconds": 2.0},
        "full": {
            "accuracy": named(full_T),
            "seconds": 60.0,
            "steps": 900,
            "snapshots": [
                {"seconds": 2.0 * m, "steps": 30 * m, "accuracy": named(reached_T)}
                for m, reached_T in zip(multiples, early_ST, strict=True)
            ],
        },
    }


def named(values_T: FloatArray) -> dict[str, float]:
    """By task."""
    return dict(zip(TASKS, map(float, values_T), strict=True))
