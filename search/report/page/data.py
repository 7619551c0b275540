"""A study as JSON that its page can draw: numbers and names, nothing that is drawn."""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from partitioning import Masks
from search.candidates import (
    SCORED_AS,
    Candidate,
    Matrix,
    front,
    history,
    picks_of,
    scored,
    study_hypervolume,
)
from search.report.figures import COLOURS
from search.report.page.shown import Shown, Training

#: Digits behind the point.
DIGITS = 5
#: The same of a matrix P.
SHARING_DIGITS = 3


def page_data(shown: Shown) -> dict[str, Any]:
    """What the page of a study shows.

    Returns:
        JSON without NaN, which is null there:

        - study: name, folder, hypervolume, reference, objective, written and so on;
        - candidates: a row each, failed ones too; `design` and `asked` point into `designs` and
          `targets`; accuracy, use, parameters and macs follow `networks`, costs `costs`;
        - layouts, designs: groups and rows of masks, and the masks as bits, each design once, row
          by row, a row's groups one after the other, the highest bit first, in base64;
        - targets: matrices P, each once, as the rows of their upper triangles;
        - arms: a hypervolume curve each, as pairs (candidates, hypervolume) where it changes;
        - baselines: how many there are, and the hypervolume of all together; null without any;
        - trainings, trials, settings, exports, tasks, methods, layers, calibration, config.
    """
    candidates = shown.candidates
    found = scored(candidates)
    members = front(candidates)
    picks = {name: candidate.id for name, candidate in picks_of(found).items()}
    networks = list(dict.fromkeys(
        str(name)
        for c in candidates
        for name in (*c.accuracy, *c.use, *(c.masks.networks if c.decoding else ()))
    ))  # fmt: skip
    designs, targets = _Designs(), _Targets()
    on_front = {member.id for member in members}
    rows = [
        _candidate(c, networks, shown, designs, targets) | {"front": c.id in on_front}
        for c in candidates
    ]
    content = {
        "study": {
            "name": shown.name,
            "folder": shown.folder,
            "candidates": len(candidates),
            "scored": len(found),
            "hypervolume": study_hypervolume(candidates, shown.reference),
            "reference": list(shown.reference),
            "objective": shown.objective,
            "quality": shown.quality,
            "picks": picks,
            "written": shown.written,
            "running": shown.is_running,
            "simulated": shown.is_simulated,
            "hasMethods": shown.methods is not None,
        },
        "colours": list(COLOURS),
        "strategies": sorted({c.strategy for c in candidates}),
        "networks": networks,
        "costs": [{"name": name, "words": words} for name, words in shown.costs.items()],
        "candidates": rows,
        "layouts": designs.layouts,
        "designs": designs.found,
        "targets": targets.found,
        "arms": _arms(candidates, shown.reference),
        "baselines": _baselines(candidates, shown.reference),
        "tasks": [asdict(task) for task in shown.tasks],
        "trainings": [_training(each) for each in shown.trainings],
        "trials": [asdict(each) for each in shown.trials],
        "settings": dict(shown.settings),
        "exports": [asdict(each) for each in shown.exports],
        "calibration": _calibration(shown),
        "methods": None if shown.methods is None else [dict(row) for row in shown.methods],
        "layers": None if shown.layers is None else asdict(shown.layers),
        "config": shown.config,
    }
    clean: dict[str, Any] = _clean(content)
    return clean


