"""What is kept of a phase: its networks, what was measured, and of one under way the optimiser."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.methods.networks import SharedNetworks
from trainers.tensor_files import load_arrays, save_arrays


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a training's curve.

    Attributes:
        step: Steps done, over all phases.
        loss: Mean since the point before, by virtual network, of those that learnt.
    """

    step: int
    loss: Mapping[str, float]


@dataclass
class Kept:
    """What is known of a phase, or of the part of one that is done."""

    seconds: float = 0.0
    curve: list[Point] = field(default_factory=list)
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    choices: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


def save_phase(
    path: Path,
    digest: str,
    name: str,
    part: SharedNetworks,
    rows: Sequence[int],
    kept: Kept,
    more: Mapping[str, Tensor] | None = None,
    about: Mapping[str, str] | None = None,
) -> None:
    """Write what a phase has trained, or has trained so far, in full or not at all.

    Args:
        path: The file.
        digest: Of all that decides it.
        name: Of the part.
        part: Its networks.
        rows: Those that have been trained by then: what other tasks begin with is not decided by
            the digest.
        kept: What was measured.
        more: Other tensors by name.
        about: Other texts by name.
    """
    arrays = {f"state/{name}/{key}": tensor for key, tensor in part.state(rows).items()}
    arrays |= {key: tensor.detach().cpu().contiguous() for key, tensor in (more or {}).items()}
    metadata = {
        "digest": digest,
        "seconds": repr(kept.seconds),
        "curve": json.dumps([[point.step, dict(point.loss)] for point in kept.curve]),
        "accuracy": json.dumps(kept.accuracy),
        "choices": json.dumps(kept.choices),
        **(about or {}),
    }
    save_arrays({key: tensor.numpy() for key, tensor in arrays.items()}, path, metadata)


def load_phase(
    path: Path, digest: str, networks: Mapping[str, SharedNetworks]
) -> tuple[Kept, dict[str, Tensor], dict[str, str]]:
    """Take what `save_phase` wrote into networks.

    Args:
        path: The file.
        digest: What it must have been written with.
        networks: By part.

    Returns:
        What was measured, all tensors, and all texts.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is not what was written.
    """
    arrays, about = load_arrays(path, digest)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    states = {name: tensor for name, tensor in tensors.items() if name.startswith("state/")}
    load_parts(networks, {name.removeprefix("state/"): t for name, t in states.items()})
    curve = [Point(step=step, loss=loss) for step, loss in json.loads(about["curve"])]
    kept = Kept(
        seconds=float(about["seconds"]),
        curve=curve,
        accuracy=json.loads(about["accuracy"]),
        choices=json.loads(about["choices"]),
    )
    return kept, tensors, about


def load_parts(networks: Mapping[str, SharedNetworks], state: Mapping[str, Tensor]) -> None:
    """Take tensors by "<part>/<name>" into networks; parts that have none stay as they are."""
    for part, own in networks.items():
        at = len(f"{part}/")
        found = {n[at:]: tensor for n, tensor in state.items() if n.startswith(f"{part}/")}
        if found:
            own.load(found)
