"""Fronts as tables, summaries and pictures, against brute force and what is drawn."""

import json
import math
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from search.candidates import Candidate, front, history, study_hypervolume
from search.report import front_figure, front_table, summary
from search.report.labels import gap, place_names
from tests.helpers.candidates import costs, decoding, measurement

TASKS = ("digits", "<shapes>")


def make(
    quality: float | None,
    cost: float | None,
    strategy: str = "es",
    seed: int = 0,
    index: int = 0,
    label: str | None = None,
    **changes: Any,
) -> Candidate:
    known: dict[str, Any] = {}
    if quality is not None and cost is not None:
        accuracy = {TASKS[0]: quality + 0.1, TASKS[1]: quality - 0.1}
        realised = {"a": [[cost, 0.25], [0.25, cost]], "b": [[cost, 0.75], [0.75, cost]]}
        known = {
            "rungs": (measurement(quality, accuracy),),
            "costs": costs(dict.fromkeys(TASKS, cost)),
            "decoding": decoding(TASKS, realised),
        }
    candidate = Candidate(
        strategy=strategy,
        seed=seed,
        index=index,
        vector=(),
        names=(),
        quality=quality,
        cost=cost,
        label=label,
        finished=float(index),
        **known,
    )
    return replace(candidate, **changes)


@pytest.fixture
def study() -> list[Candidate]:
    """Two strategies, failures and baselines; the front is es-0-0, es-0-1 and random-1-0."""
    return [
        make(0.5, 0.2, index=0),
        make(0.7, 0.5, index=1),
        make(0.4, 0.3, index=2),
        make(None, None, index=3, error="boom"),
        make(math.nan, 0.1, index=4),
        make(0.9, 0.8, "random", seed=1),
        make(0.6, 1.0, "baselines", index=0, label="share_all"),
        make(0.3, 0.5, "baselines", index=1, label="equal_50"),
    ]


scores = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1.2), st.booleans()), max_size=12
).map(lambda rows: [
    make(q, c, "es" if i % 2 else "random", index=i, error="boom" if bad else None)
    for i, (q, c, bad) in enumerate(rows)
])  # fmt: skip


def brute_front(candidates: list[Candidate]) -> set[str]:
    """Those that none dominates; all have the same masks, so of equal points one, the first."""
    alive = [c for c in candidates if not c.failed]
    order = [(c.strategy, c.seed, c.index) for c in alive]
    return {
        a.id
        for a, place in zip(alive, order, strict=True)
        if not any(
            b.quality >= a.quality
            and b.cost <= a.cost
            and ((b.quality, b.cost) != (a.quality, a.cost) or before < place)
            for b, before in zip(alive, order, strict=True)
        )
    }


def brute_volume(candidates: list[Candidate], reference: tuple[float, float]) -> float:
    """The area under the best quality at each cost, as a share of the ideal's."""
    alive = [c for c in candidates if not c.failed]
    costs = sorted({c.cost for c in alive if c.cost < reference[1]} | {reference[1]})
    ideal = (1 - reference[0]) * reference[1]
    return sum(
        (right - left)
        / ideal
        * max(0, *(c.quality - reference[0] for c in alive if c.cost <= left), 0)
        for left, right in pairwise(costs)
    )


