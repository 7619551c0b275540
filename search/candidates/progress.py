"""How far a study has come: its front, and hypervolume candidate by candidate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from search.candidates.candidate import Candidate
from search.candidates.pareto import REFERENCE, hypervolume, knee, non_dominated

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd


def scored(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that were scored to the end: that neither failed nor were stopped at a lower rung.

    They alone can be compared with each other.
    """
    return [candidate for candidate in candidates if not (candidate.failed or candidate.stopped)]


def coordinates(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Cost and quality of N candidates, (N, 2)."""
    return np.array([(c.cost, c.quality) for c in candidates], dtype=np.float64).reshape(-1, 2)


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other dominates, from the cheapest to the best; of equal designs the first."""
    found = scored(candidates)
    cost_N, quality_N = coordinates(found).T
    on_N = non_dominated(quality_N, cost_N)
    members = [candidate for candidate, on in zip(found, on_N, strict=True) if on]
    designs: dict[tuple[float | None, float | None], list[Candidate]] = {}
    for member in sorted(members, key=lambda c: (c.cost, c.strategy, c.seed, c.index)):
        equals = designs.setdefault((member.cost, member.quality), [])
        if not any(_same_masks(member, other) for other in equals):
            equals.append(member)
    return [member for equals in designs.values() for member in equals]


def picks_of(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """The front's bend as "knee" and its highest quality as "best"; nothing without a score."""
    found = scored(candidates)
    if not found:
        return {}
    cost_N, quality_N = coordinates(found).T
    return {"knee": found[knee(quality_N, cost_N)], "best": front(found)[-1]}


def _same_masks(a: Candidate, b: Candidate) -> bool:
    return a.decoding is not None and b.decoding is not None and a.masks == b.masks


def study_hypervolume(
    candidates: Sequence[Candidate], reference: tuple[float, float] = REFERENCE
) -> float:
    """Hypervolume of all candidates together."""
    cost_N, quality_N = coordinates(scored(candidates)).T
    return hypervolume(quality_N, cost_N, reference)


def history(
    candidates: Sequence[Candidate],
    reference: tuple[float, float] = REFERENCE,
    *,
    by: Literal["finished", "index"] = "finished",
) -> "pd.DataFrame":
    """What was known after each candidate.

    Args:
        candidates: N candidates in any order.
        reference: quality and cost of the hypervolume's reference point.
        by: their order: that of finishing, or, within an arm, that of asking.

    Returns:
        N rows: candidates (1 to N), failed, stopped, hypervolume, front_size, best_quality
        (NaN before there is one) and finished (unix seconds).
    """
    import pandas as pd

    rows = []
    members: list[Candidate] = []  # the front so far
    front_F2 = np.empty((0, 2))  # its cost and quality
    volume, failed, stopped = 0.0, 0, 0
    ordered = sorted(candidates, key=lambda c: (getattr(c, by), c.strategy, c.seed, c.index))
    for count, candidate in enumerate(ordered, start=1):
        failed += candidate.failed
        stopped += candidate.stopped
        if scored([candidate]):
            joined_G2 = np.concatenate([front_F2, coordinates([candidate])])
            on_G = non_dominated(joined_G2[:, 1], joined_G2[:, 0])
            if on_G[-1]:
                members = front([*members, candidate])
                front_F2 = coordinates(members)
                volume = hypervolume(front_F2[:, 1], front_F2[:, 0], reference)
        rows.append(
            {
                "candidates": count,
                "failed": failed,
                "stopped": stopped,
                "hypervolume": volume,
                "front_size": len(front_F2),
                "best_quality": front_F2[:, 1].max() if len(front_F2) else np.nan,
                "finished": candidate.finished,
            }
        )
    columns = ["candidates", "failed", "stopped", "hypervolume", "front_size"]
    columns += ["best_quality", "finished"]
    return pd.DataFrame(rows, columns=columns)
