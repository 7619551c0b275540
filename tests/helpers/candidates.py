"""What candidates are made of: decodings, measurements and costs of tasks by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from partitioning import ChannelGroup, Masks, VirtualNetwork
from search.candidates import Decoding, Measurement
from trainers.cost import Costs


def whole_masks(tasks: Sequence[str], width: int = 4) -> Masks:
    """Masks of one group under which every task uses every channel."""
    return Masks(
        networks=tuple(VirtualNetwork(task=task) for task in tasks),
        groups=(ChannelGroup(name="block0", width=width),),
        forward={"block0": np.ones((len(tasks), width), dtype=np.bool_)},
    )


def decoding(
    tasks: Sequence[str],
    realised: Mapping[str, Sequence[Sequence[float]]] | None = None,
    **rest: Any,
) -> Decoding:
    """A decoding that claims any realised P, whatever its masks are."""
    masks = whole_masks(tasks)
    matrices = {"block0": masks.realised("block0").tolist()} if realised is None else realised
    kept = {name: tuple(map(tuple, matrix)) for name, matrix in matrices.items()}
    return Decoding(masks=masks, realised=kept, **rest)


def measurement(
    quality: float | None, accuracy: Mapping[str, float] | None = None, **rest: Any
) -> Measurement:
    """What one scoring said."""
    return Measurement(**{"steps": 100, "quality": quality, "accuracy": accuracy or {}} | rest)


def costs(use: Mapping[str, float], **rest: Any) -> Costs:
    """Costs of tasks that use so much; the other costs are alike for all."""
    counted: dict[str, Any] = {
        "use": dict(use),
        "parameters": dict.fromkeys(use, 1000),
        "macs": dict.fromkeys(use, 5000),
        "union_parameters": 3000,
        "mean_use": float(np.mean(list(use.values()))),
        "relative_parameters": 0.5,
        "relative_macs": 0.5,
        "relative_union": 0.5,
    }
    return Costs(**counted | rest)
