"""Files that are there complete or not at all, and known to be damaged where they are."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any


class DamagedFileError(ValueError):
    """A file is not what was written: cut short, or changed since; the message names it."""


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Lends the path of a file to write; it takes the place of `path` once the block has ended.

    Until then, and for ever if the block raises, `path` is what it was. What was written is on the
    disk before it is moved, so a power cut leaves the old file or the new one, never half of one.

    Args:
        path: The file to be made or replaced; its folder exists.

    Yields:
        A path in the same folder (a rename is atomic within one file system only), with the same
        suffix, under which nothing exists yet.

    Raises:
        OSError: The folder is missing, read-only or full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "note.txt")
        >>> with write_atomically(path) as partial:
        ...     _ = partial.write_text("whole")
        >>> path.read_text(), [file.name for file in path.parent.iterdir()]
        ('whole', ['note.txt'])
    """
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)  # a full disk does not say where it is full
        raise


@contextmanager
def appears_whole(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Lends a folder to fill; it takes the place of `folder` by a rename once the block has ended.

    If the block raises, nothing is there under that name, or what was there before; if the process
    is killed likewise, but for the moment between two renames where one is replaced.

    Args:
        folder: The folder to be made; those above it are made if they are missing.
        replace: Take the place of a folder that is there, too; otherwise only of an empty one.

    Yields:
        An empty folder beside it.

    Raises:
        FileExistsError: There is something already.
        OSError: The folder above is read-only or full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "notes")
        >>> with appears_whole(path) as partial:
        ...     _ = (partial / "note.txt").write_text("whole")
        >>> [file.name for file in path.iterdir()], [file.name for file in path.parent.iterdir()]
        (['note.txt'], ['notes'])
    """
    folder = folder.absolute()
    require_free(folder, replace=replace)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    before = folder.with_name(f"{partial.name}.before")
    try:
        partial.mkdir()
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        if replace and folder.is_dir():
            os.replace(folder, before)
        os.replace(partial, folder)
    except BaseException:
        if before.is_dir() and not folder.exists():
            os.replace(before, folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def require_free(folder: Path, *, replace: bool = False) -> None:
    """Refuse a folder in which there is something already.

    Args:
        folder: That is to be made.
        replace: Take one that is there, but no file.

    Raises:
        FileExistsError: There is.
    """
    if folder.is_symlink():
        raise FileExistsError(f"{folder} is a link: name the folder that it leads to, or another")
    if folder.is_dir() and (replace or not any(folder.iterdir())):
        return
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name another folder, or remove it")


def name_of_damaged(path: Path) -> Path:
    """Where a damaged file can be kept beside its place: a name that nothing has yet."""
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in count())
    return next(name for name in names if not name.exists())


def write_json(path: Path, content: Mapping[str, Any], *, sealed: bool = False) -> None:
    """Writes an object as JSON, complete or not at all.

    Args:
        path: The file; its folder exists.
        content: The object, without a key "checksum" where it is sealed.
        sealed: Add a checksum, by which `read_json` notices any later change.

    Raises:
        OSError: The folder is missing, read-only or full.
        ValueError: A number is NaN or infinite, which JSON cannot hold.
    """
    whole = {**content, "checksum": _checksum(content)} if sealed else content
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote, without the checksum.

    Raises:
        DamagedFileError: It is no JSON object, or was changed after it was sealed.
        OSError: The file cannot be read.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise DamagedFileError(f"{path} is damaged, it is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} is damaged: it must hold an object, got {content!r:.60}")
    if "checksum" in content and content.pop("checksum") != _checksum(content):
        raise DamagedFileError(f"{path} is damaged: it was changed since it was written")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    """Of an object, whatever the order and layout of its keys."""
    plain = json.loads(json.dumps(content))  # tuples become lists, and keys text, as in the file
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
