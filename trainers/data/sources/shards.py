"""Files of one split: which there are, whether all are there, and none twice."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

#: "train-00000-of-00003.parquet", or with a hash before the ending.
SHARD = re.compile(r"(?P<split>.+)-(?P<index>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?(?P<end>\.\w+)")

#: What splits are called.
SPLIT_NAMES = frozenset(
    ("train", "training", "validation", "valid", "val", "dev", "eval", "test", "testing")
)


def names_split(name: str) -> bool:
    """Whether one of the words of a name is what splits are called: "cifar10_train", "val2017"."""
    return not SPLIT_NAMES.isdisjoint(re.findall("[a-z]+", name.casefold()))


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