def script_json(data: Mapping[str, Any]) -> str:
    r"""JSON that can stand in a script of a page: nothing in it may end the script, or begin one.

    Example:
        >>> script_json({"a": "</script><!--"})
        '{"a":"\\u003c/script>\\u003c!--"}'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c")


class _Designs:
    """Masks, each once, in the order in which they come."""

    def __init__(self) -> None:
        self.layouts: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []
        self._layouts: dict[Any, int] = {}
        self._designs: dict[Any, int] = {}

    def add(self, masks: Masks) -> int:
        """Position of a design."""
        about = masks.networks, masks.groups
        if (layout := self._layouts.get(about)) is None:
            layout = self._layouts[about] = len(self.layouts)
            self.layouts.append(
                {
                    "networks": [str(network) for network in masks.networks],
                    "tasks": list(masks.tasks),
                    "groups": [
                        {"name": g.name, "width": g.width, "kind": g.kind, "channels": g.channels}
                        for g in masks.groups
                    ],
                }
            )
        read = _bits(masks, masks.forward)
        changed = None if masks.backward is None else _bits(masks, masks.backward)
        key = layout, read, changed
        if key not in self._designs:
            self._designs[key] = len(self.found)
            entry = {"layout": layout, "read": _text(read)}
            self.found.append(entry if changed is None else entry | {"changed": _text(changed)})
        return self._designs[key]


class _Targets:
    """Matrices P that were asked for, each once."""

    def __init__(self) -> None:
        self.found: list[list[float]] = []
        self._known: dict[tuple[float, ...], int] = {}

    def add(self, matrix: Matrix) -> int:
        """Position of a matrix."""
        upper = tuple(
            round(float(entry), SHARING_DIGITS)
            for i, row in enumerate(matrix)
            for entry in row[i:]
        )  # fmt: skip
        if upper not in self._known:
            self._known[upper] = len(self.found)
            self.found.append(list(upper))
        return self._known[upper]


def _candidate(
    candidate: Candidate,
    networks: Sequence[str],
    shown: Shown,
    designs: _Designs,
    targets: _Targets,
) -> dict[str, Any]:
    decoding, costs = candidate.decoding, candidate.costs
    entry: dict[str, Any] = {
        "id": candidate.id,
        "strategy": candidate.strategy,
        "seed": candidate.seed,
        "index": candidate.index,
        "foundation": shown.foundations.get(candidate.id, 0),
        "finished": round(candidate.finished, 1),
        "rungs": [
            [
                rung.steps,
                rung.fidelity,
                rung.quality,
                rung.quality_std,
                None if rung.seconds is None else round(rung.seconds, 2),
                rung.evaluator,
                rung.error,
            ]
            for rung in candidate.rungs
        ],
    }
    if candidate.label:
        entry["label"] = candidate.label
    if candidate.failed:
        entry["error"] = candidate.reason
    else:
        entry |= {"quality": candidate.quality, "cost": candidate.cost}
    if candidate.stopped:
        entry["stopped"] = True
    if candidate.is_repeat:
        entry["repeats"] = candidate.rungs[0].evaluator.removeprefix(SCORED_AS)
    if candidate.accuracy:
        entry["accuracy"] = _by_network(candidate.accuracy, networks)
    if costs is not None:
        entry |= {
            "costs": [candidate.shares.get(name) for name in shown.costs],
            "use": _by_network(costs.use, networks),
            "parameters": _by_network(costs.parameters, networks),
            "macs": _by_network(costs.macs, networks),
            "stored": costs.union_parameters,
        }
    elif not candidate.failed:
        entry["costs"] = [
            candidate.cost if name == shown.objective else None for name in shown.costs
        ]
    if decoding is not None:
        entry["design"] = designs.add(decoding.masks)
        if decoding.target:
            entry |= {
                "asked": {name: targets.add(matrix) for name, matrix in decoding.target.items()},
                "deviation": dict(decoding.deviation),
                "bound": dict(decoding.bound),
                "proven": decoding.proven,
            }
    return entry


def _arms(candidates: Sequence[Candidate], reference: tuple[float, float]) -> list[dict[str, Any]]:
    """Hypervolume of every strategy and seed, as it was after so many candidates."""
    by_arm: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in candidates:
        if not candidate.label:
            by_arm.setdefault((candidate.strategy, candidate.seed), []).append(candidate)
    arms = []
    for (strategy, seed), own in sorted(by_arm.items()):
        volumes = history(own, reference)["hypervolume"].to_list()
        steps = [
            (count, volume)
            for count, (before, volume) in enumerate(
                zip([None, *volumes], volumes, strict=False), start=1
            )
            if volume != before
        ]
        arms.append(
            {"strategy": strategy, "seed": seed, "candidates": len(own), "hypervolume": steps}
        )
    return arms


def _baselines(
    candidates: Sequence[Candidate], reference: tuple[float, float]
) -> dict[str, Any] | None:
    found = [c for c in scored(candidates) if c.label]
    if not found:
        return None
    count = len({c.label for c in found})
    return {"count": count, "hypervolume": study_hypervolume(found, reference)}


def _training(training: Training) -> dict[str, Any]:
    """With a curve by network: mean validation accuracies, and losses where there are none."""
    points = training.points
    return {
        "candidate": training.candidate,
        "seed": training.seed,
        "settings": training.settings,
        "accuracy": {split: dict(own) for split, own in training.accuracy.items()},
        "curves": {
            name: [(p.step, p.accuracy[name]) for p in points if name in p.accuracy]
            for name in dict.fromkeys(name for p in points for name in p.accuracy)
        },
    }


def _calibration(shown: Shown) -> dict[str, str] | None:
    if shown.calibration is None:
        return None
    verdict, picture = shown.calibration
    return {"verdict": verdict, "picture": base64.b64encode(picture.read_bytes()).decode()}


def _bits(masks: Masks, by_group: Mapping[str, Any]) -> bytes:
    whole_RC = np.concatenate([by_group[group.name] for group in masks.groups], axis=1)
    return np.packbits(whole_RC).tobytes()


def _text(bits: bytes) -> str:
    return base64.b64encode(bits).decode()


def _by_network(values: Mapping[str, float], networks: Iterable[str]) -> list[float | None]:
    return [values.get(name) for name in networks]


def _clean(value: Any) -> Any:
    """Without what JSON cannot hold, and with no more digits than anybody reads."""
    if isinstance(value, Mapping):
        return {str(key): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value
