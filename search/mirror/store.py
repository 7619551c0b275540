"""Where a mirror's runs are kept: MLflow's store, how it is reached, and the study's id in it."""

import logging
import sqlite3
import urllib.error
import urllib.request
import uuid
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from partitioning import name_of_damaged, write_atomically

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    from mlflow import MlflowClient


#: What SQLite says where tables are made a second time.
HALF_MADE = ("already exists", "duplicate column name")


class TrackingError(RuntimeError):
    """MLflow could not be reached or refused something; the record is not touched by it."""


def default_uri(folder: Path) -> str:
    """The SQLite store in a study's folder.

    Raises:
        TrackingError: no URI leads to a folder of that name.
    """
    path = str(Path(folder).absolute() / "mlflow.db")
    for text in (path, quote(path)):  # whether escapes are undone depends on SQLAlchemy's version
        if make_url(f"sqlite:///{text}").database == path:
            return f"sqlite:///{text}"
    raise TrackingError(f"MLflow cannot keep its store at {path}: choose a simpler folder name")


def connect_store(uri: str) -> "MlflowClient":
    """A client of a store that is there; MLflow itself tries for minutes before it gives up.

    The first connection makes the store's tables, which several processes at once cannot.
    """
    from mlflow import MlflowClient

    if uri.startswith("sqlite:"):
        path = make_url(uri).database or ""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        store = sqlite3.connect(path)
        try:
            store.execute("BEGIN IMMEDIATE")  # fails at once where it cannot be written
            store.rollback()
        finally:
            store.close()
    elif uri.startswith("http"):
        try:
            parts = urlsplit(uri)  # urllib takes a user and a password for a part of the host
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            urllib.request.urlopen(bare, timeout=20).close()
        except urllib.error.HTTPError as answer:
            answer.close()  # somebody is there; what it says to MLflow is another matter
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it raises it, too
    tables = logging.getLogger("alembic")
    level = tables.level
    tables.setLevel(logging.WARNING)  # the making of tables is nobody's news
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SQLAlchemy, in MLflow
            return MlflowClient(tracking_uri=uri)
    finally:
        tables.setLevel(level)


def follow_folder(database: Path, artifacts: str) -> None:
    """Let a store that was moved or copied with its study keep artifacts where the study lies now.

    MLflow keeps their place in full, so a copy would write into the original's folder.

    Args:
        database: The SQLite store in a study's folder; nothing is done where there is none.
        artifacts: URI of the study's folder of artifacts.
    """
    if not database.is_file():
        return
    with closing(sqlite3.connect(database)) as store, suppress(sqlite3.OperationalError), store:
        places = store.execute(
            "SELECT DISTINCT artifact_location FROM experiments "
            "WHERE artifact_location LIKE 'file:%/artifacts' AND artifact_location != ?",
            (artifacts,),
        ).fetchall()
        for (old,) in places:
            store.execute(
                "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?",
                (artifacts, old),
            )
            store.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE substr(artifact_uri, 1, ?) = ?",
                (artifacts, len(old) + 1, len(old) + 1, f"{old}/"),
            )


def set_aside_damaged(database: Path) -> Path | None:
    """Move a SQLite store aside that cannot be read, or was cut off as MLflow made its tables.

    What SQLite keeps beside it goes with it.

    Args:
        database: In a study's folder.

    Returns:
        Where it is now; None where it is sound, or there is none.
    """
    if not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(database)) as store:
            sound = store.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.OperationalError:  # locked, or not to be opened: that is told by who uses it
        return None
    except sqlite3.DatabaseError:
        sound = False
    if sound and not _half_made(database):
        return None
    kept = name_of_damaged(database)
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            database.with_name(database.name + suffix).rename(f"{kept}{suffix}")
    return kept


def _half_made(database: Path) -> bool:
    """Whether MLflow cannot make the store's tables, of which some are there and some are not."""
    from mlflow.exceptions import MlflowException

    try:
        connect_store(default_uri(database.parent))
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        return any(words in str(error) for words in HALF_MADE)
    return False


def identity(path: Path) -> str:
    """The study's id, from its file or new."""
    if not path.exists():
        with write_atomically(path) as partial:
            partial.write_text(uuid.uuid4().hex + "\n")
    return path.read_text().strip()
