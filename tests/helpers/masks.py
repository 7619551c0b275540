"""Masks drawn at random."""

import numpy as np

from partitioning import ChannelGroup, Masks, VirtualNetwork


def random_masks(
    groups: tuple[ChannelGroup, ...],
    tasks: tuple[str, ...],
    seed: int,
    *,
    use: float = 0.5,
    backward: bool = False,
) -> Masks:
    """Masks in which every channel joins every task with probability `use`."""
    rng = np.random.default_rng(seed)
    forward = {g.name: rng.random((len(tasks), g.width)) < use for g in groups}
    return Masks(
        networks=tuple(VirtualNetwork(task=name) for name in tasks),
        groups=groups,
        forward=forward,
        backward={k: v & (rng.random(v.shape) < 0.5) for k, v in forward.items()}
        if backward
        else None,
    )


def full_masks(groups: tuple[ChannelGroup, ...], tasks: tuple[str, ...]) -> Masks:
    """Masks that mask nothing."""
    return random_masks(groups, tasks, 0, use=1.1)
