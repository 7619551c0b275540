"""A store of MLflow."""

import shutil
from pathlib import Path

import pytest

from tests.helpers.mirror import in_process


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with MLflow's tables, which take seconds to make, and another study."""
    folder = tmp_path_factory.mktemp("tables")
    process = in_process("tracker(Path(sys.argv[1]), study='other').finish()", folder)
    assert process.communicate() == ("", "")  # nothing that would spoil a progress display
    return folder / "mlflow.db"


@pytest.fixture
def folder(tmp_path: Path, tables: Path) -> Path:
    shutil.copy(tables, tmp_path / "mlflow.db")
    return tmp_path
