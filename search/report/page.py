"""The front as an interactive page that needs no network."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.candidates import (
    REFERENCE,
    Candidate,
    coordinates,
    front,
    knee,
    scored,
    study_hypervolume,
)
from search.report.figures import COST, GREY, INK, QUALITY, attained, colours

# Shows the sharing matrix of the candidate that is clicked; {plot_id} is plotly's.
CLICK = """
const sharing = SHARING, page = document.getElementById("{plot_id}");
page.on("plotly_click", event => {
    const found = sharing[event.points[0].customdata];
    if (!found) return;
    Plotly.restyle(page, {x: [found.names], y: [found.names], z: [found.matrix]}, [HEATMAP]);
    Plotly.relayout(page, {"annotations[0].text": found.title});
});
"""


def front_html(
    candidates: Sequence[Candidate],
    path: Path,
    reference: tuple[float, float] = REFERENCE,
    *,
    quality: str = QUALITY,
    cost: str = COST,
    calibration: tuple[str, Path] | None = None,
) -> None:
    """Writes a page with all candidates, their front and who shares how much with whom.

    A candidate under the pointer shows its name and each task's accuracy and use; one that is
    clicked shows its realised P, averaged over the channel groups. At first that is the knee's.

    Args:
        candidates: of a study; failed ones are left out, those with a label are baselines.
        path: where to write; about 5 MB, since the page brings all it needs.
        reference: quality and cost of the hypervolume's reference point.
        quality: what quality is, in words.
        cost: what cost is, in words.
        calibration: what was found of the proxy, in words, and a PNG; shown below the front.
    """
    from plotly.subplots import make_subplots

    found = scored(candidates)
    figure = make_subplots(1, 2, column_widths=[0.62, 0.38], horizontal_spacing=0.16)
    _add_front(figure, candidates)
    sharing = {c.id: entry for c in found if (entry := _sharing(c)) is not None}
    shown = next(iter(sharing.values()), None)
    if found:
        cost_N, quality_N = coordinates(found).T
        shown = sharing.get(found[knee(quality_N, cost_N)].id, shown)
    if shown is not None:
        _add_sharing(figure, shown)
    volume = study_hypervolume(candidates, reference)
    count = f"{len(found):,} candidate{'s' * (len(found) != 1)}"
    figure.update_layout(
        template="plotly_white",
        title=f"Front of {count}, hypervolume {volume:.4f}",
        legend={"orientation": "h", "y": -0.14},
        hoverlabel={"align": "left"},
        height=680,
    )
    figure.update_xaxes(title=f"cost: {cost}", row=1, col=1)
    figure.update_yaxes(title=f"quality: {quality}", row=1, col=1)
    figure.update_xaxes(constrain="domain", visible=shown is not None, row=1, col=2)
    figure.update_yaxes(
        autorange="reversed", scaleanchor="x2", constrain="domain", visible=shown is not None,
        row=1, col=2,
    )  # fmt: skip
    data = json.dumps(sharing).replace("<", "\\u003c")  # nothing in it may end the script
    script = CLICK.replace("SHARING", data).replace("HEATMAP", str(len(figure.data) - 1))
    page = figure.to_html(include_plotlyjs=True, post_script=script)
    if calibration is not None:
        above, end, below = page.rpartition("</body>")
        page = above + _calibration(*calibration) + end + below
    path.write_text(page, encoding="utf-8")


def _add_front(figure: Any, candidates: Sequence[Candidate]) -> None:
    """All candidates by strategy, the baselines, and the front through its members."""
    from plotly.graph_objects import Scatter

    found = scored(candidates)
    x, y = attained(candidates).T
    line = {"color": INK, "width": 1.5}
    figure.add_trace(Scatter(x=x, y=y, mode="lines", line=line, name="front", hoverinfo="skip"))
    for name, colour in colours(candidates).items():
        figure.add_trace(_points(name, [c for c in found if c.strategy == name and not c.label]))
        figure.data[-1].update(marker={"color": colour, "size": 7, "opacity": 0.7})
    if baselines := [c for c in found if c.label]:
        figure.add_trace(_points("baselines", baselines))
        figure.data[-1].update(marker={"color": GREY, "size": 9, "symbol": "diamond"})
    if members := front(candidates):
        ring = {"color": INK, "size": 11, "symbol": "circle-open", "line": {"width": 1.5}}
        figure.add_trace(_points("members of the front", members))
        figure.data[-1].update(marker=ring)


def _add_sharing(figure: Any, shown: Mapping[str, Any]) -> None:
    """A candidate's sharing matrix, as the last trace, and what it is."""
    from plotly.graph_objects import Heatmap

    small = len(shown["names"]) <= 12
    heatmap = Heatmap(
        x=shown["names"],
        y=shown["names"],
        z=shown["matrix"],
        zmin=0,
        zmax=1,
        colorscale="Blues",
        showscale=not small,
        texttemplate="%{z:.0%}" if small else None,
        hovertemplate="%{y} and %{x}: %{z:.1%}<extra></extra>",
        colorbar={"tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
    )
    figure.add_trace(heatmap, 1, 2)
    figure.add_annotation(
        text=shown["title"],
        xref="x2 domain",
        yref="y2 domain",
        x=0,
        y=1,
        yshift=44,
        align="left",
        showarrow=False,
    )


def _calibration(verdict: str, picture: Path) -> str:
    """The part of the page about the proxy, its picture within."""
    image = base64.b64encode(picture.read_bytes()).decode()
    words = html.escape(verdict[:1].upper() + verdict[1:])
    return (
        '<section style="font-family: Open Sans, verdana, arial, sans-serif; color: #2a3f5f; '
        f'margin: 0 5em"><h3>Calibration</h3><p>{words}.</p>'
        f'<img style="max-width: 100%" alt="{words}" src="data:image/png;base64,{image}">'
        "</section>\n"
    )


def _points(name: str, candidates: Sequence[Candidate]) -> Any:
    from plotly.graph_objects import Scatter

    x, y = coordinates(candidates).T
    return Scatter(
        x=x,
        y=y,
        mode="markers",
        name=name,
        customdata=[c.id for c in candidates],
        text=[_hover(c) for c in candidates],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(candidate: Candidate) -> str:
    title = f"{candidate.label} ({candidate.id})" if candidate.label else candidate.id
    lines = [f"<b>{html.escape(title)}</b>"]
    lines.append(f"quality {candidate.quality:.4f}, cost {candidate.cost:.4f}")
    if candidate.shares:
        lines.append(", ".join(f"{name} {share:.3f}" for name, share in candidate.shares.items()))
    for name in dict.fromkeys([*candidate.accuracy, *candidate.use]):
        facts = []
        if name in candidate.accuracy:
            facts.append(f"accuracy {candidate.accuracy[name]:.3f}")
        if name in candidate.use:
            facts.append(f"uses {candidate.use[name]:.0%}")
        lines.append(f"{html.escape(name)}: {', '.join(facts)}")
    return "<br>".join(lines)


def _sharing(candidate: Candidate) -> dict[str, Any] | None:
    if (found := candidate.mean_sharing()) is None:
        return None
    names, mean_RR = found
    return {
        "names": [html.escape(name) for name in names],
        "matrix": np.round(mean_RR, 3).tolist(),
        "title": f"<b>{html.escape(candidate.label or candidate.id)}</b>: share of channels in "
        "use (diagonal)<br>and shared by two; click a candidate for its own",
    }
