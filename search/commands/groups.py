"""`apportion groups`: what of a network can be divided, and what that is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from trainers.networks import Counter, build_model, cut, find_division


def groups(
    model: str,
    args: Mapping[str, Any],
    weights: Path | None,
    partition: Sequence[str],
    size: int,
) -> dict[str, Any]:
    """What of a network can be divided.

    Args:
        model: As `trainers.networks.build_model` takes it.
        args: For what builds it.
        weights: A file of weights, or None.
        partition: Patterns of the blocks that are divided; none for the last third.
        size: Height and width of its images, in pixels.

    Returns:
        JSON: network, size, blocks, partition (the blocks that are divided), cut (the module whose
        output is the frozen trunk's), features (width of the vector that heads read), parameters
        and macs of the whole network, trunk (its share of the MACs), least (the share of the MACs
        that is left with one unit of every hidden group and of heads, and of streams as well),
        groups (name, kind, units, channels of a unit, parameters and macs that go with it,
        divided or why it is not) and refused (why, by name).

    Raises:
        ValueError: The network cannot be built, traced or cut.
    """
    network = build_model(model, args, weights)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    halves = cut(network, images, partition)
    division = find_division(network, images)
    counter = Counter(network, division, images)
    tail = {each.group.name for each in halves.divisible(division)}

    # Row 0 uses everything; then one without each group; then what uses least.
    rows = [np.ones(division.units, dtype=np.bool_) for _ in range(len(division.groups) + 3)]
    for number, each in enumerate(division.groups, start=1):
        rows[number][each.units] = False
        least = np.arange(each.group.width) == 0
        if each.group.name in tail:
            rows[-1][each.units] = least
            if each.group.kind != "stream":
                rows[-2][each.units] = least
    counts = counter.count(np.stack(rows))
    whole = counts.macs[0]
    return {
        "network": model,
        "size": size,
        "blocks": list(halves.repeated),
        "partition": list(halves.blocks),
        "cut": halves.boundary,
        "features": halves.features,
        "parameters": int(counts.parameters[0]),
        "macs": int(whole),
        "least": {
            "hidden": float(counts.macs[-2] / whole),
            "stream": float(counts.macs[-1] / whole),
        },
        "groups": [
            {
                "name": each.group.name,
                "kind": each.group.kind,
                "units": each.group.width,
                "channels": each.channels,
                "parameters": int(counts.parameters[0] - counts.parameters[number]),
                "macs": int(whole - counts.macs[number]),
                "divided": each.group.name in tail,
            }
            for number, each in enumerate(division.groups, start=1)
        ],
        "refused": dict(division.refused),
    }


def show_groups(found: Mapping[str, Any], console: Console) -> None:
    """Print what `groups` found.

    Args:
        found: By it.
        console: Where to.
    """
    millions = f"{found['parameters'] / 1e6:.2f} million parameters, {found['macs'] / 1e6:.0f}"
    table = Table(
        title=f"{found['network']} at {found['size']} pixels: {millions} million MACs",
        title_justify="left",
    )
    table.add_column("group", no_wrap=True)
    table.add_column("kind")
    for name in ("units", "channels each", "parameters", "MACs"):
        table.add_column(name, justify="right")
    for each in found["groups"]:
        if each["divided"]:
            parameters, macs = (each[what] / found[what] for what in ("parameters", "macs"))
            counts = (str(each["units"]), str(each["channels"]))
            table.add_row(each["name"], each["kind"], *counts, f"{parameters:.1%}", f"{macs:.1%}")
    console.print(table)
    divided, blocks, least = found["partition"], found["blocks"], found["least"]
    before = sum(not each["divided"] for each in found["groups"])
    lines = [
        f"divided: {len(divided)} of {len(blocks)} blocks, from {divided[0]} on; what comes before "
        f"them, up to {found['cut']}, is the trunk that tasks share, with {before} groups more",
        f"with one unit of every group but streams {least['hidden']:.0%} of the MACs are left, "
        f"with one of streams, too, {least['stream']:.0%}",
        *(f"not divided: {name}: {why}" for name, why in found["refused"].items()),
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
