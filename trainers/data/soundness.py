"""What is wrong or odd about a task's images and labels once they are loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from partitioning import IntArray
from trainers.data.sources import DataError
from trainers.data.tasks import Split

#: Fewer shades than this between the darkest and the brightest pixel of all look like none.
FEW_SHADES = 16

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
            shown = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
            notes.append(f"{name} has no image of {len(absent)} of the classes ({shown})")
    return notes


def check_images(task: str, classes: Sequence[str], splits: Mapping[str, Split]) -> list[str]:
    """Checks that images differ, within a split and between splits.

    Args:
        task: name of the task, for messages.
        classes: names of its classes.
        splits: images decoded.

    Returns:
        notes of what is odd but may be meant: images in two splits, copies, hardly any contrast.

    Raises:
        DataError: all images of a split are alike, or all of one split are in another, too.
    """
    digests = {name: _digests(split) for name, split in splits.items()}
    for name, found in digests.items():
        if len(found) > 1 and len(set(found)) == 1:
            shade = splits[name].images.unique()
            seen = f"every pixel is {int(shade[0])} of 255" if len(shade) == 1 else "the same image"
            raise DataError(
                f"task {task!r}: all {len(found)} {name} images are alike ({seen}; "
                f"{len(classes)} classes: {', '.join(classes[:8])}); check the files; where "
                "their scale is to blame, set black and white to the values that are"
            )
    notes = [*_shared(task, digests)]
    for name, found in digests.items():
        copies = len(found) - len(set(found))
        if 10 * copies >= len(found):
            notes.append(f"{copies} of {len(found)} {name} images are copies of others there")
    low = min(int(split.images.min()) for split in splits.values())
    high = max(int(split.images.max()) for split in splits.values())
    if high - low < FEW_SHADES:
        notes.append(
            f"all pixels lie between {low} and {high} of 255, hardly any contrast; set black and "
            "white to the values that are"
        )
    return notes


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
                notes.append(f"{again} of {len(mine)} {name} images are {other} images, too")
    return notes
