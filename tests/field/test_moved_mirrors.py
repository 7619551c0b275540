"""The MLflow store of a study that was copied keeps its artifacts with the copy."""

import shutil
from pathlib import Path

import pandas as pd

from tests.helpers.kept_studies import tree
from tests.helpers.mirror import tracker


def test_a_copy_writes_into_its_own_folder(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    first = tracker(original)
    first.log_front(pd.DataFrame({"candidate": ["a"]}), [])
    first.finish()
    shutil.copytree(original, copy)
    before = tree(original)
    second = tracker(copy)
    second.log_front(pd.DataFrame({"candidate": ["b"]}), [])
    second.finish()
    assert second.run_id == first.run_id, "the same runs, not new ones"
    assert tree(original) == before
    (front,) = (copy / "artifacts").rglob("front.csv")
    assert "b" in front.read_text()
