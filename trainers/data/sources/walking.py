"""Files below a folder, and what lies there under names that systems hide."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from trainers.data.sources.base import Request

#: How the names of files and folders begin that systems put among the user's own.
HIDDEN = (".", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN")
#: How the files begin in which macOS keeps a file's attributes; their endings are the file's.
ATTRIBUTES = "._"


def user_folders(place: Path) -> list[Path]:
    """The folders in a folder that are not hidden, by name."""
    return sorted(x for x in place.iterdir() if x.is_dir() and not x.name.startswith(HIDDEN))


def user_files(
    request: Request, folder: Path, *, deep: bool, hidden: list[Path] | None = None
) -> Iterator[Path]:
    """Files that are not hidden; links are followed, but into no folder twice.

    Args:
        request: whose files they are, for messages.
        folder: is there.
        deep: also in the folders below.
        hidden: gets the hidden files and folders that were passed over.

    Raises:
        DataError: a folder cannot be read, or a link leads to a folder that this one is in.
    """

    def fail(error: OSError) -> None:
        raise request.error(f"{folder} cannot be read: {error}") from error

    def refuse_above(link: str, target: str, inner: str) -> None:
        if Path(target) in Path(inner).parents:
            raise request.error(
                f"the link {link} leads to {target}, which it is in itself, so that other images "
                "would be there once more; remove the link"
            )

    seen = set()
    top = os.path.realpath(folder)
    refuse_above(str(folder), top, os.path.join(os.path.realpath(folder.parent), folder.name))
    for name, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        seen.add(os.path.realpath(name))
        if hidden is not None:
            hidden += (Path(name, x) for x in (*files, *folders) if x.startswith(HIDDEN))
        yield from (Path(name, file) for file in files if not file.startswith(HIDDEN))
        below = [each for each in folders if deep and not each.startswith(HIDDEN)]
        folders[:] = []
        for each in below:
            link = os.path.join(name, each)
            target = os.path.realpath(link)
            refuse_above(link, target, top)
            if target not in seen:
                folders.append(each)


def hidden_files(hidden: Iterable[Path], endings: Collection[str]) -> Counter[Path]:
    """How many files with such endings are or lie in each of the hidden files and folders.

    Args:
        hidden: as `user_files` gives them.
        endings: of names, in small letters, with their dot.

    Returns:
        for those that have any, the number; files of macOS's attributes are none.
    """
    found = Counter[Path]()
    for place in hidden:
        names = [place.name]
        if place.is_dir():
            names = [name for _, _, files in os.walk(place) for name in files]
        found[place] = sum(
            os.path.splitext(name.lstrip("."))[1].lower() in endings
            for name in names
            if not name.startswith(ATTRIBUTES)
        )
    return +found
