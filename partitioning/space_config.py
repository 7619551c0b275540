"""What is searched: the settings of every kind of space."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Annotated

from partitioning.settings import Rule, Unit, at_least, checked, one_of

# How far a share of the units may be from a whole number of them, in units.
WHOLE = 1e-6

#: Kinds of spaces, with the settings that each has beside its kind and `use`.
SETTINGS: dict[str, frozenset[str]] = {
    "sharing": frozenset({"per_group", "backward", "overlap"}),
    "unit_order": frozenset({"per_group", "units", "levels"}),
    "block_level": frozenset({"units", "levels"}),
}


def _shares(bounds: tuple[float, float]) -> bool:
    return len(bounds) == 2 and 0 <= bounds[0] <= bounds[1] <= 1


def _ascend_to_1(levels: tuple[float, ...]) -> bool:
    ascending = all(lower < upper for lower, upper in pairwise(levels))
    return bool(levels) and ascending and levels[0] > 0 and levels[-1] == 1


SHARES = Rule(
    words="[lowest, highest] with 0 <= lowest <= highest <= 1",
    holds=lambda bounds, own: _shares(bounds),
)
LEVELS = Rule(
    words="shares above 0 that ascend to 1", holds=lambda levels, own: _ascend_to_1(levels)
)


@dataclass(frozen=True, kw_only=True)
@checked("space.{field}")
class SpaceConfig:
    """What is searched.

    Attributes:
        kind: sharing (P, from which masks are solved), unit_order (an order of units for every
            task, which uses the first of them) or block_level (how many units, of one order for
            all, every task uses in every block).
        per_group: Of sharing, one P per channel group instead of one for all; of unit_order, one
            order and use. A block_level space always decides for every group.
        backward: Of sharing, search backward masks, too: which of its channels' weights a task may
            change.
        use: Lowest and highest fraction of the channels that a task uses. Of sharing, raw P on the
            diagonal. Of the others, bounds of the share of the units; with a lowest of 0 a task may
            skip a block (but no residual stream).
        overlap: Of sharing, lowest and highest raw P off the diagonal, where 0 is the least and 1
            the most that a pair of tasks can share given what each uses.
        units: Of unit_order and block_level, how many equal parts the channels of every group are
            split into.
        multiple_of: Masks are made in runs of units that have a multiple of so many channels, such
            as 8, which processors like; the last run of a group has what is left.
        levels: Of unit_order and block_level, the virtual networks of every task: the share of the
            task's units that each uses, rounded to whole units, one at least.
    """

    kind: Annotated[str, one_of(SETTINGS)] = "sharing"
    per_group: bool = False
    backward: bool = False
    use: Annotated[tuple[float, float], SHARES] = (0.05, 1.0)
    overlap: Annotated[tuple[float, float], SHARES] = (0.0, 1.0)
    units: Annotated[int, at_least(1)] = 4
    multiple_of: Annotated[int, at_least(1), Unit("channels")] = 1
    levels: Annotated[tuple[float, ...], LEVELS] = (1.0,)

    def _check(self) -> None:
        """Refuses other kinds' settings, and bounds that leave nothing to search."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            owners = [kind for kind, own in SETTINGS.items() if entry.name in own]
            if owners and self.kind not in owners and value != entry.default:
                raise ValueError(
                    f"space.{entry.name} is a setting of {' and '.join(owners)}, which a space of "
                    f"kind {self.kind} does not have; got {value}"
                )
        if self.use[1] == 0:
            raise ValueError("space.use must leave tasks some channels, got [0, 0]")
        self._check_units()

    def _check_units(self) -> None:
        lowest, highest = self.unit_range
        if "units" in SETTINGS[self.kind] and max(lowest, 1) > highest:
            raise ValueError(
                f"space.use must leave tasks a whole number of the {self.units} units, from 1; got "
                f"{list(self.use)}"
            )

    @property
    def unit_range(self) -> tuple[int, int]:
        """The fewest and the most units that a task's highest level uses."""
        lowest, highest = (share * self.units for share in self.use)
        return math.ceil(lowest - WHOLE), math.floor(highest + WHOLE)
