"""benchmarks/rungs.py, on the curves of arms that measured every rung."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.candidates import Rung
from tests.helpers import ROOT
from tests.helpers.arms import ArmRun
from tests.helpers.pools import ShuffledPool, sometimes


def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "rungs.py"))


def test_curves_are_those_of_whole_climbs() -> None:
    ladder = (Rung(steps=5), Rung(steps=20), Rung(steps=100))
    climbing = ArmRun("random", ladder=ladder, bracket=8, candidates=21)
    found = climbing.run(ShuffledPool(0, fails=sometimes))
    recorded = benchmark()["curves"](list(found.values()), (0.0, 1.1))
    whole = [c for c in found.values() if not c.failed]
    assert 0 < len(whole) < 21
    assert recorded["steps"] == [5, 20, 100]
    assert recorded["quality"] == [[r.quality for r in c.rungs] for c in whole]
    assert recorded["cost"] == [c.cost for c in whole]
    flat = ArmRun("random", candidates=21).run(ShuffledPool(0))
    with pytest.raises(ValueError, match="21 candidates with at most 1 rungs"):
        benchmark()["curves"](list(flat.values()), (0.0, 1.1))


def test_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    quality = rng.random((32, 1)).repeat(3, axis=1)  # rungs that tell no lies
    recorded = {
        "steps": [1, 2, 8], "seconds": [2.0, 3.0, 8.0], "quality": quality.tolist(),
        "cost": rng.random(32).tolist(), "reference": [0.0, 1.1],
    }  # fmt: skip
    (tmp_path / "curves.json").write_text(json.dumps({"curves": recorded}))
    files = ["--study", str(tmp_path / "curves.json"), "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["rungs.py", "--quick", *files])
    benchmark()["main"]()
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["curves"] == recorded
    rows = {(*r["steps"], *r["keep"], r["bracket"]): r for r in written["rows"]}
    row = rows[1, 2, 8, 0.5, 0.5, 16]
    assert row["compute"] == pytest.approx((1 + 1 + 2) / 8)
    assert row["compute_seconds"] == pytest.approx((2 + 1.5 + 2) / 8)
    assert rows[2, 8, 0.5, 32]["compute"] == pytest.approx((2 + 4) / 8)
    assert all(r["n"] == 32 and r["orders"] == 21 for r in written["rows"])
    assert rows[1, 8, 0.5, 32]["worst"] == rows[1, 8, 0.5, 32]["hypervolume"] == 1.0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(rows)
    assert any(line.startswith("* 1 (50%) -> 2 (50%) -> 8 ") for line in lines)