class TestSummary:
    def test_is_what_the_command_promises(self, study: list[Candidate]) -> None:
        used = {"busy": 3.0, "masks": 1.0}
        found = json.loads(json.dumps(summary(study, (0.0, 1.0), used)))
        assert found == {
            "objectives": {"quality": "maximize", "cost": "minimize"},
            "reference": {"quality": 0.0, "cost": 1.0},
            "hypervolume": pytest.approx(0.5 * 0.3 + 0.7 * 0.3 + 0.9 * 0.2),
            "candidates": 8,
            "evaluators": used,
            "failed": 2,
            "stopped": 0,
            "repeated": 0,
            "strategies": {
                "baselines": {"candidates": 2, "hypervolume": pytest.approx(0.3 * 0.5)},
                "es": {"candidates": 5, "hypervolume": pytest.approx(0.5 * 0.3 + 0.7 * 0.5)},
                "random": {"candidates": 1, "hypervolume": pytest.approx(0.9 * 0.2)},
            },
            "front": [
                {
                    "candidate": name,
                    "label": None,
                    "strategy": name.split("-")[0],
                    "seed": seed,
                    "quality": quality,
                    "cost": cost,
                    "costs": {
                        "macs": 0.5,
                        "parameters": 0.5,
                        "union": 0.5,
                        "use": cost,
                    },
                    "accuracy": {TASKS[0]: quality + 0.1, TASKS[1]: quality - 0.1},
                }
                for name, seed, quality, cost in [
                    ("es-0-0", 0, 0.5, 0.2),
                    ("es-0-1", 0, 0.7, 0.5),
                    ("random-1-0", 1, 0.9, 0.8),
                ]
            ],
        }

    def test_of_nothing(self) -> None:
        found = summary([])
        assert (found["hypervolume"], found["candidates"], found["failed"]) == (0, 0, 0)
        assert (found["strategies"], found["front"]) == ({}, [])

    @settings(deadline=None)
    @given(scores)
    def test_front_and_hypervolume_by_brute_force(self, candidates: list[Candidate]) -> None:
        found = summary(candidates, (0.2, 1.0))
        assert {member["candidate"] for member in found["front"]} == brute_front(candidates)
        costs = [member["cost"] for member in found["front"]]
        assert costs == sorted(costs)
        assert found["hypervolume"] == pytest.approx(brute_volume(candidates, (0.2, 1.0)))


class TestTable:
    def test_members_of_the_front_come_first(self, study: list[Candidate]) -> None:
        table = front_table(study, (0.0, 1.0))
        assert table["candidate"].tolist() == [
            *("es-0-0", "es-0-1", "random-1-0"),
            *("es-0-2", "baselines-0-1", "baselines-0-0"),
        ]
        assert table["on_front"].tolist() == [True] * 3 + [False] * 3
        assert table["label"].tolist() == [""] * 4 + ["equal_50", "share_all"]
        assert table["accuracy/digits"].tolist() == pytest.approx([0.6, 0.8, 1.0, 0.5, 0.4, 0.7])
        lost = [0.3 * 0.5, 0.3 * 0.2, 0.2 * 0.2, 0, 0, 0]
        assert table["contribution"].tolist() == pytest.approx(lost)

    def test_of_nothing_has_its_columns(self) -> None:
        table = front_table([])
        assert len(table) == 0
        assert {"candidate", "strategy", "seed", "quality", "cost", "on_front"} <= set(table)


