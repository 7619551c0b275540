"""Masks: which channels of each group every virtual network may use.

A row of the masks is a virtual network, (task, level). Feature partitioning has one level per task;
nested methods have several, each a superset of the one below.

Legend of shapes: R virtual networks, C channels of a group.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np

from partitioning import mask_file
from partitioning.mask_file import MaskFileError, field, from_rows, to_rows
from partitioning.settings import at_least, checked, one_of
from partitioning.sharing import BoolArray, FloatArray, realised

__all__ = ["ChannelGroup", "GroupKind", "MaskFileError", "Masks", "VirtualNetwork"]

GroupKind = Literal["hidden", "heads", "stream"]


@dataclass(frozen=True, kw_only=True)
@checked("group {self.name}: {field}")
class ChannelGroup:
    """A named set of channels that masks may switch off.

    Attributes:
        name: of the layer that makes its channels, such as "stage3.0.conv1".
        width: C, the number of channels, or of units of several that only go together.
        channels: of a unit.
        kind: "hidden" (between two layers, such as the two convolutions of a residual block),
            "heads" (of an attention) or "stream" (what layers are added to, stage by stage).
    """

    name: str
    width: Annotated[int, at_least(1)]
    kind: Annotated[GroupKind, one_of(get_args(GroupKind))] = "hidden"
    channels: Annotated[int, at_least(1)] = 1

    def _check(self) -> None:
        if not self.name:
            raise ValueError("a channel group needs a name, got ''")

    def run(self, multiple_of: int) -> int:
        """How many units have a multiple of so many channels together, the fewest.

        >>> ChannelGroup(name="blocks.0.mlp", width=768).run(8)
        8
        >>> ChannelGroup(name="blocks.0.attn", width=3, kind="heads", channels=64).run(8)
        1
        """
        return min(self.width, multiple_of // math.gcd(multiple_of, self.channels))


@dataclass(frozen=True, kw_only=True)
@checked("task {self.task}: {field}")
class VirtualNetwork:
    """One row of the masks: a task, at one of its levels (from 0; higher levels use more).

    As a string it is the task, followed by "@" and the level where that is above 0.
    """

    task: str
    level: Annotated[int, at_least(0)] = 0

    def _check(self) -> None:
        if not self.task:
            raise ValueError("a virtual network needs a task, got ''")

    def __str__(self) -> str:
        return f"{self.task}@{self.level}" if self.level else self.task


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """The masks of all channel groups. Equal when networks, groups and channels are.

    Attributes:
        networks: what the R rows are, each once.
        groups: the channel groups, each name once.
        forward: for each group a boolean (R, C) array, channels that a network reads. Within a
            task, a higher level has every channel of the lower ones.
        backward: for each group a boolean (R, C) array, channels whose weights a network may
            change: a subset of its forward channels. None where that is all of them.

    The arrays are copied and read-only.

    Raises:
        ValueError: on construction, where any of this does not hold; the message names the group
            and the network.
    """

    networks: tuple[VirtualNetwork, ...]
    groups: tuple[ChannelGroup, ...]
    forward: Mapping[str, BoolArray]
    backward: Mapping[str, BoolArray] | None = None

    def __post_init__(self) -> None:
        """Checks the masks and takes read-only copies."""
        object.__setattr__(self, "networks", tuple(self.networks))
        object.__setattr__(self, "groups", tuple(self.groups))
        if not self.networks or not self.groups:
            raise ValueError("masks need at least one virtual network and one channel group")
        _refuse_repeats("virtual networks", [str(network) for network in self.networks])
        _refuse_repeats("channel groups", [group.name for group in self.groups])
        object.__setattr__(self, "forward", self._checked("forward", self.forward))
        if self.backward is not None:
            object.__setattr__(self, "backward", self._checked("backward", self.backward))
        self._check_subsets()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, each once, in the order of the rows."""
        return tuple(dict.fromkeys(network.task for network in self.networks))

    def row(self, task: str, level: int = 0) -> int:
        """The row of a task at a level.

        Raises:
            KeyError: there is no such virtual network.
        """
        for row, network in enumerate(self.networks):
            if (network.task, network.level) == (task, level):
                return row
        known = ", ".join(str(network) for network in self.networks)
        raise KeyError(f"no virtual network {task} (level {level}); there are: {known}")

    def group(self, name: str) -> ChannelGroup:
        """The channel group of that name.

        Raises:
            KeyError: there is no such group.
        """
        for group in self.groups:
            if group.name == name:
                return group
        known = ", ".join(group.name for group in self.groups)
        raise KeyError(f"no channel group {name}; there are: {known}")

    def realised(self, group: str) -> FloatArray:
        """(R, R): the forward P that one group's masks have."""
        return realised(self.forward[self.group(group).name])

    def use(self) -> FloatArray:
        """(R,): channels that each network reads, of all channels of all groups."""
        used_R = sum(self.forward[group.name].sum(axis=1) * group.channels for group in self.groups)
        return np.asarray(used_R, dtype=np.float64) / self._channels

    def mean_use(self) -> float:
        """Mean of `use` over the networks, in [0, 1]: the cost of a candidate."""
        return float(self.use().mean())

    def mean_realised(self) -> FloatArray:
        """(R, R): the forward P of all groups together, every channel counting once.

        Its diagonal is `use`.
        """
        total_RR = sum(
            self.realised(group.name) * group.width * group.channels for group in self.groups
        )
        return np.asarray(total_RR / self._channels, dtype=np.float64)

    @property
    def _channels(self) -> int:
        """Channels of all groups."""
        return sum(group.width * group.channels for group in self.groups)

    def union(self, group: str) -> BoolArray:
        """(C,): channels of a group that at least one network reads."""
        return np.asarray(self.forward[self.group(group).name].any(axis=0), dtype=np.bool_)

    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal; the same on every machine."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.digest())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the masks to a file, see `mask_file`, completely or not at all.

        Raises:
            OSError: the folder is missing, read-only or full.
        """
        mask_file.write(Path(path), self.to_dict())

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        groups: Sequence[ChannelGroup] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> Masks:
        """Reads what `save` wrote. Nothing in the file is executed.

        Args:
            path: the file.
            groups: the channel groups that the masks must be for, in this order.
            tasks: the tasks that the masks must be for, in this order.

        Raises:
            MaskFileError: another format, version or shape than expected, or masks for other
                groups or tasks.
            OSError: the file cannot be read.
        """
        content = mask_file.read(Path(path))
        try:
            masks = cls.from_dict(content)
        except ValueError as error:
            raise MaskFileError(f"{path} holds no valid masks: {error}") from error
        if groups is not None and masks.groups != tuple(groups):
            raise MaskFileError(
                f"{path} holds masks for the channel groups {_describe(masks.groups)}, "
                f"wanted {_describe(groups)}"
            )
        if tasks is not None and masks.tasks != tuple(tasks):
            raise MaskFileError(
                f"{path} holds masks for the tasks {', '.join(masks.tasks)}; "
                f"wanted {', '.join(tasks)}"
            )
        return masks

    def to_dict(self) -> dict[str, Any]:
        """The content as JSON: networks, and per group a row of 0 and 1 for each network."""
        groups = []
        for group in self.groups:
            entry: dict[str, Any] = {
                "name": group.name,
                "width": group.width,
                "kind": group.kind,
                "channels": group.channels,
            }
            entry["forward"] = to_rows(self.forward[group.name])
            if self.backward is not None:
                entry["backward"] = to_rows(self.backward[group.name])
            groups.append(entry)
        networks = [{"task": network.task, "level": network.level} for network in self.networks]
        return {"networks": networks, "groups": groups}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Masks:
        """What `to_dict` gave.

        Raises:
            ValueError: something is missing, of another type, or not valid masks.
        """
        networks = [
            VirtualNetwork(task=field(entry, "task", str), level=field(entry, "level", int))
            for entry in field(content, "networks", list)
        ]
        groups = []
        sides: dict[str, dict[str, BoolArray]] = {"forward": {}, "backward": {}}
        for entry in field(content, "groups", list):
            name, width = field(entry, "name", str), field(entry, "width", int)
            kind, channels = entry.get("kind"), field(entry, "channels", int)
            groups.append(ChannelGroup(name=name, width=width, kind=kind, channels=channels))
            for side in ["forward", "backward"] if "backward" in entry else ["forward"]:
                rows = field(entry, side, list)
                sides[side][name] = from_rows(rows, width, f"group {name}: {side} masks")
        return cls(
            networks=tuple(networks),
            groups=tuple(groups),
            forward=sides["forward"],
            backward=sides["backward"] or None,
        )

    def _checked(self, side: str, masks: Mapping[str, BoolArray]) -> dict[str, BoolArray]:
        names = {group.name for group in self.groups}
        if set(masks) != names:
            raise ValueError(
                f"{side} masks must be given for the groups {sorted(names)}, got {sorted(masks)}"
            )
        copies = {}
        for group in self.groups:
            array = np.array(masks[group.name])
            expected = (len(self.networks), group.width)
            if array.dtype != np.bool_ or array.shape != expected:
                raise ValueError(
                    f"group {group.name}: {side} masks must be boolean (R, C) = {expected}, "
                    f"got {array.dtype} of shape {array.shape}"
                )
            array.setflags(write=False)
            copies[group.name] = array
        return copies

    def _check_subsets(self) -> None:
        """Backward masks lie inside forward masks, and levels of a task inside higher ones."""
        for group in self.groups:
            forward_RC = self.forward[group.name]
            if self.backward is not None:
                outside_RC = self.backward[group.name] & ~forward_RC
                for row, channel in np.argwhere(outside_RC)[:1]:
                    raise ValueError(
                        f"group {group.name}: backward masks must be subsets of forward masks, but "
                        f"{self.networks[row]} has channel {channel} in its backward mask only"
                    )
            for lower, upper in self._steps():
                if (forward_RC[lower] & ~forward_RC[upper]).any():
                    raise ValueError(
                        f"group {group.name}: {self.networks[upper]} must have every channel of "
                        f"{self.networks[lower]}"
                    )

    def _steps(self) -> Iterator[tuple[int, int]]:
        """Rows of the same task at one level and the next."""
        for task in self.tasks:
            rows = [row for row, network in enumerate(self.networks) if network.task == task]
            rows.sort(key=lambda row: self.networks[row].level)
            yield from pairwise(rows)


def _refuse_repeats(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{what} must differ, got more than once: {', '.join(repeated)}")


def _describe(groups: Sequence[ChannelGroup]) -> str:
    return ", ".join(
        f"{group.name} ({group.width} {_units(group)}, {group.kind})" for group in groups
    )


def _units(group: ChannelGroup) -> str:
    return "channels" if group.channels == 1 else f"units of {group.channels} channels"
