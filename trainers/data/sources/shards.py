"""Files of one split: which there are, whether all are there, and none twice."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

#: "train-00000-of-00003.parquet", with "_" or "." for "-", or with a hash before the ending.
SHARD = re.compile(
    r"(?P<split>.+)[-_.](?P<index>\d+)[-_.]of[-_.](?P<count>\d+)"
    r"(-[0-9a-f-]+)?(?P<end>(\.\w+)+)"
)

#: How the names of parquet files end; only those that end in the first, as it is, are read.
PARQUET = (".parquet", ".pq", ".parq")

#: What splits are called.
SPLIT_NAMES = frozenset(
    ("train", "training", "validation", "valid", "val", "dev", "eval", "test", "testing")
)


#: What may follow in one word: "trainset", "testdata".
PARTS = re.compile("(set|data|split|images|imgs|files)$")


def names_split(name: str) -> bool:
    """Whether a word of a name is what splits are called: "cifar10_train", "val2017", "testset"."""
    words = re.findall("[a-z]+", name.casefold())
    return not SPLIT_NAMES.isdisjoint([*words, *(PARTS.sub("", word) for word in words)])


def split_files(folder: Path, split: str | None = None) -> dict[str, list[Path]]:
    """The parquet files of a folder, and of the folder data in it where the Hub keeps them.

    Args:
        folder: is there.
        split: only of this split; None is of all.

    Returns:
        by name of the split, the files in the order of their rows.

    Raises:
        ValueError: a shard is missing, or a split is there twice: as one file and as shards, in
            two sets of shards, or in both folders.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted((*folder.glob("*.parquet"), *(folder / "data").glob("*.parquet"))):
        if file.is_file() and not file.name.startswith("."):
            shard = SHARD.fullmatch(file.name)
            found[shard["split"] if shard else file.stem].append(file)
    for name, files in found.items():
        if split in (None, name):
            check_whole(files)
    return dict(found)


def unread_files(folder: Path, read: Iterable[Path]) -> list[str]:
    """Names of the parquet files in a folder, and below it, that are not read.

    Args:
        folder: is there.
        read: the files that are.

    Returns:
        names from the folder on, hidden ones among them; not those of macOS's attributes.
    """
    known, found, seen = set(read), [], set()
    for name, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(name) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(name))
        for file in files:
            path = Path(name, file)
            if path.suffix.lower() in PARQUET and not file.startswith("._") and path not in known:
                found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def check_whole(files: Iterable[Path]) -> None:
    """Checks that files of one split are all of its shards, or one file.

    Raises:
        ValueError: they are not.
    """
    sets: dict[tuple[Path, str, str], dict[int, list[Path]]] = {}
    for file in files:
        shard = SHARD.fullmatch(file.name)
        key = (file.parent, shard["count"] if shard else "", shard["end"] if shard else file.name)
        index = int(shard["index"]) if shard else 0
        sets.setdefault(key, {}).setdefault(index, []).append(file)
    if len(sets) > 1:
        first, second = (next(iter(found.values()))[0] for found in list(sets.values())[:2])
        raise ValueError(f"{first} and {second} are the same split twice; remove one of the two")
    for (folder, count, _), found in sets.items():
        if twice := next((same for same in found.values() if len(same) > 1), None):
            raise ValueError(f"{twice[0]} and {twice[1]} are the same shard twice; remove one")
        if count and (missing := sorted(set(range(int(count))) - set(found))):
            raise ValueError(
                f"of {int(count)} shards in {folder} {len(missing)} are missing, the first is "
                f"number {missing[0]} (beside {next(iter(found.values()))[0].name}); get the "
                "dataset once more"
            )
        if count and (beyond := sorted(set(found) - set(range(int(count))))):
            raise ValueError(
                f"{found[beyond[0]][0]} counts beyond its own {int(count)} shards; get the "
                "dataset once more"
            )


def check_hub_folder(folder: Path) -> None:
    """Checks every set of shards below a local folder in the Hub's layout.

    Raises:
        ValueError: as for `split_files`.
    """
    split_files(folder)
    found: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if (shard := SHARD.fullmatch(file.name)) and not file.name.startswith("."):
            found[file.parent, shard["split"]].append(file)
    for files in found.values():
        check_whole(files)
