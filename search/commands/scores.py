"""Studies without a score, which must not pass for a success."""

from search.study import Study


class NoScoresError(RuntimeError):
    """Every candidate of a study has failed; the message says why the first did."""


def require_scores(study: Study) -> None:
    """Refuse a study of which every candidate has failed.

    Raises:
        NoScoresError: None has a score.
    """
    candidates = study.candidates()
    if candidates and all(candidate.failed for candidate in candidates):
        first = candidates[0]
        raise NoScoresError(
            f"no candidate of {study.folder} has a score, all {len(candidates)} failed; the first, "
            f"{first.id}: {first.reason}"
        )
