"""Files that are there complete or not at all."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object as JSON, complete or not at all.

    Raises:
        OSError: The folder is missing, read-only or full.
        ValueError: A number is NaN or infinite, which JSON cannot hold.
    """
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
