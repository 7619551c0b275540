"""What a virtual network costs: channel use, parameters, multiply-accumulates, the union."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from partitioning import Masks
from trainers.backbones import BackboneConfig
from trainers.masking import MaskedConv
from trainers.network import Network, full_masks


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of the virtual networks of one set of masks.

    Attributes:
        use: Share of the tail's maskable channels, by virtual network, in (0, 1].
        parameters: Weights of the compact network (trunk, tail, norms and head), by network.
        macs: Multiply-accumulates of its convolutions and head for one image, by network.
        union_parameters: Weights of one network that holds them all: shared weights once, norms
            and heads of every network.
        mean_use: Mean of `use`.
        relative_parameters: Mean of `parameters` over that of the same networks without masks.
        relative_macs: Mean of `macs` over that of the same networks without masks.
        relative_union: `union_parameters` over those of the same networks without masks.
    """

    use: dict[str, float]
    parameters: dict[str, int]
    macs: dict[str, int]
    union_parameters: int
    mean_use: float
    relative_parameters: float
    relative_macs: float
    relative_union: float


def costs(
    config: BackboneConfig, masks: Masks, classes: Sequence[int], *, input_size: int
) -> Costs:
    """Count what each virtual network costs.

    Args:
        config: The backbone.
        masks: Masks over the tail's groups.
        classes: Number of classes of each row's head.
        input_size: Height and width of the images in pixels.
    """
    parameters, macs, union = _count(config, masks, classes, input_size)
    names = [str(network) for network in masks.networks]
    full = _count_full(config, tuple(names), tuple(classes), input_size)
    use = masks.use()
    return Costs(
        use=dict(zip(names, map(float, use), strict=True)),
        parameters=dict(zip(names, parameters, strict=True)),
        macs=dict(zip(names, macs, strict=True)),
        union_parameters=union,
        mean_use=float(use.mean()),
        relative_parameters=float(np.mean(parameters) / np.mean(full[0])),
        relative_macs=float(np.mean(macs) / np.mean(full[1])),
        relative_union=union / full[2],
    )


@lru_cache(maxsize=8)
def _count_full(
    config: BackboneConfig, names: tuple[str, ...], classes: tuple[int, ...], input_size: int
) -> tuple[list[int], list[int], int]:
    return _count(config, full_masks(config, names), classes, input_size)


def _count(
    config: BackboneConfig, masks: Masks, classes: Sequence[int], input_size: int
) -> tuple[list[int], list[int], int]:
    """Parameters and MACs by row, and parameters of the union."""
    network = Network(config, masks, classes, generator=None)
    rows = range(len(classes))
    parameters = [0] * len(classes)
    macs = [0] * len(classes)
    union = 0
    size = input_size
    # The convolutions form one chain, shortcuts have none: strides multiply in order.
    for conv in (m for m in network.modules() if isinstance(m, MaskedConv)):
        size = -(-size // conv.stride)
        used = torch.zeros(conv.weight.shape[:2], dtype=torch.bool)
        for row in rows:
            outputs, inputs = conv.channels(row)
            weights = 9 * outputs.count * inputs.count
            norm = 2 * outputs.count
            parameters[row] += weights + norm
            macs[row] += weights * size * size
            union += norm
            used[outputs.index[:, None], inputs.index[None, :]] = True
        union += 9 * int(used.sum())
    for row, count in enumerate(classes):
        features = network.tail.out_channels(row)
        parameters[row] += (features + 1) * count
        macs[row] += features * count
        union += (features + 1) * count
    return parameters, macs, union
