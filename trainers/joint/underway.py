"""What a full training says on its way, and what is kept of it to go on from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partitioning import DamagedFileError, write_json
from trainers.tensor_files import load_arrays, save_arrays


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a training's curve.

    Attributes:
        step: Steps done.
        when: Unix seconds.
        loss: Mean since the point before, in nats, by virtual network that was drawn.
        accuracy: On validation images, by virtual network; empty where it was not measured.
        learning_rate: Of the step before.
        images_per_second: Trained on since the point before.
    """

    step: int
    when: float
    loss: Mapping[str, float]
    accuracy: Mapping[str, float]
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Underway:
    """Where a training keeps what is under way, and says how far it is.

    Attributes:
        path: Of the file that it goes on from; deleted by whoever keeps its result.
        digest: Of all that decides the training; a file of another is passed over.
        progress: A JSON file: step, steps, loss, seconds and points.
        every: Seconds after which it is kept; 0 keeps every step.
    """

    path: Path
    digest: str
    progress: Path
    every: float = 20.0


@dataclass
class Known:
    """What is known of a training so far, beside its networks."""

    step: int = 0
    seconds: float = 0.0
    points: list[Point] = field(default_factory=list)
    best: float = -1.0
    best_step: int = 0
    best_accuracy: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    sums: dict[int, tuple[float, int]] = field(default_factory=dict)
    measured: float = 0.0


def say_progress(path: Path, known: Known, steps: int) -> None:
    """Write how far a training is, in full or not at all."""
    last = known.points[-1]
    losses = list(last.loss.values())
    found = {
        "step": known.step,
        "steps": steps,
        "loss": sum(losses) / len(losses) if losses else float("nan"),
        "seconds": known.seconds,
        "points": [asdict(point) for point in known.points],
    }
    write_json(path, found)


def points_of(found: Sequence[Mapping[str, Any]]) -> tuple[Point, ...]:
    """Points from JSON."""
    return tuple(Point(**point) for point in found)


def save_underway(
    where: Underway, known: Known, turns: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Keep what is under way, in full or not at all."""
    about = {
        "digest": where.digest,
        "turns": json.dumps(turns),
        "known": json.dumps(asdict(known)),
    }
    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_arrays({name: tensor.numpy() for name, tensor in arrays.items()}, where.path, about)


def load_underway(where: Underway) -> tuple[Known, dict[str, Any], dict[str, Tensor]] | None:
    """What `save_underway` kept; None where there is none, a damaged one, or another's."""
    try:
        arrays, about = load_arrays(where.path, where.digest)
    except (FileNotFoundError, DamagedFileError):
        return None
    found = json.loads(about["known"])
    found["points"] = list(points_of(found["points"]))
    found["sums"] = {int(row): tuple(sums) for row, sums in found["sums"].items()}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Known(**found), json.loads(about["turns"]), tensors
