"""Studies to be shown on a page, made up: candidates of every kind in as many as one likes."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from partitioning import ChannelGroup, Masks, VirtualNetwork
from search.candidates import Candidate, Decoding, Measurement
from search.config import COSTS
from search.report import Exporting, LayerTimes, Shown, Training, Trial
from search.strategies import TaskFacts
from tests.helpers.candidates import costs
from trainers.joint import Point

#: A name that would end a script, begin one, and leave an attribute.
EVIL = """</script><img src=x onerror="alert(1)"><!--<script>'"&"""
TASKS = ("digits", EVIL, "colours", "counting", "gratings", "textures")
GROUPS = (
    ChannelGroup(name="stage3.0.conv1", width=64),
    ChannelGroup(name="stage3.1.conv1", width=48),
)
STRATEGIES = ("es", "random", "task_models", "tpe")


def shown(folder: Path, count: int = 40, **changed: Any) -> Shown:
    """A study with so many candidates, and all that a page can show.

    Args:
        folder: Where the picture of its calibration is written.
        count: Of candidates that strategies propose.
        changed: Other values than these.
    """
    candidates = [*_baselines(), *_proposed(count), *_odd(count)]
    trained = candidates[0], candidates[3]
    picture = folder / "calibration.png"
    Image.new("RGB", (40, 30), "white").save(picture)
    known: dict[str, Any] = {
        "name": "a <study>",
        "folder": "/studies/it's here",
        "candidates": candidates,
        "reference": (0.1, 1.0),
        "objective": "macs",
        "costs": {name: kind.words for name, kind in COSTS.items() if name != "latency"},
        "tasks": [
            TaskFacts(name=task, classes=10, images=1200, teacher_accuracy=0.8, floor=0.1)
            for task in TASKS
        ],
        "trainings": [_training(one.id, seed) for one in trained for seed in (0, 1)],
        "trials": [
            Trial(
                candidate=one.id, settings="5f3a", seeds=2, split="test", mean=0.7, std=0.01,
                difference=0.02, p=float("nan"),
            )
            for one in trained
        ],
        "settings": {"5f3a": "train:\n  sgd:\n    steps: 60\n"},
        "exports": [
            Exporting(
                candidate=trained[1].id, seed=0, path=f"/exports/{state}", time=1.7e9,
                formats=("pt2", "onnx"), is_there=state == "there",
                latencies=[{"network": "digits", "file": "network.onnx", "ms": 1.0,
                            "undivided_ms": 2.0}] * (state == "there"),
            )
            for state in ("there", "gone")
        ],
        "calibration": ("the proxy is trusted: over 32 candidates", picture),
        "layers": LayerTimes(
            device="a processor", batch=16, threads=1, error=0.01,
            milliseconds={"conv": 0.2, "stage1.0.conv1": 0.4},
        ),
        "config": "name: a\n",
        "written": 1.7e9,
    }  # fmt: skip
    return Shown(**known | changed)


def _baselines() -> list[Candidate]:
    rows = np.ones((len(TASKS), 112), dtype=np.bool_)
    apart = np.zeros_like(rows)
    for task in range(len(TASKS)):
        apart[task, task :: len(TASKS)] = True
    made = (("share_all", rows), ("independent", apart))
    return [
        _candidate("baselines", 0, index, masks_R, label=name)
        for index, (name, masks_R) in enumerate(made)
    ]


def _proposed(count: int) -> list[Candidate]:
    """Of four strategies with two seeds each, a lower rung that stops a quarter of them."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        strategy = STRATEGIES[number % 4]
        rows = rng.random((len(TASKS), 112)) < rng.uniform(0.1, 0.9, (len(TASKS), 1))
        one = _candidate(strategy, number // 4 % 2, number // 8, rows, finished=1.7e9 + number)
        if number % 16 == 5:
            one = replace(one, stopped=True, rungs=one.rungs[:1])
        found.append(one)
    return found


def _odd(count: int) -> list[Candidate]:
    """One that failed, one that repeats another, and a design that two strategies proposed."""
    first = _proposed(4)[0]
    again = first.rungs[-1]
    repeated = replace(
        first, index=count, rungs=(replace(again, evaluator=f"as {first.id}"),), finished=1.8e9
    )
    return [
        repeated,
        replace(first, strategy="random", index=count),
        Candidate(strategy="tpe", seed=1, index=count, vector=(), names=(), error=f"no {EVIL}"),
    ]


def _candidate(strategy: str, seed: int, index: int, rows: Any, **rest: Any) -> Candidate:
    networks = _networks()
    forward = {GROUPS[0].name: rows[:, :64], GROUPS[1].name: rows[:, 64:]}
    masks = Masks(networks=networks, groups=GROUPS, forward=forward)
    use = dict(zip(TASKS, masks.use().tolist(), strict=True))
    accuracy = {task: 0.3 + 0.4 * share**0.5 for task, share in use.items()}
    quality = float(np.mean(list(accuracy.values())))
    decoding = Decoding.of(masks)
    if not rest.get("label"):
        decoding = replace(
            decoding,
            target=dict(decoding.realised),
            deviation={group.name: 3.0 for group in GROUPS},
            bound={group.name: 2.0 for group in GROUPS},
            proven=False,
        )
    counted = costs(use, relative_macs=0.2 + 0.8 * masks.mean_use())
    low = Measurement(steps=100, quality=quality - 0.05, accuracy=accuracy, seconds=1.0)
    return Candidate(
        strategy=strategy, seed=seed, index=index, vector=(), names=(), quality=quality,
        cost=counted.relative_macs, decoding=decoding, costs=counted,
        rungs=(low, replace(low, steps=300, quality=quality, evaluator="10.0.0.1:7")), **rest,
    )  # fmt: skip


@functools.cache
def _networks() -> tuple[VirtualNetwork, ...]:
    return tuple(VirtualNetwork(task=task) for task in TASKS)


def _training(candidate: str, seed: int) -> Training:
    accuracy = {split: dict.fromkeys(TASKS, 0.7) for split in ("validation", "test")}
    points = [
        Point(
            step=step, when=1.7e9, loss={TASKS[0]: 1.0}, learning_rate=0.1, images_per_second=1.0,
            accuracy=dict.fromkeys(TASKS, 0.1 + 0.01 * step),
        )
        for step in (10, 30, 60)
    ]  # fmt: skip
    return Training(
        candidate=candidate, seed=seed, settings="5f3a", accuracy=accuracy, points=points
    )
