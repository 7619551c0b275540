"""Backbone families: a trunk whose weights every task shares, and a tail that is partitioned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from partitioning import ChannelGroup
from trainers.backbones.resnet import (
    BLOCKS,
    BackboneConfig,
    ResNetTail,
    ResNetTrunk,
    channel_groups,
)

__all__ = ["BACKBONES", "Backbone", "BackboneConfig", "channel_groups"]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The builders of a family.

    Attributes:
        trunk: (config, rows=, generator=) -> module, (images, row) to trunk features.
        tail: (config, masks, generator=) -> module, (trunk features, row) to the block outputs.
        groups: (config, stream=) -> the channel groups of the tail.
    """

    trunk: Callable[..., Any]
    tail: Callable[..., Any]
    groups: Callable[..., tuple[ChannelGroup, ...]]


#: Every backbone by the name that the config uses. A new family is one file and one line.
BACKBONES: dict[str, Backbone] = {
    name: Backbone(trunk=ResNetTrunk, tail=ResNetTail, groups=channel_groups) for name in BLOCKS
}
