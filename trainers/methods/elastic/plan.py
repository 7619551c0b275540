"""Plans of networks whose blocks have levels: phases of the networks and the selector in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from partitioning import IntArray, Masks, virtual_masks
from partitioning.settings import POSITIVE, at_least, checked, interval
from trainers.methods.elastic.blocks import can_be_left_out, find_blocks
from trainers.methods.elastic.networks import ElasticPart
from trainers.methods.elastic.run import ElasticPhase
from trainers.methods.plan import Phase, Plan, Problem, shares_of


@dataclass(frozen=True, kw_only=True)
@checked()
class SelectorSettings:
    """The selector, and how networks and selector are trained in turn.

    Attributes:
        stages: How often; the networks' steps are divided among stages.
        selector_steps: Of all stages together, as a share of `train.sgd.steps`.
        selector_rate: Adam's learning rate. The papers have 1e-5, for many thousand steps.
        selector_width: Channels of the selector's first block.
        selector_whole: With how much more probability the selector's first choices are whole
            blocks.
        samples: Models that are drawn for an image in a step of the selector.
        baseline: Whether the mean of an image's other samples is taken off what a model came to;
            the papers take nothing off.
        epsilon: Share of the selector's choices that are drawn uniformly as each stage begins.
    """

    stages: Annotated[int, at_least(1)] = 2
    selector_steps: Annotated[float, POSITIVE] = 0.5
    selector_rate: Annotated[float, POSITIVE] = 1e-3
    selector_width: Annotated[int, at_least(1)] = 16
    selector_whole: Annotated[float, interval("[0, 1)")] = 0.75
    samples: Annotated[int, at_least(1)] = 2
    baseline: bool = True
    epsilon: Annotated[float, interval("[0, 1]")] = 0.2


def elastic_plan(
    problem: Problem,
    settings: SelectorSettings,
    *,
    order_TU: IntArray,
    cost_weights: Sequence[float],
    first: ElasticPhase,
) -> Plan:
    """What is trained: networks as `first` says, the selector, and both again in every stage.

    Args:
        problem: Tasks and network.
        settings: Of the selector.
        order_TU: The order in which every task takes parts of blocks.
        cost_weights: Of the selector's solutions.
        first: What the networks are trained on before there is a selector.

    Raises:
        ValueError: The network has no blocks with channels of their own, or too few of these.
    """
    masks, levels = elastic_masks(problem, order_TU, solutions=len(cost_weights))
    part = ElasticPart(
        masks=masks,
        levels=levels,
        cost_weights=tuple(cost_weights),
        width=settings.selector_width,
        tau=settings.selector_whole,
    )
    fixed, chosen = (
        tuple(
            row
            for row, network in enumerate(masks.networks)
            if (network.level < levels) == is_fixed
        )
        for is_fixed in (True, False)
    )
    networks = replace(first, rows=fixed, steps=1 / settings.stages)
    selector = ElasticPhase(
        part="all",
        rows=chosen,
        steps=settings.selector_steps / settings.stages,
        trains="selector",
        samples=settings.samples,
        baseline=settings.baseline,
        rate=settings.selector_rate,
        epsilon=settings.epsilon,
    )
    phases: list[Phase] = [networks, selector]
    for _ in range(1, settings.stages):
        phases += [replace(networks, draw="selector"), selector]
    return Plan(parts={"all": part}, phases=tuple(phases))


def elastic_masks(problem: Problem, order_TU: IntArray, solutions: int) -> tuple[Masks, int]:
    """Rows of every task: its fixed levels, then all channels for each solution.

    Args:
        problem: Tasks and network.
        order_TU: The order in which every task takes the U parts of blocks.
        solutions: That are chosen for an image.

    Returns:
        The masks, and how many levels are fixed.

    Raises:
        ValueError: There is one level.
    """
    blocks = find_blocks(problem.backbone)
    least = 0 if can_be_left_out(problem.backbone, blocks) else 1
    units = order_TU.shape[1]
    counts = [*range(least, units + 1)]
    if len(counts) < 2:
        raise ValueError(
            f"groups must be at least 2 where blocks do not lie beside shortcuts, got {units}: "
            "there would be nothing to choose"
        )
    own = {name for block in blocks for name in block.groups}
    divided = virtual_masks(
        problem.tasks,
        [group for group in problem.groups if group.name in own],
        [counts + [units] * solutions] * len(problem.tasks),
        order_TU=order_TU,
        shares=shares_of(units),
    )
    rows = len(divided.networks)
    masks = Masks(
        networks=divided.networks,
        groups=problem.groups,
        forward={
            group.name: divided.forward.get(group.name, np.ones((rows, group.width), dtype=bool))
            for group in problem.groups
        },
    )
    return masks, len(counts)
