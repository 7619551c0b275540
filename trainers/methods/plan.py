"""What a method trains, in which order: networks that share weights, and phases of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partitioning import ChannelGroup, IntArray, Masks, VirtualNetwork, virtual_masks
from partitioning.settings import Rule
from trainers.methods.networks import Part
from trainers.networks import Backbone

#: What a phase may train: all weights that its rows use; of those, what no row of a phase before
#: has used; or no shared weight and no norm, but heads and the layers before them.
CHANGES = ("all", "new", "head")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One run of SGD.

    Attributes:
        part: Name of the part.
        rows: Rows of it that learn from the labels of their own tasks.
        distilled: Rows of earlier tasks, which shall give for these images what the highest of
            their task's gave before the phase (Kim et al. 2019, eq. 6).
        changes: One of `CHANGES`.
        keep: Share of the weights that are nobody's yet which the row, there is one, keeps; the
            others are pruned when `prune_at` of the steps are done. None prunes nothing.
        prune_at: In (0, 1).
        inherits: By row, an earlier one whose norms it begins with.
        steps: How many, as a share of the training's.
    """

    part: str
    rows: tuple[int, ...]
    distilled: tuple[int, ...] = ()
    changes: str = "all"
    keep: float | None = None
    prune_at: float = 0.7
    inherits: Mapping[int, int] | None = None
    steps: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a method trains.

    Attributes:
        parts: By name. Every virtual network is a row of one of them.
        phases: In order.
        surgery: How the tasks' gradients of shared weights become one, by the name that
            `torchjd.aggregation` gives it; None adds them up.
    """

    parts: Mapping[str, Part]
    phases: tuple[Phase, ...]
    surgery: str | None = None

    def steps(self, whole: int) -> tuple[int, ...]:
        """Steps of every phase, where a whole one has so many.

        Raises:
            ValueError: A phase would have none.
        """
        found = tuple(round(phase.steps * whole) for phase in self.phases)
        if min(found) < 1:
            least = min(phase.steps for phase in self.phases)
            raise ValueError(
                f"{whole} steps (train.sgd.steps) are too few for {len(found)} phases, of which "
                f"one would have none: its share of them is {least:.3g}"
            )
        return found

    @property
    def places(self) -> dict[VirtualNetwork, tuple[str, int]]:
        """Part and row of every virtual network, by task and level."""
        found = {
            network: (name, row)
            for name, part in self.parts.items()
            for row, network in enumerate(part.masks.networks)
        }
        tasks = list(dict.fromkeys(network.task for network in found))
        key = sorted(found, key=lambda network: (tasks.index(network.task), network.level))
        return {network: found[network] for network in key}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a method is given.

    Attributes:
        tasks: Their names, in their order.
        backbone: The network.
        seed: Of the training.
        masks: Reads the masks that a setting names.
    """

    tasks: tuple[str, ...]
    backbone: Backbone
    seed: int
    masks: Callable[[str], Masks]

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """Of channels that masks divide."""
        return self.backbone.groups


@dataclass(frozen=True, kw_only=True)
class Method:
    """An entry of the registry.

    Attributes:
        settings: Frozen dataclass of its settings, every one with a default.
        build: Makes its plan.
        summary: One line for the command line's help.
    """

    settings: type[Any]
    build: Callable[[Problem, Any], Plan]
    summary: str


SHARES_OF_UNITS = Rule(
    words="shares above 0, 1 in all (within .001)",
    holds=lambda shares, own: (
        shares is None or (len(shares) > 0 and min(shares) > 0 and abs(sum(shares) - 1) <= 1e-3)
    ),
)


def undivided(problem: Problem, tasks: Sequence[str] | None = None) -> Masks:
    """A row for each task, which uses everything."""
    return unit_rows(problem, np.ones((len(tasks or problem.tasks), 1), dtype=int), (1.0,), tasks)


def unit_rows(
    problem: Problem,
    counts_TL: IntArray,
    shares: Sequence[float],
    tasks: Sequence[str] | None = None,
) -> Masks:
    """Rows that use the first units, in the order in which they lie.

    Args:
        problem: The groups.
        counts_TL: Units of every task's levels.
        shares: Of the channels for each unit.
        tasks: Those of the problem if None.
    """
    names = problem.tasks if tasks is None else tuple(tasks)
    order_TU = np.tile(np.arange(len(shares)), (len(names), 1))
    return virtual_masks(names, problem.groups, counts_TL, order_TU=order_TU, shares=shares)


def shares_of(units: int, given: Sequence[float] | None = None) -> tuple[float, ...]:
    """The units' shares of the channels: those that are given, 1 in all, or equal ones."""
    return (1 / units,) * units if given is None else tuple(s / sum(given) for s in given)


def given_masks(problem: Problem, where: str) -> Masks:
    """The masks that a setting names.

    Raises:
        ValueError: They are for other tasks, or have backward masks.
    """
    masks = problem.masks(where)
    if masks.tasks != problem.tasks:
        raise ValueError(
            f"masks: those of {where} are for the tasks {', '.join(masks.tasks)}, not "
            f"{', '.join(problem.tasks)}"
        )
    if masks.backward is not None:
        raise ValueError(
            f"masks: those of {where} say what each task may change (backward masks), and methods "
            "let every task change what it uses"
        )
    return masks


def all_together(part: Part, surgery: str | None = None) -> Plan:
    """A plan of one phase, in which all rows of one part are trained."""
    rows = tuple(range(len(part.masks.networks)))
    phases = (Phase(part="all", rows=rows),)
    return Plan(parts={"all": part}, phases=phases, surgery=surgery)


def one_after_another(masks: Masks, phase: Callable[[int, tuple[int, ...]], Phase]) -> Plan:
    """A plan with a phase for every task.

    Args:
        masks: Of all rows.
        phase: Makes a phase of a task's position and its rows.
    """
    rows = rows_by_task(masks)
    return Plan(
        parts={"all": Part(masks=masks)},
        phases=tuple(phase(number, rows[task]) for number, task in enumerate(rows)),
    )


def rows_by_task(masks: Masks) -> dict[str, tuple[int, ...]]:
    """The rows of every task, the lowest level first."""
    rows = sorted(range(len(masks.networks)), key=lambda row: masks.networks[row].level)
    return {
        task: tuple(row for row in rows if masks.networks[row].task == task) for task in masks.tasks
    }
