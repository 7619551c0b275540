"""Where trunk, teachers and features are kept: with the study that they were made for.

A study has them in its own folder, so that it is whole wherever it lies. What the cache that
studies share has already is taken from there, and what is made is given to it: as links, which take
no room, where both are on one disk.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from partitioning import DamagedFileError, write_atomically
from search.config import StudyConfig

T = TypeVar("T")
Say = Callable[[str], None]


class StudyError(ValueError):
    """A study's folder that cannot be used as asked."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """The folders of a study's trunk, teachers and features.

    Attributes:
        own: Where they are looked for first, and written to.
        shared: The cache of studies; passed over where it does not exist.
    """

    own: Path
    shared: Path

    @classmethod
    def of(cls, config: StudyConfig) -> Self:
        """That of a study; of a config whose study has no folder yet it is the cache alone."""
        shared = config.cache_folder
        is_study = (config.folder / "config.yaml").is_file()
        return cls(own=own_folder(config.folder) if is_study else shared, shared=shared)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return any((folder / name).is_file() for folder in (self.own, self.shared))

    def find(self, name: str, read: Callable[[Path], T], say: Say) -> T | None:
        """What a file holds; None where it is to be made, since there is none, or a damaged one.

        Args:
            name: Of the file.
            read: Reads it.
            say: Called where a damaged file is moved aside.

        Raises:
            DamagedFileError: A file is damaged, and the folder cannot be written.
            OSError: A file cannot be read.
        """
        for folder in dict.fromkeys((self.own, self.shared)):
            if not (path := folder / name).exists():
                continue
            try:
                found = read(path)
            except DamagedFileError as error:
                move_aside(path, error, say)
                continue
            if folder != self.own:
                _link(path, self.own / name)
            return found
        return None

    def keep(self, name: str, write: Callable[[Path], None]) -> Path:
        """Write a file that was missing; returns where it is.

        Args:
            name: Of the file.
            write: Writes it, in full or not at all.
        """
        path = self.own / name
        self.own.mkdir(parents=True, exist_ok=True)
        write(path)
        self.share(name)
        return path

    def share(self, name: str) -> None:
        """Let other studies have a file, too."""
        if self.shared != self.own and self.shared.is_dir():
            with suppress(OSError):  # others can do without
                _link(self.own / name, self.shared / name)


def own_folder(study: Path) -> Path:
    """Where a study keeps its trunk, teachers and features."""
    return study / "foundation"


def move_aside(path: Path, error: DamagedFileError, say: Say) -> None:
    """Keep a damaged file under another name, to have it made again.

    Args:
        path: The file.
        error: What is wrong with it.
        say: Called with a line about it.

    Raises:
        DamagedFileError: Its folder cannot be written.
    """
    kept = path.with_name(f"{path.name}.damaged")
    try:
        os.replace(path, kept)
    except FileNotFoundError:
        return  # another study was faster
    except OSError as failure:
        raise DamagedFileError(
            f"{error}. It cannot be moved aside ({failure.strerror}): make {path.parent} writable, "
            "and it is made again"
        ) from error
    say(f"warning: {error}. It is kept as {kept.name} and made again")


def _link(source: Path, target: Path) -> None:
    """Make the file appear in another folder, too; as a copy where disks cannot link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        pass  # another study was faster
    except OSError:
        with write_atomically(target) as partial:
            shutil.copyfile(source, partial)