class TestHistory:
    @settings(deadline=None)
    @given(scores)
    def test_every_row_is_that_of_the_candidates_so_far(self, found: list[Candidate]) -> None:
        table = history(found[::-1], (0.1, 1.0))  # the order of finishing counts
        assert table["candidates"].tolist() == list(range(1, len(found) + 1))
        for count, row in zip(range(1, len(found) + 1), table.to_dict("records"), strict=True):
            so_far = found[:count]
            assert row["hypervolume"] == pytest.approx(study_hypervolume(so_far, (0.1, 1.0)))
            assert row["front_size"] == len(front(so_far))
            assert row["failed"] == sum(c.failed for c in so_far)
            best = max((c.quality for c in so_far if not c.failed), default=math.nan)
            assert row["best_quality"] == pytest.approx(best, nan_ok=True)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, to look at what is in them."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **more: Any) -> None:
        figures.append(figure)
        save(figure, *args, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


class TestFigure:
    def test_shows_candidates_front_and_hypervolume(
        self, study: list[Candidate], tmp_path: Path, drawn: list[Figure]
    ) -> None:
        front_figure(study, tmp_path / "front.png", (0.0, 1.0), cost="share of parameters")
        with Image.open(tmp_path / "front.png") as image:
            assert image.width > 1500  # sharp at the width of a README
        [figure] = drawn
        points, volumes = figure.axes
        assert points.get_title(loc="left") == "Front of 6 candidates, hypervolume 0.5400"
        assert points.get_xlabel() == "cost: share of parameters"
        assert "accuracy" in points.get_ylabel()
        [line] = points.lines
        corners = [(0.2, 0.5), (0.5, 0.5), (0.5, 0.7), (0.8, 0.7), (0.8, 0.9), (1.0, 0.9)]
        assert np.array(line.get_xydata()) == pytest.approx(np.array(corners))
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == ["es", "random", "baselines", "front"]
        assert sorted(texts(points)) == ["equal 50", "share all"]
        dots = [len(c.get_offsets()) for c in points.collections if len(c.get_offsets())]
        assert sorted(dots) == [1, 1, 1, 3, 3]  # random, two baselines; es, rings of the front
        curves = {tuple(np.round(line.get_ydata(), 4)) for line in volumes.lines}
        assert (0.4, 0.5, 0.5, 0.5, 0.5) in curves  # es: failed ones count as candidates
        assert "2 baselines together" in texts(volumes)

    def test_several_seeds_have_a_mean(self, tmp_path: Path, drawn: list[Figure]) -> None:
        arms = [make(q, 0.5, seed=s, index=i) for s in (0, 1) for i, q in enumerate((0.2, 0.4))]
        arms[0] = replace(arms[0], quality=0.4)
        front_figure(arms, tmp_path / "front.png", (0.0, 1.0))
        curves = [line.get_ydata() for line in drawn[0].axes[1].lines]
        assert np.array(curves) == pytest.approx(np.array([[0.2, 0.2], [0.1, 0.2], [0.15, 0.2]]))

    def test_names_of_baselines_do_not_overlap(self, tmp_path: Path, drawn: list[Figure]) -> None:
        rng = np.random.default_rng(0)
        cloud = [
            make(0.5 + 0.2 * c + rng.normal(0, 0.02), c, index=i)
            for i, c in enumerate(rng.uniform(0.1, 1, 150))
        ]
        names = [f"equal_{k}" for k in range(10, 100, 10)] + ["share_all", "share_half", "alone"]
        baselines = [
            make(0.5 + 0.15 * k / 12, 0.4 + 0.02 * k, "baselines", index=k, label=name)
            for k, name in enumerate(names)
        ]
        front_figure(cloud + baselines, tmp_path / "front.png")
        axes = drawn[0].axes[0]
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines to them
        assert len(boxes) == len(names)
        for a, b in combinations(boxes, 2):
            assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1)
        frame = axes.get_window_extent()
        for box in boxes:
            assert frame.x0 <= box.x0
            assert box.x1 <= frame.x1
            assert frame.y0 <= box.y0
            assert box.y1 <= frame.y1

    @pytest.mark.parametrize("count", [0, 1, 4, 5])
    def test_hardly_anything_to_show(
        self, study: list[Candidate], tmp_path: Path, count: int
    ) -> None:
        some = study[3:] if count == 4 else study[3:4] if count == 5 else study[:count]
        front_figure(some, tmp_path / "front.png")
        with Image.open(tmp_path / "front.png") as image:
            assert image.height > 500


class TestPlace:
    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 10**6), st.integers(1, 14))
    def test_names_never_overlap_where_there_is_room(self, seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        anchors = rng.uniform(300, 700, (count, 2))
        sizes = rng.uniform((30, 10), (70, 14), (count, 2))
        frame = np.array([0, 0, 1000, 1000])
        boxes = place_names(anchors, sizes, rng.uniform(0, 1000, (40, 2)), frame, 2.0)
        assert boxes[:, 2:] - boxes[:, :2] == pytest.approx(sizes)
        for a, b in combinations(boxes, 2):
            assert (a[:2] >= b[2:]).any() or (b[:2] >= a[2:]).any()
        for box, anchor in zip(boxes, anchors, strict=True):
            assert gap(box, anchor) > 0

    def test_gap(self) -> None:
        box = np.array([0.0, 0.0, 2.0, 1.0])
        assert gap(box, np.array([1.0, 0.5])) == 0
        assert gap(box, np.array([5.0, 5.0])) == 5
        assert gap(box, np.array([-1.0, 0.5])) == 1
