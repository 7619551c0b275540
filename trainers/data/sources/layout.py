"""Folders of classes that may be something else: splits, copies, or a conversion cut short."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from trainers.data.sources.base import Request, some
from trainers.data.sources.pixels import SUFFIXES
from trainers.data.sources.shards import SPLIT_NAMES, names_split

#: One in so many names that are there in two formats makes a conversion, fewer may be by chance.
TWINS = 10


def check_layout(
    request: Request, place: Path, classes: Mapping[str, Sequence[Path]], *, whole: bool
) -> list[str]:
    """Checks that the folders of a split, or of a dataset without splits, are classes.

    Args:
        request: what is read, for messages.
        place: the folder that the classes are in.
        classes: name -> the images below its folder.
        whole: whether the dataset has no splits.

    Returns:
        notes of what is odd but may be meant.

    Raises:
        DataError: they seem to be splits, one of them is a split or a copy of the others, or the
            same images are there in two formats.
    """
    below = {name: _places(place / name, files) for name, files in classes.items()}
    known = {name.casefold() for name in classes}
    for name, found in below.items():
        _refuse_neighbours(request, place / name, found, known)
    nested = {name: found for name, found in below.items() if "." not in found}
    notes = []
    if 2 * sum(len(classes[name]) for name in nested) > sum(map(len, classes.values())):
        notes += _same_folders(request, place, nested, whole=whole)
    if alike := [name for name in classes if _is_split(name)]:
        notes.append(f"named as splits are, and taken for classes: {some(alike)}")
    endings = {name: {ending(file) for file in files} for name, files in classes.items()}
    if len(set().union(*endings.values())) < 2:
        return notes
    _refuse_twice(request, classes)
    mixed = [name for name, found in endings.items() if len(found) > 1]
    return [*notes, *_twins(request, classes, mixed)]


def _places(folder: Path, files: Sequence[Path]) -> set[str]:
    """The folders that files lie in, from that of the class on: "." and "images"."""
    return {place.relative_to(folder).as_posix() for place in {file.parent for file in files}}


def _is_split(name: str) -> bool:
    """Whether a name is a split's alone, as "val2017" is and "freight train" is not."""
    return names_split(name) and len(re.findall("[a-z]+", name.casefold())) == 1


def _refuse_neighbours(request: Request, folder: Path, found: set[str], known: set[str]) -> None:
    """A folder that holds its neighbours' names is a split, or a copy, among the classes."""
    own = folder.name.casefold()
    inner = {place.split("/")[0] for place in found}
    again = sorted(each for each in inner if each.casefold() in known and each.casefold() != own)
    if len(again) > 1 or (again and own in SPLIT_NAMES):
        raise request.error(
            f"the folder {folder} is among the classes and holds folders of their names itself "
            f"({some(again)}), as a split or a copy does; move it out of {folder.parent}"
        )


def _same_folders(
    request: Request, place: Path, nested: Mapping[str, set[str]], *, whole: bool
) -> list[str]:
    """Folders that all hold the same folders may be splits, and those the classes."""
    kept = [{each.casefold() for each in found} for found in nested.values()]
    same = set.intersection(*kept)
    if len(nested) < 2 or len(same) < 2:  # a single one, as of CLASS/images/, divides nothing
        return []
    inner = some(sorted(each for each in next(iter(nested.values())) if each.casefold() in same))
    if not whole:
        return [f"all of the classes {some(sorted(nested))} hold the same folders ({inner})"]
    raise request.error(
        f"the folders {some(sorted(nested))} of {place} all hold the same folders ({inner}), so "
        "that they seem to be splits, and those the classes; set the task's train, validation and "
        "test to the splits' names (test to null where there is none; validation to null, with "
        "validation_fraction); or, where they are the classes, move them into a folder "
        f"{place / 'train'}, and set validation and test to null, with validation_fraction"
    )


def _refuse_twice(request: Request, classes: Mapping[str, Sequence[Path]]) -> None:
    """The same names in two formats are the same images converted, in all classes or in one."""
    names: dict[str, dict[str, set[tuple[str, str]]]] = {}
    for label, files in classes.items():
        for place in ("all classes", f"the class {label!r}"):
            found = names.setdefault(place, {})
            for file in files:
                found.setdefault(ending(file), set()).add((label, file.stem))
    for place, found in names.items():
        for first, second in combinations(sorted(found), 2):
            if found[first] == found[second] and len(found[first]) > 1:
                common = os.path.commonpath([file for files in classes.values() for file in files])
                raise request.error(
                    f"the images of {place} below {Path(common)} are there twice, as {first} and "
                    f"as {second}; remove one of the two"
                )


def _twins(
    request: Request, classes: Mapping[str, Sequence[Path]], mixed: Sequence[str]
) -> list[str]:
    """Names that are there in several formats: a note, or refused where they are many.

    A name of digits alone must be in one folder to be the same, since every camera counts from 1.
    Only the classes `mixed` have several formats.
    """
    twins: list[list[Path]] = []
    total = sum(len(files) for name, files in classes.items() if name not in mixed)
    worst = False
    for files in (classes[name] for name in mixed):
        named: dict[tuple[Path | None, str], dict[str, Path]] = defaultdict(dict)
        for file in files:
            name = _bare(file)
            named[file.parent if name.isdigit() else None, name].setdefault(ending(file), file)
        mine = [[*found.values()] for found in named.values() if len(found) > 1]
        worst |= len(mine) > 1 and 2 * len(mine) >= len(named)
        total += len(named)
        twins += mine
    if not twins:
        return []
    shown = ", ".join(" and ".join(map(str, found)) for found in twins[:2])
    said = f"{len(twins)} of {total} names of images are there in two formats or more"
    if worst or (len(twins) > 1 and TWINS * len(twins) >= total):
        raise request.error(
            f"{said}, as {shown}: an image and its copy would be learnt from and measured on; "
            "remove one of each two"
        )
    return [f"{said} ({shown}): if they are the same image, remove one"]


def _bare(file: Path) -> str:
    """A file's name without endings of images, in small letters: of "7.png.jpg" it is "7"."""
    name = file.stem.casefold()
    stem, end = os.path.splitext(name)
    return stem if end in SUFFIXES else name


def ending(file: Path) -> str:
    """How a file's name ends, in small letters, for people."""
    return file.suffix.lower() or "no ending"
