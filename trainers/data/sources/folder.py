"""Folders of image files, a folder a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.data.sources.base import Pictures, RawSplit, Request, RowArray
from trainers.data.sources.pixels import FORMATS, SUFFIXES
from trainers.data.sources.shards import SPLIT_NAMES, names_split

#: How the names of files and folders begin that systems put among the user's own.
HIDDEN = (".", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN")


def open_folder(request: Request) -> RawSplit:
    """Lists the images of `<path>/<split>/<class>/`, at any depth below the class.

    Args:
        request: path is the folder above the splits.

    Returns:
        The split, its labels being the names of the class folders; hidden files are left out.

    Raises:
        DataError: no such folder or split, a class without an image that can be read, an empty
            file, or the same images in two formats.
    """
    top = request.folder()
    if not (top / request.split).is_dir():
        found = (folder.name for folder in _folders(top))
        raise request.missing_split(
            top / request.split,
            found,
            f"; or, for a dataset without splits, have two folders or more in {top}, one a class, "
            "with the images in them",
        )
    beside = tuple(folder.name for folder in _folders(top))
    return replace(_read_classes(request, top / request.split), beside=beside)


def whole_folder(request: Request) -> RawSplit | None:
    """Lists `<path>/<class>/<image>`, where there are no splits.

    Args:
        request: path is the folder above the classes.

    Returns:
        The whole dataset; None where the folders are not classes.

    Raises:
        DataError: as for `open_folder`.
    """
    if not request.location.is_dir():
        return None
    folders = _folders(request.location)
    direct = [folder for folder in folders if _holds_images(request, folder)]
    are_splits = any(folder.name.casefold() in SPLIT_NAMES for folder in folders) or all(
        names_split(folder.name) for folder in direct
    )
    if are_splits or len(direct) < 2:
        return None
    return _read_classes(request, request.location)


def _read_classes(request: Request, place: Path) -> RawSplit:
    """The images of `<place>/<class>/`, and in notes what was not read."""
    files: list[Path] = []
    labels: list[str] = []
    left_out: Counter[str] = Counter()
    empty: list[str] = []
    for folder in _folders(place):
        if any("\udc80" <= letter <= "\udcff" for letter in folder.name):
            raise request.error(f"the name {str(folder)!a} is no text in UTF-8; rename the folder")
        images, others = _sorted_out(request, folder)
        if others and not images:
            raise request.error(
                f"no file of the class {folder} can be read as an image, its {others.total()} "
                f"files are {_endings(others)}; convert them, or move the folder away"
            )
        if not images:
            empty.append(folder.name)
        files += images
        labels += [folder.name] * len(images)
        left_out += others
    stray = Counter(_ending(file) for file in _files(request, place, deep=False))
    if not files:
        raise request.error(
            f"{place}: a split must hold at least one image, this one is empty: images lie in "
            f"{place}/CLASS/, at any depth, with an ending that Pillow reads, such as .png, .jpg "
            f"or .tif; found {_endings(stray) if stray else 'no file outside the classes'}"
        )
    _refuse_broken(request, files)
    _refuse_twice(request, files, labels)
    notes = [f"left out {left_out.total()} files ({_endings(left_out)})"] if left_out else []
    if stray:
        notes.append(f"left out {stray.total()} files outside the classes ({_endings(stray)})")
    if empty:
        notes.append(f"left out {len(empty)} empty class folders ({', '.join(empty[:8])})")

    def pictures(rows: RowArray, size: int) -> Pictures:
        return ((f"task {request.task!r}: {files[row]}", files[row]) for row in rows)

    return RawSplit(
        labels=np.array(labels, dtype=np.str_),
        classes=None,
        where=str(place),
        pictures=pictures,
        notes=tuple(notes),
    )


def _folders(place: Path) -> list[Path]:
    return sorted(x for x in place.iterdir() if x.is_dir() and not x.name.startswith(HIDDEN))


def _holds_images(request: Request, folder: Path) -> bool:
    """Whether images lie in a folder, at any depth, but not in splits of its own."""
    if any(names_split(below.name) for below in _folders(folder)):
        return False
    return any(_is_image(file) for file in _files(request, folder, deep=True))


def _sorted_out(request: Request, folder: Path) -> tuple[list[Path], Counter[str]]:
    """The images below a folder, and the number of other files by the ending of their names."""
    images, others = [], Counter[str]()
    for file in sorted(_files(request, folder, deep=True)):
        if _is_image(file):
            images.append(file)
        else:
            others[_ending(file)] += 1
    return images, others


def _files(request: Request, folder: Path, *, deep: bool) -> Iterator[Path]:
    """Files that are not hidden; links are followed, but into no folder twice."""

    def fail(error: OSError) -> None:
        raise request.error(f"{folder} cannot be read: {error}") from error

    seen = set()
    for name, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        seen.add(os.path.realpath(name))
        yield from (Path(name, file) for file in files if not file.startswith(HIDDEN))
        folders[:] = [
            each
            for each in folders
            if deep
            and not each.startswith(HIDDEN)
            and os.path.realpath(os.path.join(name, each)) not in seen
        ]


def _is_image(file: Path) -> bool:
    """By the ending of its name; a file that has none is looked into."""
    if file.suffix or file.name.startswith(HIDDEN):
        return file.suffix.lower() in SUFFIXES and not file.name.startswith(HIDDEN)
    try:
        with Image.open(file, formats=FORMATS):
            return True
    except Exception:  # whatever a file that is no image leads Pillow into
        return False


def _refuse_broken(request: Request, files: Sequence[Path]) -> None:
    """Files of no bytes, and links to nothing, are what a copy that was cut short leaves."""
    broken = [file for file in files if not os.path.isfile(file) or not os.path.getsize(file)]
    if broken:
        raise request.error(
            f"{broken[0]} is empty or leads nowhere ({len(broken)} such of {len(files)} images), "
            "so that the dataset is not whole; get it once more, or remove them"
        )


def _refuse_twice(request: Request, files: Sequence[Path], labels: Sequence[str]) -> None:
    """The same names in two formats are the same images converted, in all classes or in one."""
    everywhere = "all classes"
    names: dict[str, dict[str, set[tuple[str, str]]]] = {}
    for file, label in zip(files, labels, strict=True):
        for place in (everywhere, f"the class {label!r}"):
            names.setdefault(place, {}).setdefault(_ending(file), set()).add((label, file.stem))
    for place, found in names.items():
        for first, second in combinations(sorted(found), 2):
            if found[first] == found[second] and len(found[first]) > 1:
                raise request.error(
                    f"the images of {place} below {Path(os.path.commonpath(files))} are there "
                    f"twice, as {first} and as {second}; remove one of the two"
                )


def _ending(file: Path) -> str:
    return file.suffix.lower() or "no ending"


def _endings(counts: Counter[str]) -> str:
    shown = [f"{count} {ending}" for ending, count in counts.most_common(6)]
    return ", ".join(shown) + (", ..." if len(counts) > 6 else "")
