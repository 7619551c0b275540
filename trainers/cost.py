"""What a virtual network costs: channel use, parameters, multiply-accumulates, the union."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from partitioning import Masks
from trainers.backbones import BACKBONES, BackboneConfig
from trainers.masking import MaskedConv
from trainers.network import full_masks


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


@lru_cache(maxsize=8)
def _count_trunk(config: BackboneConfig, input_size: int) -> tuple[int, int, int, int]:
    """Weights, parameters of norms, MACs, and the size of the maps that the tail is given."""
    weights = norms = macs = 0
    size = input_size
    trunk = BACKBONES[config.family].trunk(config, rows=1, generator=None)
    # The convolutions form one chain, shortcuts have none: strides multiply in order.
    for conv in (m for m in trunk.modules() if isinstance(m, MaskedConv)):
        size = -(-size // conv.stride)
        weights += conv.weight.numel()
        norms += 2 * conv.weight.shape[0]
        macs += conv.weight.numel() * size * size
    return weights, norms, macs, size


def _count(
    config: BackboneConfig, masks: Masks, classes: Sequence[int], input_size: int
) -> tuple[list[int], list[int], int]:
    """Parameters and MACs by row, and parameters of the union."""
    rows = len(classes)
    weights, norms, trunk_macs, size = _count_trunk(config, input_size)
    parameters_R = np.full(rows, weights + norms)
    macs_R = np.full(rows, trunk_macs)
    union = weights + rows * norms
    outputs_R = np.zeros(rows, dtype=np.int64)
    for block in BACKBONES[config.family].plan(config):
        inputs_RC, hidden_RC, outputs_RC = (
            masks.forward.get(group or "", np.ones((rows, width), dtype=np.bool_)).astype(np.int64)
            for group, width in zip(
                (block.inputs, block.hidden, block.outputs), block.widths, strict=True
            )
        )
        size = -(-size // block.stride)
        hidden_R, outputs_R = hidden_RC.sum(axis=1), outputs_RC.sum(axis=1)
        for others_RC in (inputs_RC, outputs_RC):
            weights_R = 9 * hidden_R * others_RC.sum(axis=1)
            parameters_R = parameters_R + weights_R
            macs_R = macs_R + weights_R * size * size
            union += 9 * int(np.count_nonzero(hidden_RC.T @ others_RC))
        norms_R = 2 * (hidden_R + outputs_R)
        parameters_R = parameters_R + norms_R
        union += int(norms_R.sum())
    heads_R = (outputs_R + 1) * np.asarray(classes)
    macs_R = macs_R + outputs_R * np.asarray(classes)
    return (parameters_R + heads_R).tolist(), macs_R.tolist(), union + int(heads_R.sum())
