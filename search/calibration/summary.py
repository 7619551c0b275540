"""What was measured by a calibration, in numbers.

Legend: T tasks, N candidates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from partitioning import FloatArray
from search.calibration.results import settings_digest
from search.calibration.verdict import MEAN_ACCURACY, MEAN_OVER_TASKS, judged
from search.config import StudyConfig
from search.stats import bands, correlations, ndcg, noise, regret

Results = Sequence[Mapping[str, Any]]

#: Costs, by network, that predict full training without any proxy.
KNOWN = ("use", "parameters")


def calibration_table(results: Results) -> pd.DataFrame:
    """What was measured, a row per candidate and seed; those that failed are left out.

    Returns:
        Columns index, seed, candidate, use, proxy_seconds, full_seconds, and proxy/<network>,
        full/<network>, use/<network> and parameters/<network>.
    """
    rows = [
        {
            "index": result["index"],
            "seed": result["seed"],
            "candidate": result.get("candidate") or "",
            "use": result["use"],
            "proxy_seconds": result["proxy"]["seconds"],
            "full_seconds": result["full"]["seconds"],
            **{f"proxy/{k}": v for k, v in result["proxy"]["accuracy"].items()},
            **{f"full/{k}": v for k, v in result["full"]["accuracy"].items()},
            **{f"{cost}/{k}": v for cost in KNOWN for k, v in result["costs"][cost].items()},
        }
        for result in results
        if "error" not in result
    ]
    return pd.DataFrame(rows)


def summarise(results: Results, config: StudyConfig) -> dict[str, Any]:
    """What `apportion calibrate --json` prints.

    Args:
        results: As `measure_calibration` gives them. Candidates are compared by their first seed;
            the others tell the noise.
        config: Of the study.

    Returns:
        JSON, null where a number is not defined: verdict, trusted, threshold and fewest as `judged`
        gives them, candidates, trained_twice, failed [{index, seed, error}], tasks, proxy, use,
        parameters, stopped, decisions, noise and settings.

        proxy is {statistic: {row: {value, low, high}}} as `correlations` names them, with rows for
        the tasks, "mean accuracy" and "mean over tasks". use and parameters are the same of what
        they alone predict: of a task its own, of the mean accuracy their mean over tasks; use's
        partial correlations are what the regression on use misses of it. stopped is the same of
        full training stopped after each multiple of the proxy's wall time, with
        multiple, candidates (those whose training lasted so long), and seconds and steps (means).

        decisions is {"proxy", "use" or "parameters": {ndcg, regret, regret_same_cost}}, by mean
        accuracies: of the best quarter of the ranking, of the first pick, and of the first picks
        within bands of cost. noise is {row: {std, seed_std, ratio, ceiling}}, see `Noise`.
    """
    good = [result for result in results if "error" not in result]
    first = [result for result in good if result["seed"] == 0]
    tasks = list(first[0]["full"]["accuracy"]) if first else []
    scores = {"proxy": _accuracy([result["proxy"] for result in first], tasks)}
    scores |= {cost: _costs(first, cost, tasks) for cost in KNOWN}
    summary = {
        "candidates": len(first),
        "trained_twice": sum(result["seed"] > 0 for result in good),
        "failed": [
            {key: result[key] for key in ("index", "seed", "error")}
            for result in results
            if "error" in result
        ],
        "tasks": list(tasks),
        **{name: _compared(first, score_TN, tasks, config) for name, score_TN in scores.items()},
        "stopped": [
            _stopped(first, position, tasks, config)
            for position in range(len(config.calibration.multiples))
        ],
        "decisions": {
            name: _decisions(first, score_TN, tasks) for name, score_TN in scores.items()
        },
        "noise": _noises(good, tasks),
        "settings": settings_digest(config),
    }
    return judged(summary, config.calibration.threshold)


def _accuracy(measured: Results, tasks: Sequence[str]) -> FloatArray:
    """(T, N) of N measurements."""
    rows = [[entry["accuracy"][task] for entry in measured] for task in tasks]
    return np.array(rows, dtype=np.float64).reshape(len(tasks), len(measured))


def _costs(results: Results, cost: str, tasks: Sequence[str]) -> FloatArray:
    """(T, N): a cost by task."""
    rows = [[result["costs"][cost][task] for result in results] for task in tasks]
    return np.array(rows, dtype=np.float64).reshape(len(tasks), len(results))


def _full(results: Results, tasks: Sequence[str]) -> FloatArray:
    return _accuracy([result["full"] for result in results], tasks)


def _compared(
    results: Results, score_TN: FloatArray, tasks: Sequence[str], config: StudyConfig
) -> dict[str, Any]:
    found = correlations(
        score_TN,
        _full(results, tasks),
        _costs(results, "use", tasks),
        np.random.default_rng(config.calibration.seed),
    )
    rows = [*tasks, MEAN_ACCURACY, MEAN_OVER_TASKS]
    return {
        name: {
            row: {key: _number(value) for key, value in asdict(estimate).items()}
            for row, estimate in zip(rows, estimates, strict=True)
        }
        for name, estimates in found.items()
    }


def _stopped(
    first: Results, position: int, tasks: Sequence[str], config: StudyConfig
) -> dict[str, Any]:
    """Full training stopped at one of the multiples."""
    lasting = [result for result in first if len(result["full"]["snapshots"]) > position]
    reached = [result["full"]["snapshots"][position] for result in lasting]
    means = {
        key: float(np.mean([entry[key] for entry in reached])) if reached else None
        for key in ("seconds", "steps")
    }
    multiple = config.calibration.multiples[position]
    found = {"multiple": multiple, "candidates": len(lasting), **means}
    return found | _compared(lasting, _accuracy(reached, tasks), tasks, config)


def _decisions(
    results: Results, score_TN: FloatArray, tasks: Sequence[str]
) -> dict[str, float | None]:
    """What a search would make of a score: how good its top is, and what its picks lose."""
    if not results:
        return dict.fromkeys(("ndcg", "regret", "regret_same_cost"))
    score_N, full_N = score_TN.mean(axis=0), _full(results, tasks).mean(axis=0)
    band_N = bands(np.array([result["use"] for result in results]))
    return {
        "ndcg": _number(ndcg(score_N, full_N, -(-len(results) // 4))),
        "regret": _number(regret(score_N, full_N)),
        "regret_same_cost": _number(regret(score_N, full_N, band_N)),
    }


def _noises(good: Results, tasks: Sequence[str]) -> dict[str, Any]:
    seeds: dict[int, list[Mapping[str, Any]]] = {}
    for result in good:
        seeds.setdefault(result["index"], []).append(result)
    first = _full([result for result in good if result["seed"] == 0], tasks)
    by_candidate = [_full(results, tasks) for results in seeds.values()]
    found = {}
    for row, task in enumerate(tasks):
        found[task] = noise(first[row], [scores[row] for scores in by_candidate])
    if tasks:
        means = [scores.mean(axis=0) for scores in by_candidate]
        found[MEAN_ACCURACY] = noise(first.mean(axis=0), means)
    return {
        row: {key: _number(value) for key, value in asdict(entry).items()}
        for row, entry in found.items()
    }


def _number(value: float) -> float | None:
    """As JSON has it, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None
