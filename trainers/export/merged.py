"""All networks of an export in one file, in which what tasks share is once.

A tensor that rows share is kept as the entries that any row has, one behind the other; which those
are follows from the rows' channels, which are kept by index. What each row has alone (norms, heads)
is kept where no other has the same. Programs are kept without weights. `merged_loader.py` reads it.
"""

import io
import shutil
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.data import Task
from trainers.export import merged_loader
from trainers.export.compact import RawImages, example_images, program_of
from trainers.network import Network
from trainers.networks import find_places, tensors_of

MERGED = "merged.pt"
#: The page that reads it, as it lies beside it.
LOADER = "merged.py"


class TrunkPart(RawImages):
    """What is before the cut, from images on."""

    def __init__(self, trunk: nn.Module, task: Task, *, raw: bool) -> None:
        super().__init__(task, raw=raw)
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to what crosses the cut."""
        maps: Tensor = self.trunk(self.normalised(images))
        return maps


class TailPart(nn.Module):
    """What is behind the cut, with the head."""

    def __init__(self, tail: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tail, self.head = tail, head

    def forward(self, maps: Tensor) -> Tensor:
        """Map what crosses the cut to logits (B, classes)."""
        logits: Tensor = self.head(self.tail(maps)[1])
        return logits


def save_merged(
    network: Network, tasks: Mapping[str, Task], path: Path, about: Mapping[str, Any], *, raw: bool
) -> dict[str, int]:
    """Write all rows of a network into one file, and the page that reads it beside it.

    Args:
        network: Trained, on the CPU, in evaluation mode.
        tasks: Its tasks.
        path: The file.
        about: What the loader says of itself.
        raw: Whether images are read as they are stored, or normalised.

    Returns:
        Bytes that each row adds to those before it.
    """
    file = _File(network)
    sizes: dict[str, int] = {}
    content: dict[str, Any] = {}
    for row, virtual in enumerate(network.masks.networks):
        task = tasks[virtual.task]
        trunk, tail, head = network.row(row)
        example = example_images(task, raw=raw)
        with torch.no_grad():
            first, behind = TrunkPart(trunk, task, raw=raw).eval(), TailPart(tail, head).eval()
            maps = torch.zeros_like(first(example))
        file.add(row, str(virtual), [(first, example), (behind, maps)])
        content = file.content(about)
        sizes[str(virtual)] = _size(content)
    torch.save(content, path)
    shutil.copyfile(merged_loader.__file__, path.with_name(LOADER))
    before = [0, *list(sizes.values())[:-1]]
    return {name: size - b for (name, size), b in zip(sizes.items(), before, strict=True)}


class _File:
    """What is put into the file, row by row."""

    def __init__(self, network: Network) -> None:
        self._backbone = network.backbone
        self._kept_RU = network.backbone.kept(network.masks)
        trunk = tensors_of(network.trunks[0])
        self._whole = {n: t.detach().cpu() for n, t in trunk.items() if n not in self._backbone.own}
        self._whole |= {n: store.whole().detach().cpu() for n, store in network.stores.items()}
        self._indices = _Distinct()
        self._own = _Distinct()
        self._programs = _Distinct()
        self._networks: dict[str, list[dict[str, Any]]] = {}

    def add(self, row: int, name: str, parts: Sequence[tuple[nn.Module, Tensor]]) -> None:
        """Take in a row's parts, each with an example of what it reads."""
        places = find_places(self._backbone.division, self._kept_RU[row : row + 1])
        self._networks[name] = []
        for module, example in parts:
            shared: dict[str, list[Any]] = {}
            own: dict[str, int] = {}
            for path, tensor in module.state_dict().items():
                prefix, _, inner = path.partition(".")
                if prefix in ("trunk", "tail") and inner in self._whole:
                    shared[path] = [inner, *self._dims(self._whole[inner], places.get(inner, {}))]
                else:
                    own[path] = self._own.add(tensor.detach().contiguous())
            program = self._programs.add(_packed(module, example))
            self._networks[name].append({"program": program, "shared": shared, "own": own})

    def _dims(self, whole: Tensor, places: Mapping[int, Any]) -> list[int | None]:
        """By dimension, up to the last that masks divide: where the row's indices are."""
        taken = {dim: own for dim, own in places.items() if not own.whole}
        found: list[int | None] = [None] * min(whole.ndim, max(places, default=0) + 1)
        for dim, own in taken.items():
            index = np.where(own.real_KN[0], own.index_KN[0], -1)
            narrow = np.int16 if whole.shape[dim] < 2**15 else np.int32
            found[dim] = self._indices.add(torch.from_numpy(index.astype(narrow)))
        return found

    def content(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """What is written for the rows so far."""
        used: dict[str, NDArray[np.bool_]] = {}
        for parts in self._networks.values():
            for source, *dims in (entry for part in parts for entry in part["shared"].values()):
                shape = self._whole[source].shape[: len(dims)]
                mask = used.setdefault(source, np.zeros(shape, dtype=np.bool_))
                chosen = [
                    np.arange(size) if at is None else self._indices.values[at].numpy()
                    for at, size in zip(dims, shape, strict=True)
                ]
                mask[np.ix_(*(index[index >= 0] for index in chosen))] = True
        return {
            "about": dict(about),
            "shared": {n: self._whole[n][torch.from_numpy(m)].clone() for n, m in used.items()},
            "shapes": {name: list(self._whole[name].shape) for name in used},
            "depths": {name: mask.ndim for name, mask in used.items()},
            "indices": self._indices.values,
            "own": self._own.values,
            "programs": self._programs.values,
            "networks": self._networks,
        }


class _Distinct:
    """Tensors, each once, by number."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self._known: dict[tuple[Any, ...], int] = {}

    def add(self, tensor: Tensor) -> int:
        """The number of a tensor, that of an equal one if there is one."""
        array = tensor.numpy()
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(tensor.clone())
        return self._known[key]


def _packed(module: nn.Module, example: Tensor) -> Tensor:
    """A module as a program without weights, compressed, (bytes,) uint8."""
    program = program_of(module, example)
    state = program.state_dict
    for name, tensor in state.items():
        nothing = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        is_parameter = isinstance(tensor, nn.Parameter)
        state[name] = nn.Parameter(nothing, requires_grad=False) if is_parameter else nothing
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # that weights are not there
        torch.export.save(program, buffer)
    return torch.frombuffer(bytearray(zlib.compress(buffer.getvalue(), 9)), dtype=torch.uint8)


def _size(content: Mapping[str, Any]) -> int:
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.tell()
