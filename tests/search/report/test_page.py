"""The study page: what it is told, what may stand in it, and how large it is."""

import base64
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.candidates import Candidate, front, history
from search.report import COLOURS, Shown, page_data, write_page
from tests.helpers.pages import EVIL, TASKS, shown


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a page, and the data in it."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return text, json.loads(found[1])


@pytest.fixture
def study(tmp_path: Path) -> Shown:
    return shown(tmp_path)


def by_id(data: dict[str, Any]) -> dict[str, Any]:
    return {candidate["id"]: candidate for candidate in data["candidates"]}


class TestData:
    def test_front_and_picks(self, study: Shown) -> None:
        data = page_data(study)
        rows = by_id(data)
        assert [c["id"] for c in data["candidates"]] == [c.id for c in study.candidates]
        members = front(study.candidates)
        assert {name for name, row in rows.items() if row["front"]} == {c.id for c in members}
        assert data["study"]["picks"]["best"] == members[-1].id
        assert data["study"]["picks"]["knee"] in {c.id for c in members}
        assert data["study"]["candidates"] == len(study.candidates)
        assert data["colours"] == list(COLOURS)

    def test_numbers_of_a_candidate(self, study: Shown) -> None:
        data = page_data(study)
        one = study.candidates[4]
        row = by_id(data)[one.id]
        assert row["quality"] == pytest.approx(one.quality, abs=1e-5)
        assert row["cost"] == pytest.approx(one.cost, abs=1e-5)
        assert dict(zip(data["networks"], row["accuracy"], strict=True)) == pytest.approx(
            dict(one.accuracy), abs=1e-5
        )
        names = [cost["name"] for cost in data["costs"]]
        assert dict(zip(names, row["costs"], strict=True)) == pytest.approx(
            dict(one.shares), abs=1e-5
        )
        assert [rung[0] for rung in row["rungs"]] == [100, 300]

    def test_masks_and_targets_come_back(self, study: Shown) -> None:
        data = page_data(study)
        for one in study.candidates[:8]:
            row = by_id(data)[one.id]
            design = data["designs"][row["design"]]
            layout = data["layouts"][design["layout"]]
            widths = [group["width"] for group in layout["groups"]]
            bits = np.unpackbits(np.frombuffer(base64.b64decode(design["read"]), np.uint8))
            whole = bits[: len(TASKS) * sum(widths)].reshape(len(TASKS), sum(widths)).astype(bool)
            expected = [one.masks.forward[group.name] for group in one.masks.groups]
            assert (whole == np.concatenate(expected, axis=1)).all()
            for name, position in row.get("asked", {}).items():
                assert one.decoding is not None
                upper = data["targets"][position]
                matrix = np.array(one.decoding.target[name])
                assert upper == pytest.approx(matrix[np.triu_indices(len(matrix))], abs=1e-3)

    def test_equal_designs_are_one(self, study: Shown) -> None:
        rows = by_id(page_data(study))
        designs = {rows[name]["design"] for name in ("es-0-0", "es-0-40", "random-0-40")}
        assert len(designs) == 1
        assert rows["es-0-40"]["repeats"] == "es-0-0"
        assert "repeats" not in rows["es-0-0"]

    def test_failed_and_stopped(self, study: Shown) -> None:
        rows = by_id(page_data(study))
        failed = rows["tpe-1-40"]
        assert failed["error"] == f"no {EVIL}"
        assert "quality" not in failed
        stopped = [row for row in rows.values() if row.get("stopped")]
        assert len(stopped) == sum(c.stopped for c in study.candidates) > 0
        assert not any(row["front"] for row in stopped)

    def test_hypervolume_curves(self, study: Shown) -> None:
        data = page_data(study)
        for arm in data["arms"]:
            own = [
                c
                for c in study.candidates
                if (c.strategy, c.seed) == (arm["strategy"], arm["seed"]) and not c.label
            ]
            expected = history(own, study.reference)["hypervolume"].to_numpy()
            assert arm["candidates"] == len(own)
            found = [
                next(v for start, v in reversed(arm["hypervolume"]) if start <= count)
                for count in range(1, len(own) + 1)
            ]
            assert found == pytest.approx(expected, abs=1e-5)
        assert data["baselines"]["count"] == 2

    def test_what_is_not_known_is_null(self, study: Shown) -> None:
        data = page_data(study)
        assert data["trials"][0]["p"] is None
        json.dumps(data, allow_nan=False)

    @pytest.mark.parametrize("count", [0, 1])
    def test_hardly_anything_to_show(self, tmp_path: Path, count: int) -> None:
        failed = Candidate(strategy="es", seed=0, index=0, vector=(), names=(), error="no")
        few = Shown(name="few", folder="/few", candidates=[failed][:count])
        write_page(few, tmp_path / "front.html")
        _, data = read(tmp_path / "front.html")
        assert data["study"]["picks"] == {}
        assert data["study"]["hypervolume"] == 0


class TestFile:
    def test_names_of_users_stay_text(self, study: Shown, tmp_path: Path) -> None:
        write_page(study, tmp_path / "front.html")
        text, data = read(tmp_path / "front.html")
        assert EVIL in data["networks"]
        assert "<img" not in text
        assert text.count("<script") == text.count("</script>") == 2
        assert "<title>a &lt;study&gt;: 45 candidates, hypervolume 0." in text

    def test_placeholders_in_names_are_not_filled(self, tmp_path: Path) -> None:
        odd = shown(tmp_path, 4, name="{{script}} {{data}}")
        write_page(odd, tmp_path / "front.html")
        text, data = read(tmp_path / "front.html")
        assert data["study"]["name"] == "{{script}} {{data}}"
        assert "<title>{{script}} {{data}}: " in text

    def test_nothing_is_fetched(self, study: Shown, tmp_path: Path) -> None:
        write_page(study, tmp_path / "front.html")
        text, _ = read(tmp_path / "front.html")
        assert not re.search(r"<(link|iframe|img|script[^>]+src)|@import|url\(", text)
        addresses = set(re.findall(r"https?://[^\"'\s]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, "a name space, which nothing fetches"

    def test_the_policy_allows_its_own_script_alone(self, study: Shown, tmp_path: Path) -> None:
        write_page(study, tmp_path / "front.html")
        text, _ = read(tmp_path / "front.html")
        for kind, pattern in (
            ("script-src", r'<script type="module">(.*?)</script>'),
            ("style-src", r"<style>(.*?)</style>"),
        ):
            found = re.search(pattern, text, re.DOTALL)
            assert found is not None
            digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
            assert f"{kind} 'sha256-{digest}'" in text
        assert "default-src 'none'" in text

    def test_two_thousand_candidates(self, tmp_path: Path) -> None:
        many = shown(tmp_path, 2000)
        begun = time.perf_counter()
        write_page(many, tmp_path / "front.html")
        assert time.perf_counter() - begun < 20
        text, data = read(tmp_path / "front.html")
        assert len(data["candidates"]) == 2005
        held = len(json.dumps(data, separators=(",", ":")))
        assert len(text.encode()) - held < 200_000
        assert len(text.encode()) < 4_000_000
