"""Backbone families: a trunk whose weights every task shares, and a tail that is partitioned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from partitioning import ChannelGroup
from trainers.backbones.resnet import (
    BLOCKS,
    BackboneConfig,
    BlockPlan,
    ResNetTail,
    ResNetTrunk,
    channel_groups,
    check_masks,
    tail_plan,
)

__all__ = ["BACKBONES", "Backbone", "BackboneConfig", "BlockPlan", "channel_groups", "check_masks"]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The builders of a family.

    Attributes:
        trunk: (config, rows=, generator=) -> module, (images, row) to trunk features.
        tail: (config, masks, generator=) -> module, (trunk features, row) to the block outputs.
        groups: (config, stream=) -> the channel groups of the tail.
        plan: (config) -> the blocks of the tail, by the groups that meet in them.
    """

    trunk: Callable[..., Any]
    tail: Callable[..., Any]
    groups: Callable[..., tuple[ChannelGroup, ...]]
    plan: Callable[[BackboneConfig], tuple[BlockPlan, ...]]


#: Every backbone by the name that the config uses. A new family is one file and one line.
BACKBONES: dict[str, Backbone] = {
    name: Backbone(trunk=ResNetTrunk, tail=ResNetTail, groups=channel_groups, plan=tail_plan)
    for name in BLOCKS
}
