"""A study as a notebook shows it."""

import base64
import html
import io
from collections.abc import Sequence

from search.candidates import REFERENCE, Candidate, front, scored
from search.report.figures import draw_front

#: Members of the front that are listed.
LISTED = 12
#: Dots per inch of the picture, which a notebook shows small.
DPI = 72


def study_html(
    name: str,
    folder: str,
    candidates: Sequence[Candidate],
    reference: tuple[float, float] = REFERENCE,
) -> str:
    """Name and counts of a study, a small picture of its front, and its members.

    Args:
        name: Of the study.
        folder: Where it lies.
        candidates: All of it.
        reference: Quality and cost of the hypervolume's reference point.

    Returns:
        HTML that needs nothing else; without a picture where no candidate has a score.
    """
    members = front(candidates)
    failed = sum(candidate.failed for candidate in candidates)
    counts = f"{len(candidates)} candidates ({failed} failed), {len(members)} on the front"
    head = f"<b>{html.escape(name)}</b> <code>{html.escape(folder)}</code><br>{counts}"
    if not scored(candidates):
        return f"<div>{head}</div>"
    picture = io.BytesIO()
    draw_front(candidates, reference).savefig(picture, format="png", dpi=DPI)
    data = base64.b64encode(picture.getvalue()).decode()
    rows = "".join(
        f"<tr><td>{html.escape(member.id)}</td><td>{html.escape(member.label or '')}</td>"
        f"<td>{member.quality:.3f}</td><td>{member.cost:.3f}</td></tr>"
        for member in members[-LISTED:]
    )
    more = f"<div>the best {LISTED} of {len(members)}</div>" if len(members) > LISTED else ""
    titles = "".join(f"<th>{title}</th>" for title in ("candidate", "baseline", "quality", "cost"))
    return (
        f'<div>{head}<br><img alt="front" style="max-width: 100%" '
        f'src="data:image/png;base64,{data}">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>{more}</div>"
    )
