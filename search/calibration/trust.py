"""How far a study's proxy can be trusted, from what its calibration measured."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from partitioning import FloatArray, write_json
from search.calibration.results import calibration_folder, settings_digest
from search.calibration.scatter import scatter_figure
from search.config import StudyConfig
from search.stats import Estimate, correlations, noise
from search.study import Study

Results = Sequence[Mapping[str, Any]]

#: The rows of every table beside the tasks.
MEAN_ACCURACY, MEAN_OVER_TASKS = "mean accuracy", "mean over tasks"


def calibration_table(results: Results) -> pd.DataFrame:
    """What was measured, a row per candidate and seed; those that failed are left out.

    Returns:
        Columns index, seed, candidate, use, proxy_seconds, full_seconds, proxy/<network> and
        full/<network>.
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
        }
        for result in results
        if "error" not in result
    ]
    return pd.DataFrame(rows)


def summarise(results: Results, config: StudyConfig) -> dict[str, Any]:
    """What `apportion calibrate --json` prints.

    Args:
        results: As `calibrate` gives them. Candidates are compared by their first seed; the others
            tell the noise.
        config: Of the study.

    Returns:
        JSON, null where a number is not defined: verdict, trusted, threshold, candidates,
        trained_twice, failed [{index, seed, error}], tasks, proxy, stopped, noise and settings.
        proxy is {statistic: {row: {value, low, high}}} as `agreement.compare` names them, with
        rows for the tasks, "mean accuracy" and "mean over tasks"; stopped the same for full
        training stopped after each multiple of the proxy's wall time, with multiple, candidates
        (those whose training lasted so long), and seconds and steps (means). noise is {row:
        {std, seed_std, ratio, ceiling}}, see `seed_noise.Noise`.
    """
    good = [result for result in results if "error" not in result]
    first = [result for result in good if result["seed"] == 0]
    tasks = list(first[0]["full"]["accuracy"]) if first else []
    multiples = config.calibration.multiples
    proxy = _compared(first, [result["proxy"] for result in first], tasks, config)
    stopped = []
    for position, multiple in enumerate(multiples):
        lasting = [r for r in first if len(r["full"]["snapshots"]) > position]
        reached = [r["full"]["snapshots"][position] for r in lasting]
        means = {
            key: float(np.mean([r[key] for r in reached])) if reached else None
            for key in ("seconds", "steps")
        }
        found = {"multiple": multiple, "candidates": len(lasting), **means}
        stopped.append(found | _compared(lasting, reached, tasks, config))
    summary = {
        "candidates": len(first),
        "trained_twice": sum(result["seed"] > 0 for result in good),
        "failed": [
            {key: result[key] for key in ("index", "seed", "error")}
            for result in results
            if "error" in result
        ],
        "tasks": list(tasks),
        "proxy": proxy,
        "stopped": stopped,
        "noise": _noises(good, tasks),
        "settings": settings_digest(config),
    }
    return judged(summary, config.calibration.threshold)


def judged(summary: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """A summary with whether the proxy is trusted, by a threshold."""
    count = summary["candidates"]
    mean = summary["proxy"]["pearson"][MEAN_OVER_TASKS]
    value = mean["value"]
    trusted = value is not None and value >= threshold
    if value is None:
        why = f"no correlation can be told from the {count} candidates that were measured"
    else:
        why = (
            f"over {count} candidates its scores and full training have a mean Pearson correlation "
            f"over tasks of {value:.2f} (95 % interval {_text(mean['low'])} to "
            f"{_text(mean['high'])}), {'at least' if trusted else 'below'} the threshold of "
            f"{threshold:g}"
        )
    verdict = f"the proxy is {'trusted' if trusted else 'not trusted'}: {why}"
    head = {"verdict": verdict, "trusted": trusted, "threshold": threshold}
    return head | dict(summary) | head  # in front, and over an earlier verdict


def write_calibration(study: Study, results: Results) -> dict[str, Any]:
    """Write calibration.json, .csv and .png to a study's calibration; returns the summary."""
    folder = calibration_folder(study)
    summary = summarise(results, study.config)
    table = calibration_table(results)
    table.to_csv(folder / "calibration.csv", index=False)
    scatter_figure(table, summary, folder / "calibration.png")
    write_json(folder / "calibration.json", summary)
    return summary


def read_trust(study: Study) -> dict[str, Any] | None:
    """The summary of a study's calibration, judged by the study's threshold.

    None where there is none, or one of other settings than the study's own.
    """
    path = calibration_folder(study) / "calibration.json"
    if not path.is_file():
        return None
    kept = json.loads(path.read_text())
    if kept.get("settings") != settings_digest(study.config):
        return None
    return judged(kept, study.config.calibration.threshold)


def picture(study: Study) -> Path:
    """Where the scatter picture of a calibration is."""
    return calibration_folder(study) / "calibration.png"


def _accuracy(measured: Results, tasks: Sequence[str]) -> FloatArray:
    """(T, N) of N measurements."""
    rows = [[entry["accuracy"][task] for entry in measured] for task in tasks]
    return np.array(rows, dtype=np.float64).reshape(len(tasks), len(measured))


def _compared(
    results: Results, scores: Results, tasks: Sequence[str], config: StudyConfig
) -> dict[str, Any]:
    found: dict[str, list[Estimate]] = correlations(
        _accuracy(scores, tasks),
        _accuracy([result["full"] for result in results], tasks),
        np.array([result["use"] for result in results], dtype=np.float64),
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


def _noises(good: Results, tasks: Sequence[str]) -> dict[str, Any]:
    seeds: dict[int, list[Mapping[str, Any]]] = {}
    for result in good:
        seeds.setdefault(result["index"], []).append(result["full"])
    first = _accuracy([result["full"] for result in good if result["seed"] == 0], tasks)
    by_candidate = [_accuracy(results, tasks) for results in seeds.values()]
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


def _text(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
