"""Points of a front that a user means: quality at given costs, and cost at given qualities.

Legend of shapes: F members of an arm's front, N seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from partitioning import FloatArray
from search.candidates import SHARE_ALL, Candidate, scored

#: Costs, as shares of the way from the least possible to that of sharing every channel.
SHARES = (0.1, 0.25, 0.5, 0.75)
#: Of these, the ones at the cheap end.
CHEAP = (0.1, 0.25)
#: Qualities, as shares of that of sharing every channel.
PARTS = (1.0, 0.99, 0.95)
#: Costs and qualities that differ by less are the same.
SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where fronts are held against each other.

    Attributes:
        of: What is compared there: quality (at a given cost) or cost (at a given quality).
        share: Of `SHARES` where quality is compared, of `PARTS` where cost is.
        at: The given cost or quality, by seed.
        otherwise: What an arm has without a candidate so cheap or so good: the quality of
            guessing, or the cost of sharing every channel.
    """

    of: Literal["quality", "cost"]
    share: float
    at: Mapping[int, float]
    otherwise: float

    @property
    def key(self) -> str:
        """A column's name, such as quality_at_cost_10 or cost_at_quality_99."""
        given = "cost" if self.of == "quality" else "quality"
        return f"{self.of}_at_{given}_{100 * self.share:.0f}"

    @property
    def heading(self) -> str:
        """The same for a reader, such as "quality at 10 %" or "cost for 99 %"."""
        return f"{self.of} {'at' if self.of == 'quality' else 'for'} {100 * self.share:.0f} %"

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.of == "quality" else -1

    def value(self, front_F2: FloatArray, seed: int) -> float:
        """What an arm has there.

        Args:
            front_F2: Cost and quality of the members of its front.
            seed: The arm's.
        """
        cost_F, quality_F = front_F2.T
        if self.of == "quality":
            return float(np.max(quality_F[cost_F <= self.at[seed] + SAME], initial=self.otherwise))
        return float(np.min(cost_F[quality_F >= self.at[seed] - SAME], initial=self.otherwise))


def front_points(
    seeds: Sequence[int],
    *,
    floor: float,
    costs: tuple[float, float],
    share_all: Mapping[int, float],
) -> tuple[Point, ...]:
    """The points at which fronts are compared, from the cheapest.

    Args:
        seeds: N seeds.
        floor: Quality of guessing.
        costs: The least possible cost, and that of sharing every channel.
        share_all: Quality of sharing every channel by seed; where one is missing, cost is not
            compared.
    """
    least, most = costs
    found = [
        Point(
            of="quality",
            share=share,
            at=dict.fromkeys(seeds, least + share * (most - least)),
            otherwise=floor,
        )
        for share in SHARES
    ]
    if all(seed in share_all for seed in seeds):
        found += [
            Point(
                of="cost",
                share=part,
                at={seed: part * share_all[seed] for seed in seeds},
                otherwise=most,
            )
            for part in PARTS
        ]
    return tuple(found)


def share_all_quality(candidates: Sequence[Candidate]) -> dict[int, float]:
    """Quality of the baseline that shares every channel, by seed; none where it was not scored."""
    return {
        candidate.seed: float(candidate.quality)
        for candidate in scored(candidates)
        if candidate.label == SHARE_ALL and candidate.quality is not None
    }
