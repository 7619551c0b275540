"""What a virtual network costs: channel use, parameters, multiply-accumulates, the union."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partitioning import Masks
from trainers.networks import Backbone, Counts


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of the virtual networks of one set of masks.

    Attributes:
        use: Share of the divided channels, by virtual network, in [0, 1].
        parameters: Weights of the compact network (trunk, tail, norms and head), by network.
        macs: Multiply-accumulates of the compact network for one image, by network.
        union_parameters: Weights of one network that holds them all: shared weights once, norms
            and heads of every network.
        mean_use: Mean of `use`.
        relative_parameters: Mean of `parameters` over that of the same networks without masks.
        relative_macs: Mean of `macs` over that of the same networks without masks.
        relative_union: `union_parameters` over those of the same networks without masks.
        relative_latency: Mean time over that of the network without masks, where a study measures
            it (`trainers.export.LatencyTable`).
    """

    use: dict[str, float]
    parameters: dict[str, int]
    macs: dict[str, int]
    union_parameters: int
    mean_use: float
    relative_parameters: float
    relative_macs: float
    relative_union: float
    relative_latency: float | None = None


def costs(backbone: Backbone, masks: Masks, classes: Sequence[int]) -> Costs:
    """Count what each virtual network costs.

    Args:
        backbone: The network.
        masks: Of its groups.
        classes: Number of classes of each row's head.

    Raises:
        BackboneError: The masks are of another network.
    """
    kept_RU = backbone.kept(masks)
    found = _with_heads(backbone, backbone.counter.count(kept_RU), kept_RU, classes)
    full = _full(backbone, tuple(classes))
    names = [str(network) for network in masks.networks]
    use = masks.use()
    return Costs(
        use=dict(zip(names, map(float, use), strict=True)),
        parameters=dict(zip(names, found.parameters.tolist(), strict=True)),
        macs=dict(zip(names, found.macs.tolist(), strict=True)),
        union_parameters=found.union,
        mean_use=float(use.mean()),
        relative_parameters=float(found.parameters.mean() / full.parameters.mean()),
        relative_macs=float(found.macs.mean() / full.macs.mean()),
        relative_union=found.union / full.union,
    )


@functools.lru_cache(maxsize=8)
def _full(backbone: Backbone, classes: tuple[int, ...]) -> Counts:
    kept_RU = np.ones((len(classes), backbone.division.units), dtype=np.bool_)
    return _with_heads(backbone, backbone.counter.count(kept_RU), kept_RU, classes)


def _with_heads(
    backbone: Backbone, counts: Counts, kept_RU: NDArray[np.bool_], classes: Sequence[int]
) -> Counts:
    """Counts with a head for every row."""
    inputs_R = backbone.read_by_head(kept_RU)
    weights_R = inputs_R * np.asarray(classes)
    return Counts(
        parameters=counts.parameters + weights_R + np.asarray(classes),
        macs=counts.macs + weights_R,
        union=counts.union + int(weights_R.sum()) + sum(classes),
    )
