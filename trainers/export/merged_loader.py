"""All networks of an export in one file, merged.pt; to load and run it needs torch alone.

    network = Merged("merged.pt")
    network.tasks                       # their names
    network(images)                     # logits of every task, by its name
    network(images, ["cifar10"])        # of these alone

What tasks share is in the file once, and computed once where they share all of it: a trunk that has
no norms of its own for every task.
"""

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor


class Merged:
    """Networks that share weights.

    Args:
        path: Of merged.pt.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        self.about: Mapping[str, Any] = kept["about"]
        shared = {name: _whole(name, kept) for name in kept["shared"]}
        made: dict[str, Callable[[Tensor], Tensor]] = {}
        self._networks: dict[str, list[str]] = {}
        for task, parts in kept["networks"].items():
            self._networks[task] = [repr(part) for part in parts]
            for part in parts:  # what shares all its tensors is made once
                if repr(part) not in made:
                    made[repr(part)] = _module(part, shared, kept)
        self._made = made

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self._networks)

    @property
    def trunks(self) -> int:
        """How many trunks are computed for all tasks: each once."""
        return len({trunk for trunk, _ in self._networks.values()})

    @torch.no_grad()
    def __call__(self, images: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Map images (B, 3, S, S) to logits (B, classes) by task, of all or of these tasks."""
        found, maps = {}, {}
        for task in self.tasks if tasks is None else tasks:
            trunk, tail = self._networks[task]
            if trunk not in maps:
                maps[trunk] = self._made[trunk](images)
            found[task] = self._made[tail](maps[trunk])
        return found


def _mesh(chosen: Sequence[Tensor]) -> Any:
    """What to index a tensor with, to have these indices of its first dimensions."""
    return torch.meshgrid(*chosen, indexing="ij") if chosen else ()


def _whole(name: str, kept: Mapping[str, Any]) -> Tensor:
    """A shared tensor, from those of its entries that any task has."""
    values, shape = kept["shared"][name], kept["shapes"][name]
    whole = torch.zeros(shape, dtype=values.dtype)
    uses = [part["shared"].values() for parts in kept["networks"].values() for part in parts]
    used = torch.zeros(shape[: kept["depths"][name]], dtype=torch.bool)
    for source, *dims in (use for each in uses for use in each):
        if source == name:
            indices = [_index(at, size, kept) for at, size in zip(dims, shape, strict=False)]
            used[_mesh([index[index >= 0] for index in indices])] = True
    whole[used] = values
    return whole


def _index(at: int | None, size: int, kept: Mapping[str, Any]) -> Tensor:
    """The indices that a task has of a dimension; -1 where it has no channel."""
    index: Tensor = torch.arange(size) if at is None else kept["indices"][at].long()
    return index


def _module(
    part: Mapping[str, Any], shared: Mapping[str, Tensor], kept: Mapping[str, Any]
) -> Callable[[Tensor], Tensor]:
    """A task's part with its weights."""
    packed = bytes(kept["programs"][part["program"]].tolist())
    module = torch.export.load(io.BytesIO(zlib.decompress(packed))).module()
    state = {name: kept["own"][at].clone() for name, at in part["own"].items()}
    for name, (source, *dims) in part["shared"].items():
        whole = shared[source]
        indices = [_index(at, size, kept) for at, size in zip(dims, whole.shape, strict=False)]
        value = whole[_mesh([index.clamp(min=0) for index in indices])]
        for dim, index in enumerate(indices):  # where there is no channel, its weights are 0
            value = value.masked_fill((index < 0).view(-1, *[1] * (value.ndim - dim - 1)), 0)
        state[name] = value.contiguous()
    module.load_state_dict(state, assign=True)
    return module
