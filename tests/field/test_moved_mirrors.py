"""The MLflow store of a study that was copied or damaged."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from search.config import parse_config
from search.record import Record
from search.study import Study
from tests.helpers.kept_studies import tree
from tests.helpers.mirror import tracker
from tests.helpers.records import make
from tests.helpers.studies import SIMULATED, mirrored


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


def sync(study: Study) -> str:
    """What is said; in a process of its own, as MLflow keeps its connection."""
    command = [sys.executable, "-m", "apportion", "report", str(study.folder), "--sync"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("damage", [b"nonsense", None], ids=["no database", "torn page"])
def test_a_damaged_store_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    """What was advised, `report --sync`, failed for ever."""
    study = Study.create(parse_config(SIMULATED | {"output": str(tmp_path), "tracking": {}}))
    with Record(study.record_path, study.name) as record:
        record.add(make("random"))
    assert "was damaged" not in sync(study)
    database = study.folder / "mlflow.db"
    content = database.read_bytes()
    database.write_bytes(damage or content[:20480] + b"\xff" * 4096 + content[24576:])
    assert "is kept as mlflow.db.damaged; it is made anew" in sync(study)
    assert mirrored(study) == ["random-0-0"]
