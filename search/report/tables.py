"""A study in numbers: the front as a table and the summary that `apportion front` prints."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search.candidates import (
    REFERENCE,
    Candidate,
    Utilisation,
    front,
    scored,
    study_hypervolume,
)

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd

#: Costs that stand beside the one that a study makes small.
SHARES = ("macs", "parameters", "union", "use")


def front_table(
    candidates: Sequence[Candidate], reference: tuple[float, float] = REFERENCE
) -> "pd.DataFrame":
    """All candidates that were scored, members of the front first, from cheap to dear.

    Args:
        candidates: of a study, in any order; failed and stopped ones are left out.
        reference: quality and cost of the hypervolume's reference point.

    Returns:
        A row each: candidate, strategy, seed, label (of a baseline, else empty), quality, cost,
        cost/macs, cost/parameters, cost/union and cost/use (relative to sharing every channel; NaN
        where they are not known), accuracy/<task> for every task, contribution (the hypervolume
        that the front would lose with it) and on_front.
    """
    import pandas as pd

    members = front(candidates)
    ids = {member.id for member in members}
    volume = study_hypervolume(members, reference)
    tasks = list(dict.fromkeys(task for c in candidates for task in c.accuracy))
    rows = []
    for candidate in scored(candidates):
        lost = 0.0
        if candidate.id in ids:
            others = [member for member in members if member.id != candidate.id]
            lost = volume - study_hypervolume(others, reference)
        rows.append(
            {
                "candidate": candidate.id,
                "strategy": candidate.strategy,
                "seed": candidate.seed,
                "label": candidate.label or "",
                "quality": candidate.quality,
                "cost": candidate.cost,
                **{f"cost/{name}": candidate.shares.get(name, math.nan) for name in SHARES},
                **{f"accuracy/{task}": candidate.accuracy.get(task, math.nan) for task in tasks},
                "contribution": lost,
                "on_front": candidate.id in ids,
            }
        )
    columns = ["candidate", "strategy", "seed", "label", "quality", "cost"]
    columns += [f"cost/{name}" for name in SHARES] + [f"accuracy/{task}" for task in tasks]
    columns += ["contribution", "on_front"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(
        ["on_front", "cost", "candidate"], ascending=[False, True, True], ignore_index=True
    )


def summary(
    candidates: Sequence[Candidate],
    reference: tuple[float, float] = REFERENCE,
    used: Utilisation | None = None,
) -> dict[str, Any]:
    """What `apportion front --json` prints.

    Args:
        candidates: of a study, in any order; "candidates" counts all, "stopped" those that did
            not get beyond a lower rung, "repeated" those of a design that was scored already.
        reference: quality and cost of the hypervolume's reference point.
        used: what evaluators did with their time.

    Returns:
        JSON: objectives, reference, hypervolume, candidates, failed, stopped, repeated, evaluators
        (seconds by what they did), strategies
        {name: {candidates, hypervolume}} and front, a list of {candidate, label (of a baseline,
        else null), strategy, seed, quality, cost, costs {macs, parameters, union, use}, accuracy
        {task: value}} from the cheapest to the best.
    """
    strategies = {}
    for name in sorted({candidate.strategy for candidate in candidates}):
        members = [candidate for candidate in candidates if candidate.strategy == name]
        strategies[name] = {
            "candidates": len(members),
            "hypervolume": study_hypervolume(members, reference),
        }
    return {
        "objectives": {"quality": "maximize", "cost": "minimize"},
        "reference": {"quality": float(reference[0]), "cost": float(reference[1])},
        "hypervolume": study_hypervolume(candidates, reference),
        "candidates": len(candidates),
        "failed": sum(candidate.failed for candidate in candidates),
        "stopped": sum(candidate.stopped for candidate in candidates),
        "repeated": sum(candidate.is_repeat for candidate in candidates),
        "evaluators": dict(used or {}),
        "strategies": strategies,
        "front": [
            {
                "candidate": member.id,
                "label": member.label,
                "strategy": member.strategy,
                "seed": member.seed,
                "quality": member.quality,
                "cost": member.cost,
                "costs": dict(member.shares),
                "accuracy": dict(member.accuracy),
            }
            for member in front(candidates)
        ],
    }
