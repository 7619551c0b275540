"""Which candidate of a study is meant by a name."""

from collections.abc import Callable, Sequence
from pathlib import Path

from search.candidates import Candidate, front, picks_of, scored
from search.config import COSTS
from search.study.shelf import StudyError


def pick_candidate(
    name: str,
    candidates: Sequence[Candidate],
    folder: Path,
    latency: Callable[[Candidate], float],
) -> Candidate:
    """A candidate by name or label, or the best or the knee, of all or of those cheap enough.

    Args:
        name: See `Study.pick`.
        candidates: All of the study.
        folder: Of the study, for messages.
        latency: Of a candidate, relative to sharing every channel.

    Raises:
        StudyError: There is no such candidate, it failed or was stopped at a lower rung, or none
            has been scored.
    """
    found = scored(candidates)
    if not found:
        failed = [f"; {c.id} failed: {c.reason}" for c in candidates if c.failed][:1]
        raise StudyError("".join([f"{folder} has no candidate with a score", *failed]))
    which, limited, limit = name.partition("@")
    if which in ("knee", "best"):
        if limited:
            found = _within(limit, found, folder, latency)
        return picks_of(found)[which]
    for candidate in candidates:
        if name in (candidate.id, candidate.label):
            if candidate.failed:
                raise StudyError(f"candidate {name} failed: {candidate.reason}")
            if candidate.stopped:
                raise StudyError(
                    f"candidate {name} was stopped after {candidate.rungs[-1].steps} steps "
                    "and has no score to be picked by; pick knee, best or one of the front"
                )
            return candidate
    raise StudyError(
        f"{folder} has no candidate {name!r}; pick knee, best, best@0.5 or a name such as "
        f"{', '.join(c.id for c in front(candidates)[:3])}"
    )


def _within(
    limit: str,
    candidates: Sequence[Candidate],
    folder: Path,
    latency: Callable[[Candidate], float],
) -> list[Candidate]:
    """Those that cost no more than a number, or than a cost's name, <= and a number."""
    name, _, number = limit.rpartition("<=")
    try:
        most = float(number)
    except ValueError:
        most = float("nan")
    if name not in ("", *COSTS) or not most > 0:
        raise StudyError(
            f"a limit is a number above 0, or one of {', '.join(COSTS)} with <= and a number, as "
            f"in best@0.5 and best@parameters<=0.5; got {limit!r}"
        )
    of = [latency(one) if name == "latency" else _cost(one, name) for one in candidates]
    kept = [one for one, cost in zip(candidates, of, strict=True) if cost <= most]
    if not kept:
        raise StudyError(
            f"{folder} has no candidate of {name or 'cost'} {most:g} or less; the least is "
            f"{min(of):.3f}"
        )
    return kept


def _cost(candidate: Candidate, name: str) -> float:
    """The cost that the study made small, or that of a name."""
    if not name:
        assert candidate.cost is not None
        return candidate.cost
    if candidate.costs is None:
        raise StudyError(f"{candidate.id} has no cost but the study's own: leave out {name}<=")
    return float(getattr(candidate.costs, COSTS[name].attribute))
