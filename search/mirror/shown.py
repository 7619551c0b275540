"""What the MLflow mirror shows of a candidate and a study, within MLflow's limits."""

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from search.candidates import Candidate
from search.mirror.server import view
from trainers.joint import Point

# Limits of MLflow for one batch, for the text of a tag and for a name.
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAG = 8000
MAX_NAME = 250


def safe(text: str) -> str:
    """A name that MLflow accepts and that differs wherever the texts differ.

    Example:
        >>> safe("cifar10"), safe("what?"), safe("what!")
        ('cifar10', 'what_-2cc9a5', 'what_-5de92d')
    """
    name = re.sub(r"[^\w.\- ]", "_", text).strip()[:60]
    if name == text and name.strip("."):
        return name
    return f"{name.strip('.')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def metrics(candidate: Candidate) -> dict[str, float]:
    """Everything measured of a candidate that is a finite number.

    Pairs of virtual networks are left out where they would not fit into one batch.
    """
    found: dict[str, float | None] = {"quality": candidate.quality, "cost": candidate.cost}
    if (measured := candidate.measured) is not None:
        for key in ("accuracy", "distillation_loss", "seconds", "quality_std"):
            found |= dict(_leaves(key, getattr(measured, key)))
    if candidate.costs is not None:
        costs = {key: value for key, value in vars(candidate.costs).items() if key != "use"}
        found |= dict(_leaves("costs", costs))
    if _halved(candidate):
        for number, rung in enumerate(candidate.rungs):
            for key in ("quality", "steps", "seconds"):
                found[f"rungs/{number}/{key}"] = getattr(rung, key)
    if (decoding := candidate.decoding) is not None:
        for key in ("deviation", "bound"):  # of the integer programmes, by channel group
            if by_group := getattr(decoding, key):
                found[key] = sum(by_group.values())
    found |= {f"use/{safe(name)}": share for name, share in candidate.use.items()}
    pairs = {}
    if (sharing := candidate.mean_sharing()) is not None:
        names, realised_RR = sharing
        for i, j in combinations(range(len(names)), 2):
            pairs[f"overlap/{safe(names[i])}/{safe(names[j])}"] = float(realised_RR[i, j])
    if pairs:
        found["mean_overlap"] = sum(pairs.values()) / len(pairs)
    if len(found) + len(pairs) <= MAX_METRICS:
        found |= pairs
    finite = ((k, v) for k, v in found.items() if v is not None and math.isfinite(v))
    return dict(list(finite)[:MAX_METRICS])


def params(candidate: Candidate) -> dict[str, str]:
    """Strategy, seed and index, and the raw vector where all of it fits into one batch."""
    found = {
        "strategy": candidate.strategy,
        "seed": str(candidate.seed),
        "index": str(candidate.index),
    }
    raw = {}
    for name, value in zip(candidate.names, candidate.vector, strict=True):
        path = [safe(part) for part in re.split(r"[\[\],/]+", name) if part]
        raw["/".join(["raw", *path])[:MAX_NAME]] = f"{value:.6g}"
    whole = len(raw) == len(candidate.names) and len(found) + len(raw) <= MAX_PARAMS
    return found | raw if whole else found


def tags(candidate: Candidate, *, front: bool) -> dict[str, str]:
    """What runs are found by, and realised P by channel group where it fits into a tag."""
    found = {
        "candidate": candidate.id,
        "strategy": candidate.strategy,
        "seed": str(candidate.seed),
        "index": str(candidate.index),
        "front": flag(front),
    }
    if candidate.label is not None:
        found["label"] = candidate.label
    if candidate.reason is not None:
        found["error"] = candidate.reason
    if candidate.evaluator is not None:
        found["evaluator"] = candidate.evaluator
    if _halved(candidate):
        found |= {"rung": str(len(candidate.rungs) - 1), "stopped": flag(candidate.stopped)}
    if (decoding := candidate.decoding) is not None:
        if decoding.proven is not None:
            found["proven"] = str(decoding.proven)
        realised = json.dumps(decoding.realised, separators=(",", ":"))
        if len(realised) <= MAX_TAG:
            found["realised"] = realised
    return {key: text[:MAX_TAG] for key, text in found.items()}


def of_point(point: Point) -> dict[str, float]:
    """Metrics of a point of a training's curve, those that are finite."""
    found = {f"loss/{safe(name)}": value for name, value in point.loss.items()}
    found |= {f"accuracy/{safe(name)}": value for name, value in point.accuracy.items()}
    if point.accuracy:
        found["accuracy"] = sum(point.accuracy.values()) / len(point.accuracy)
    found["learning_rate"] = point.learning_rate
    found["images_per_second"] = point.images_per_second
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _halved(candidate: Candidate) -> bool:
    """Whether there was more than one rung."""
    return len(candidate.rungs) > 1 or candidate.stopped


def flag(value: bool) -> str:
    """How a filter finds it: `tags.front = 'true'`."""
    return "true" if value else "false"


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """The leaves of a nested config by dotted path, as many as fit into one batch.

    Example:
        >>> flat({"proxy": {"steps": 3000}, "seeds": [0, 1]})
        {'proxy.steps': '3000', 'seeds': '[0, 1]'}
    """
    found: dict[str, str] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, entry in value.items():
                walk(f"{path}.{key}" if path else str(key), entry)
        else:
            found[re.sub(r"[^\w.\-/ ]", "_", path)[:MAX_NAME]] = str(value)[:500]

    walk("", config)
    return dict(list(found.items())[:MAX_PARAMS])


def front_view(identity: str, study: str, members: str, now: int) -> tuple[str, str]:
    """Key and value of an experiment's tag that MLflow's page offers as a saved view.

    It plots and lists the front's members. Best effort: the format is not documented.

    Args:
        identity: the study's id.
        study: the study's name.
        members: the filter that finds the front's members.
        now: unix time in milliseconds.
    """
    axes = {name: {"key": name, "type": "METRIC"} for name in ("cost", "quality")}
    scatter = {
        "uuid": "front-scatter",
        "type": "SCATTER",
        "xaxis": axes["cost"],
        "yaxis": axes["quality"],
        "runsCountToCompare": 100,
        "metricSectionId": "front",
        "deleted": False,
        "isGenerated": False,
    }
    state = {
        "searchFilter": members,
        "orderByKey": "metrics.`cost`",
        "orderByAsc": True,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": ["metrics.`quality`", "metrics.`cost`", "params.`strategy`"],
        "compareRunSections": [
            {"uuid": "front", "name": "Front", "display": True, "isReordered": True}
        ],
        "compareRunCharts": [scatter],
        "isAccordionReordered": True,  # or MLflow sorts its own charts before it
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": f"Front of {study}", "createdAt": now, "state": f"deflate;{packed}"}
    return f"mlflow.sharedViewState.{identity}", json.dumps(view)


def note(identity: str, study: str, members: str, experiment: str) -> str:
    """The description of a study's run: where to look."""
    chart = view(experiment, identity)
    return (
        f"Study **{study}**: below it a run per strategy and seed, below each a run per candidate."
        f"\n\n- The front as a list: search for `` {members} ``"
        f"\n- The front as a chart: [saved view]({chart})"
        "\n- The front as table, picture and study page: `front.csv`, `front.png` and "
        "`front.html` under Artifacts"
    )


def _leaves(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _leaves(f"{path}/{safe(str(key))}", entry)
    elif isinstance(value, int | float):
        yield path, float(value)
