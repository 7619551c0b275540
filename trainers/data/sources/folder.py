"""Folders of image files, a folder a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.data.sources.base import Pictures, RawSplit, Request, RowArray, some
from trainers.data.sources.layout import check_layout, ending
from trainers.data.sources.pixels import FORMATS, SUFFIXES
from trainers.data.sources.shards import SPLIT_NAMES, names_split
from trainers.data.sources.walking import hidden_files, user_files, user_folders


def open_folder(request: Request) -> RawSplit:
    """Lists the images of `<path>/<split>/<class>/`, at any depth below the class.

    Args:
        request: path is the folder above the splits.

    Returns:
        The split, its labels being the names of the class folders; hidden images are counted in
        its notes.

    Raises:
        DataError: no such folder or split, a class without an image that can be read, an empty
            file, the same images in two formats, a split among the classes, or a link that leads
            to a folder that it is in.
    """
    top = request.folder()
    if not (top / request.split).is_dir():
        found = (folder.name for folder in user_folders(top))
        raise request.missing_split(
            top / request.split,
            found,
            f"; or, for a dataset without splits, have two folders or more in {top}, one a class, "
            "with the images in them",
        )
    return replace(_read_classes(request, top / request.split), beside=_beside(request, top))


def whole_folder(request: Request) -> RawSplit | None:
    """Lists `<path>/<class>/<image>`, where there are no splits.

    Args:
        request: path is the folder above the classes.

    Returns:
        The whole dataset; None where the folders are not classes.

    Raises:
        DataError: as for `open_folder`; or the folders seem to be splits of other names.
    """
    if not request.location.is_dir():
        return None
    folders = user_folders(request.location)
    direct = [folder for folder in folders if _holds_images(request, folder)]
    are_splits = any(folder.name.casefold() in SPLIT_NAMES for folder in folders) or all(
        names_split(folder.name) for folder in direct
    )
    if are_splits or len(direct) < 2:
        return None
    return _read_classes(request, request.location, whole=True)


def _beside(request: Request, top: Path) -> tuple[str, ...]:
    """What lies beside a split: folders, images, and what holds images under hidden names."""
    hidden: list[Path] = []
    files = list(user_files(request, top, deep=False, hidden=hidden))
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    found = [*user_folders(top), *images, *hidden_files(hidden, SUFFIXES)]
    return tuple(each.name for each in found)


def _read_classes(request: Request, place: Path, *, whole: bool = False) -> RawSplit:
    """The images of `<place>/<class>/`, and in notes what was not read."""
    classes: dict[str, list[Path]] = {}
    hidden: list[Path] = []
    left_out: Counter[str] = Counter()
    empty: list[str] = []
    for folder in user_folders(place):
        if any("\udc80" <= letter <= "\udcff" for letter in folder.name):
            raise request.error(f"the name {str(folder)!a} is no text in UTF-8; rename the folder")
        images, others = _sorted_out(request, folder, hidden)
        if others and not images:
            raise request.error(
                f"no file of the class {folder} can be read as an image, its {others.total()} "
                f"files are {_endings(others)}; convert them, or move the folder away"
            )
        if images:
            classes[folder.name] = images
        else:
            empty.append(folder.name)
        left_out += others
    stray = Counter(ending(file) for file in user_files(request, place, deep=False, hidden=hidden))
    files = [file for images in classes.values() for file in images]
    passed = _hidden_notes(place, hidden)
    if not files:
        raise request.error(
            f"{place}: a split must hold at least one image, this one is empty: images lie in "
            f"{place}/CLASS/, at any depth, with an ending that Pillow reads, such as .png, .jpg "
            f"or .tif; found {_endings(stray) if stray else 'no file outside the classes'}"
            + "".join(f"; {note}" for note in passed)
        )
    _refuse_broken(request, files)
    odd = check_layout(request, place, classes, whole=whole)
    notes = [f"left out {left_out.total()} files ({_endings(left_out)})"] if left_out else []
    if stray:
        notes.append(f"left out {stray.total()} files outside the classes ({_endings(stray)})")
    if empty:
        notes.append(f"left out {len(empty)} empty class folders ({', '.join(empty[:8])})")
    notes += passed

    def pictures(rows: RowArray, size: int) -> Pictures:
        return ((f"task {request.task!r}: {files[row]}", files[row]) for row in rows)

    return RawSplit(
        labels=np.repeat([*classes], [len(images) for images in classes.values()]),
        classes=None,
        where=str(place),
        pictures=pictures,
        notes=(*notes, *odd),
    )


def _hidden_notes(place: Path, hidden: Sequence[Path]) -> list[str]:
    """A note of the images among what is hidden, if there are any."""
    passed = hidden_files(hidden, SUFFIXES)
    places = sorted(each.relative_to(place).as_posix() for each in passed)
    shown = some(places, most=4)
    return [f"left out {passed.total()} images under hidden names ({shown})"] if passed else []


def _holds_images(request: Request, folder: Path) -> bool:
    """Whether images lie in a folder, at any depth, but not in splits of its own."""
    if any(names_split(below.name) for below in user_folders(folder)):
        return False
    return any(_is_image(file) for file in user_files(request, folder, deep=True))


def _sorted_out(
    request: Request, folder: Path, hidden: list[Path]
) -> tuple[list[Path], Counter[str]]:
    """The images below a folder, and the number of other files by the ending of their names."""
    images, others = [], Counter[str]()
    for file in sorted(user_files(request, folder, deep=True, hidden=hidden)):
        if _is_image(file):
            images.append(file)
        else:
            others[ending(file)] += 1
    return images, others


def _is_image(file: Path) -> bool:
    """By the ending of its name; a file that has none is looked into."""
    if file.suffix:
        return file.suffix.lower() in SUFFIXES
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


def _endings(counts: Counter[str]) -> str:
    return some([f"{count} {ending}" for ending, count in counts.most_common()], most=6)
