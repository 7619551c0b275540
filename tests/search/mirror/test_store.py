"""A store that MLflow was interrupted in making."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from search.mirror import default_uri, set_aside_damaged

MADE = "import sys; from search.mirror.store import connect_store; connect_store(sys.argv[1])"


def test_a_half_made_store_is_set_aside_and_a_sound_one_is_not(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    # In another process: in this one MLflow remembers what it has made.
    subprocess.run([sys.executable, "-c", MADE, default_uri(tmp_path)], check=True)
    assert set_aside_damaged(tmp_path / "none.db") is None
    half = tmp_path / "half" / "mlflow.db"
    half.parent.mkdir()
    with closing(sqlite3.connect(database)) as store, closing(sqlite3.connect(half)) as copy:
        store.backup(copy)
        copy.execute("DROP TABLE alembic_version")
        copy.execute("DROP TABLE experiment_tags")
        copy.commit()
    assert set_aside_damaged(database) is None
    assert database.is_file()
    kept = set_aside_damaged(half)
    assert kept is not None
    assert kept.is_file()
    assert not half.exists()
