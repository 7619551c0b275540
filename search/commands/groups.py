"""`apportion groups`: what of a network can be divided, and what that is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from search.config import StudyConfig
from search.strategies import TaskKnowledge
from search.study import cost_range
from trainers.networks import BackboneConfig, build_backbone, network_inputs


def groups_of_network(config: BackboneConfig, size: int | None) -> dict[str, Any]:
    """What of a network can be divided.

    Args:
        config: The network.
        size: Height and width of its images, in pixels; None for its own.

    Returns:
        JSON: network, size, blocks, partition (the blocks that are divided), cut (the module whose
        output is the frozen trunk's; "images" where there is none), features (width of the vector
        that heads read), parameters and macs of the whole network without its head, least (the
        share of the macs that is left with one unit of each divided group, and with one of each
        residual stream that could be divided, too), groups (name, kind, units, channels of a unit,
        parameters and macs that go with it, and whether it is divided), and refused (why others
        cannot be, by name).

    Raises:
        ValueError: The network cannot be built, traced, cut or divided.
    """
    size = size or network_inputs(config)[0]
    backbone = build_backbone(config, size)
    division = backbone.division
    divided = {group.name for group in backbone.groups}
    free = {each.group.name for each in backbone.divisible}

    # Row 0 uses everything; then one without each group; then what uses least.
    rows = [np.ones(division.units, dtype=np.bool_) for _ in range(len(division.groups) + 3)]
    for number, each in enumerate(division.groups, start=1):
        rows[number][each.units] = np.arange(each.group.width) == 0
        for row, names in ((-2, divided), (-1, free)):
            if each.group.name in names:
                rows[row][each.units] = np.arange(each.group.width) == 0
    counts = backbone.counter.count(np.stack(rows))
    whole = counts.macs[0]

    def share(of: Any, number: int, width: int) -> int:
        """What a whole group takes, from what all but one of its units do."""
        taken = int(of[0] - of[number])
        return taken if width == 1 else round(taken * width / (width - 1))

    return {
        "network": config.model,
        "size": size,
        "blocks": list(backbone.repeated),
        "partition": [output.name for output in backbone.outputs],
        "cut": backbone.cut_at,
        "features": backbone.features,
        "parameters": int(counts.parameters[0]),
        "macs": int(whole),
        "least": {
            "divided": float(counts.macs[-2] / whole),
            "streams": float(counts.macs[-1] / whole),
        },
        "groups": [
            {
                "name": each.group.name,
                "kind": each.group.kind,
                "units": each.group.width,
                "channels": each.group.channels,
                "parameters": share(counts.parameters, number, each.group.width),
                "macs": share(counts.macs, number, each.group.width),
                "divided": each.group.name in divided,
            }
            for number, each in enumerate(division.groups, start=1)
        ],
        "refused": dict(division.refused),
    }


def groups_of_study(config: StudyConfig) -> dict[str, Any]:
    """The same of a study's network, and `cheapest`: the least cost in its space.

    Raises:
        ValueError: The network cannot be built, traced, cut or divided.
    """
    found = groups_of_network(config.backbone, config.size)
    if config.objective.cost == "latency":  # which nothing has been timed of yet
        config = replace(config, objective=replace(config.objective, cost="macs"))
    least, most = cost_range(config, TaskKnowledge())
    return {**found, "cheapest": {"cost": config.objective.cost, "least": least, "most": most}}


def _shared_prefix(names: Sequence[str]) -> str:
    """The modules that all names begin with, with a point behind; empty where none are."""
    shared = 0
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return "".join(f"{part}." for part in names[0].split(".")[:shared]) if shared else ""


def show_groups(found: Mapping[str, Any], console: Console) -> None:
    """Print what `groups_of_network` or `groups_of_study` found.

    Args:
        found: By one of them.
        console: Where to.
    """
    divided = [each for each in found["groups"] if each["divided"]]
    prefix = _shared_prefix([each["name"] for each in divided])
    millions = f"{found['parameters'] / 1e6:.2f} million parameters, {found['macs'] / 1e6:.0f}"
    title = f"{found['network']} at {found['size']} pixels: {millions} million MACs (no head)"
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    table = Table()
    table.add_column(f"group ({prefix}*)" if prefix else "group", overflow="fold")
    table.add_column("kind")
    for name in ("units", "parameters", "MACs"):
        table.add_column(name, justify="right")
    for each in divided:
        parameters, macs = (each[what] / found[what] for what in ("parameters", "macs"))
        units = f"{each['units']}" + (f" x {each['channels']}" if each["channels"] > 1 else "")
        name = each["name"].removeprefix(prefix)
        table.add_row(name, each["kind"], units, f"{parameters:.1%}", f"{macs:.1%}")
    console.print(table)
    blocks, least = found["partition"], found["least"]
    others = sum(not each["divided"] for each in found["groups"])
    before = (
        "nothing is frozen"
        if found["cut"] == "images"
        else f"what comes before, up to {found['cut']}, is the frozen trunk that tasks share"
    )
    lines = [
        f"divided: {len(blocks)} blocks ({len(found['blocks'])} are repeated), from {blocks[0]} "
        f"on; {before}; groups that are not divided: {others}",
        f"with one unit of every divided group {least['divided']:.0%} of the MACs are left"
        + (
            f"; with one of its residual streams, too (backbone.stream), {least['streams']:.0%}"
            if least["streams"] < least["divided"]
            else ""
        ),
    ]
    if "cheapest" in found:
        cheapest = found["cheapest"]
        lines.append(
            f"the study's space has costs ({cheapest['cost']}) from {cheapest['least']:.2f} to "
            f"{cheapest['most']:.2f}"
        )
    lines += [f"not divided: {name}: {why}" for name, why in found["refused"].items()]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
