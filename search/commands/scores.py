"""Studies without a score, which must not pass for a success."""

from search.candidates import scored
from search.study import Study


class NoScoresError(RuntimeError):
    """Every candidate of a study has failed; the message says why the first did."""


def require_scores(study: Study) -> None:
    """Refuse a study of which every candidate has failed, but for those stopped at a lower rung.

    Raises:
        NoScoresError: None has a score.
    """
    candidates = study.candidates()
    failed = [candidate for candidate in candidates if candidate.failed]
    if failed and not scored(candidates):
        first = failed[0]
        stopped = " that went on" * (len(failed) < len(candidates))
        raise NoScoresError(
            f"no candidate of {study.folder} has a score, all {len(failed)}{stopped} failed; the "
            f"first, {first.id}: {first.reason}"
        )
