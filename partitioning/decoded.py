"""What all spaces have in common: what a vector means, and how vectors and names are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from partitioning.masks import ChannelGroup, Masks
from partitioning.sharing import FloatArray
from partitioning.solver import Solution


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What a vector means.

    Attributes:
        masks: the masks of all groups.
        solutions: where masks are solved for, the solver's report by group, and by
            "<group>.backward"; empty where the vector says which channels are used.
        target: the refined P (T, T), under the same keys.
        nearest: gives `realisable`.
    """

    masks: Masks
    solutions: Mapping[str, Solution]
    target: Mapping[str, FloatArray]
    nearest: Callable[[], FloatArray | None]

    @cached_property
    def realisable(self) -> FloatArray | None:
        """A vector (dim,) that asks for just what the masks could give.

        As near to the one that was decoded as the space knows; what they differ by had no effect.
        Where masks are solved for it is that of the nearest P that masks could realise, given
        channels enough, as far as the space reaches (see `projection.project`), and None where that
        was not found in time. It is looked for when it is first asked for.
        """
        return self.nearest()


class Space(Protocol):
    """Decodes vectors in [0, 1]^dim; knows nothing of who proposes or evaluates them."""

    dim: int
    use_dims: tuple[int, ...]  # positions that say how many channels a task uses
    use_steps: int | None  # equal parts of their range that mean one use each; None: all differ
    concerns: tuple[tuple[int, ...], ...]  # for every position, the tasks that it is about

    def names(self) -> list[str]:
        """One readable name per position."""
        ...

    def decode(self, vector: ArrayLike) -> Decoded:
        """Masks of a vector (dim,), and how well they fit it."""
        ...

    def encode(self, P: ArrayLike) -> FloatArray:
        """A vector (dim,) that decodes to the target P (T, T) in every group.

        Raises:
            SharingMatrixError: this space cannot reach P; the message says why.
        """
        ...


def check_vector(vector: ArrayLike, names: Sequence[str]) -> FloatArray:
    """A copy of a vector of a space.

    Args:
        vector: (dim,), entries in [0, 1].
        names: of its entries, dim of them.

    Raises:
        ValueError: another shape, or an entry that is NaN or out of range, which is named.
    """
    array = np.array(vector, dtype=np.float64)
    if array.shape != (len(names),):
        raise ValueError(f"the vector must have shape (dim,) = ({len(names)},), got {array.shape}")
    for position in np.flatnonzero(~((array >= 0) & (array <= 1)))[:1]:
        raise ValueError(
            f"entries of the vector must lie in [0, 1], got {names[position]} = {array[position]}"
        )
    return array


def check_names(tasks: Sequence[str], groups: Sequence[ChannelGroup]) -> None:
    """Refuses a space without tasks or channel groups, or with a name twice.

    Raises:
        ValueError: naming them.
    """
    for what, given in (("tasks", list(tasks)), ("groups", [group.name for group in groups])):
        if not given or len(set(given)) != len(given):
            raise ValueError(f"{what} must be at least one and differ, got {given}")
