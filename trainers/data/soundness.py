"""What is wrong or odd about a task's images and labels once they are loaded."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from partitioning import IntArray
from trainers.data.sources import DataError
from trainers.data.sources.base import some
from trainers.data.sources.scale import UNLIKE
from trainers.data.split import Split

#: A standard deviation below this, in shades of 255, looks like no picture: a single pixel that is
#: broken can make a white of its own, beside which all others are black.
LEAST_SPREAD = 6

#: What the brightest pixel of any pictures reaches, in shades of 255.
BRIGHT = 128
#: By how much of the whole range a split's darkest pixel may be brighter than another's.
PALE = 0.4

#: So many images that all differ and are found again in another split are a copy of it.
COPIED = 3


def missing_classes(classes: Sequence[str], labels: Mapping[str, IntArray]) -> list[str]:
    """Notes of classes of which a split has no image.

    Args:
        classes: names of the classes.
        labels: by split, int64 (N,), indices into the classes.
    """
    notes = []
    for name, found in labels.items():
        absent = [classes[k] for k in np.setdiff1d(np.arange(len(classes)), found)]
        if absent:
            notes.append(f"{name} has no image of {len(absent)} of the classes ({some(absent)})")
    return notes


def check_images(
    task: str, classes: Sequence[str], splits: Mapping[str, Split], spread: float
) -> list[str]:
    """Checks that images differ, within a split and between splits and classes.

    Args:
        task: name of the task, for messages.
        classes: names of its classes.
        splits: images decoded.
        spread: the standard deviation of the training pixels, in shades of 255.

    Returns:
        notes of what is odd but may be meant: images in two splits or under two labels, copies,
        hardly any contrast.

    Raises:
        DataError: all images of a split are alike, or black beside those of another, all of one
            split or class are in another, too, or all are there twice.
    """
    digests = {name: _digests(split) for name, split in splits.items()}
    for name, found in digests.items():
        if len(found) > 1 and len(set(found)) == 1:
            shade = splits[name].images[0].unique()
            seen = f"every pixel is {int(shade[0])} of 255" if len(shade) == 1 else "the same image"
            raise DataError(
                f"task {task!r}: all {len(found)} {name} images are alike ({seen}; "
                f"{len(classes)} classes: {', '.join(classes[:8])}); check the files; where "
                "their scale is to blame, set black and white to the values that are"
            )
    owners = _owners(splits, digests)
    _refuse_second_names(task, classes, owners)
    notes = [*_unlike(task, splits), *_shared(task, digests), *_conflicts(classes, owners)]
    # Of a dataset without splits the copies may have been drawn into two of them.
    for found in (*digests.values(), [digest for each in digests.values() for digest in each]):
        times = Counter(found)
        if set(times.values()) == {2} and len(times) >= COPIED:
            raise DataError(
                f"task {task!r}: each of {len(times)} images is there twice, so that the dataset "
                "seems to be there twice; remove one of the two"
            )
    for name, found in digests.items():
        copies = len(found) - len(set(found))
        if 10 * copies >= len(found):
            notes.append(f"{copies} of {len(found)} {name} images are copies of others there")
    if spread < LEAST_SPREAD:
        notes.append("hardly any contrast; set black and white to the values that are")
    return notes


def _unlike(task: str, splits: Mapping[str, Split]) -> list[str]:
    """Notes of splits that are brighter throughout than others; one that is black is refused."""
    ends = {name: [int(x) for x in split.images.aminmax()] for name, split in splits.items()}
    brightest = max(ends, key=lambda name: ends[name][1])
    darkest = min(ends, key=lambda name: ends[name][0])
    notes = []
    for name, (low, high) in ends.items():
        if high * UNLIKE < ends[brightest][1] >= BRIGHT:
            raise DataError(
                f"task {task!r}: no pixel of {name} is above {high} of 255, where {brightest} has "
                f"{ends[brightest][1]}: it would be black; store the values of all splits alike"
            )
        if low - ends[darkest][0] > 255 * PALE:
            notes.append(
                f"no pixel of {name} is below {low} of 255, where {darkest} has "
                f"{ends[darkest][0]}: are the values of all splits stored alike?"
            )
    return notes


def _owners(
    splits: Mapping[str, Split], digests: Mapping[str, list[bytes]]
) -> dict[bytes, set[int]]:
    """Image -> the labels that it stands under, in all splits."""
    owners: dict[bytes, set[int]] = defaultdict(set)
    for name, found in digests.items():
        for digest, label in zip(found, splits[name].labels.tolist(), strict=True):
            owners[digest].add(label)
    return owners


def _refuse_second_names(
    task: str, classes: Sequence[str], owners: Mapping[bytes, set[int]]
) -> None:
    """A class all of whose images are of other classes, too, is a copy of folders in the folder."""
    alone: dict[int, list[bool]] = defaultdict(list)
    for labels in owners.values():
        for label in labels:
            alone[label].append(len(labels) == 1)
    for label, mine in sorted(alone.items()):
        if len(mine) >= COPIED and not any(mine):
            raise DataError(
                f"task {task!r}: all {len(mine)} images of the class {classes[label]!r} are there "
                "under the names of other classes, too, as in a folder that was copied into "
                "itself; remove one of the two"
            )


def _conflicts(classes: Sequence[str], owners: Mapping[bytes, set[int]]) -> list[str]:
    """A note of images that stand under several labels, of which one at most is right."""
    several = [tuple(sorted(labels)) for labels in owners.values() if len(labels) > 1]
    if not several:
        return []
    pairs = Counter(several).most_common()
    shown = [" and ".join(repr(classes[label]) for label in labels[:3]) for labels, _ in pairs[:3]]
    said = f"{len(several)} images stand" if len(several) > 1 else "1 image stands"
    return [
        f"{said} under two labels or more, of which one at most is right ({', '.join(shown)}"
        f"{', ...' if len(pairs) > 3 else ''}): keep the right one of each"
    ]


def _digests(split: Split) -> list[bytes]:
    images = split.images.numpy()
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def _shared(task: str, digests: Mapping[str, list[bytes]]) -> list[str]:
    notes = []
    for first, second in combinations(digests, 2):
        for name, other in ((second, first), (first, second)):
            mine, others = digests[name], set(digests[other])
            again = sum(digest in others for digest in mine)
            # Few images that repeat, as of a pattern, may be in both by their nature.
            if again == len(mine) >= COPIED and len(set(mine)) == len(mine):
                raise DataError(
                    f"task {task!r}: all {len(mine)} {name} images are {other} images, too, so "
                    "that accuracy would be measured on what was trained or chosen on; give "
                    f"{name} images of its own"
                )
            if again and name == second:
                notes.append(
                    f"{again} of {len(mine)} {name} images are {other} images, too, which flatters "
                    "the accuracy: remove the copies"
                )
    return notes
