"""A row (virtual network): the same module with smaller tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from trainers.networks.division import CONVOLUTIONS, HEADS, Division, Owner, used_by

#: What attention modules call their heads' channels together.
HEAD_CHANNELS = ("attn_dim", "all_head_size", "inner_dim")


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Which indices of a tensor's dimension rows have.

    Attributes:
        index_KN: Of each of K rows, N each, (K, N).
        real_KN: False where what is there counts as 0, (K, N).
        whole: Whether every row has every index.
    """

    index_KN: NDArray[np.int64]
    real_KN: NDArray[np.bool_]
    whole: bool


def find_places(division: Division, kept_KU: NDArray[np.bool_]) -> dict[str, dict[int, Places]]:
    """By the name of a tensor or module and a dimension: which indices rows have.

    All have as many. Of a group of which a row uses fewer units than others, or none, it has some
    that it does not use, whose weights count as 0.

    Args:
        division: Of the whole network.
        kept_KU: What K rows use, (K, units).
    """
    present_KU = division.present(kept_KU)
    return {
        name: {dim: places_of(owner, kept_KU, present_KU) for dim, owner in sorted(dims.items())}
        for name, dims in division.axes.items()
    }


def places_of(owner: Owner, kept_KU: NDArray[np.bool_], present_KU: NDArray[np.bool_]) -> Places:
    """The places of a dimension.

    Args:
        owner: The unit of each index.
        kept_KU: What K rows use.
        present_KU: What they have, of each group as many units.
    """
    index_KN = np.nonzero(used_by(owner, present_KU))[1].reshape(len(kept_KU), -1)
    real_KN = np.take_along_axis(used_by(owner, kept_KU), index_KN, axis=1)
    whole = index_KN.shape[1] == owner.size and bool(real_KN.all())
    return Places(index_KN=index_KN, real_KN=real_KN, whole=whole)


class Row:
    """The part of a network that one row computes.

    Args:
        model: The whole network, or a part that has some of its modules under their names.
        division: Of the whole network.
        kept: (units,), what the row uses.
    """

    def __init__(self, model: nn.Module, division: Division, kept: NDArray[np.bool_]) -> None:
        #: Its places, by the name of a tensor and a dimension.
        self.places = find_places(division, kept[None])
        #: A copy that shares all tensors, but knows the sizes of the smaller ones.
        self.module = resized(model, self.places)
        self._taken: dict[tuple[str, int, torch.device], _Taken] = {}

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The row's part of the whole network's tensors; gradients reach these."""
        found = dict(tensors)
        for name in found.keys() & self.places.keys():
            for dim, places in self.places[name].items():
                if not places.whole:
                    key = name, dim, found[name].device
                    if key not in self._taken:
                        self._taken[key] = _Taken(places, key[2])
                    found[name] = self._taken[key](found[name], dim)
        return found

    def __call__(self, tensors: Mapping[str, Tensor], *inputs: Tensor) -> Any:
        """What the row computes with its own, smaller tensors, as the network gives it."""
        return functional_call(self.module, dict(tensors), inputs)

    def alone(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """The row as a module of its own, with copies of its part of these tensors."""
        own = {name: value.detach().clone() for name, value in self.gather(tensors).items()}
        return bound(self.module, own)


def bound(model: nn.Module, tensors: Mapping[str, Any]) -> nn.Module:
    """A copy of a network's modules that has other tensors, by their names."""
    found = _copied(model, lambda module, name: None)
    for name, value in tensors.items():
        parent, _, child = name.rpartition(".")
        module = found.get_submodule(parent)
        if child in module._parameters:
            is_leaf = isinstance(value, nn.Parameter)
            module._parameters[child] = (
                value if is_leaf else nn.Parameter(value, value.requires_grad)
            )
        else:
            module._buffers[child] = value
    return found


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def resized(model: nn.Module, places: Mapping[str, Mapping[int, Places]]) -> nn.Module:
    """A copy of a network that shares all tensors, but knows the sizes of rows' smaller ones."""

    def count(name: str, dim: int, whole: int) -> int:
        found = places.get(name, {}).get(dim)
        return whole if found is None else found.index_KN.shape[1]

    def resize(module: nn.Module, name: str) -> None:
        if isinstance(module, CONVOLUTIONS):
            outs = count(f"{name}.weight", 0, module.out_channels)
            per_group = module.out_channels // module.groups
            if module.groups > 1:
                module.in_channels = module.in_channels // module.groups * (outs // per_group)
                module.groups = outs // per_group
            else:
                module.in_channels = count(f"{name}.weight", 1, module.in_channels)
            module.out_channels = outs
        elif isinstance(module, nn.Linear):
            module.out_features = count(f"{name}.weight", 0, module.out_features)
            module.in_features = count(f"{name}.weight", 1, module.in_features)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.normalized_shape = (
                *module.normalized_shape[:-1], count(name, 0, module.normalized_shape[-1]),
            )  # fmt: skip
        elif isinstance(module, nn.GroupNorm):
            per_group = module.num_channels // module.num_groups
            module.num_channels = count(name, 0, module.num_channels)
            module.num_groups = module.num_channels // per_group
        elif isinstance(module, nn.PReLU):
            module.num_parameters = count(f"{name}.weight", 0, module.num_parameters)
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            module.num_features = count(name, 0, module.num_features)
        elif name in places and (found := [each for each in HEADS if hasattr(module, each)]):
            attribute = found[0]
            heads = getattr(module, attribute)
            kept = count(name, 0, heads)
            for each in HEAD_CHANNELS:
                if hasattr(module, each):
                    setattr(module, each, getattr(module, each) // heads * kept)
            setattr(module, attribute, kept)

    return _copied(model, resize)


class _Taken:
    """Takes part of a tensor along a dimension.

    Args:
        places: Of one row.
        device: Of the tensor.
    """

    def __init__(self, places: Places, device: torch.device) -> None:
        self._index = torch.from_numpy(places.index_KN[0]).to(device)
        real = places.real_KN[0]
        self._unreal = None if real.all() else torch.from_numpy(~real).to(device)

    def __call__(self, tensor: Tensor, dim: int) -> Tensor:
        part = tensor.index_select(dim, self._index)
        if self._unreal is None:
            return part
        shape = [-1 if d == dim else 1 for d in range(tensor.ndim)]
        return part.masked_fill(self._unreal.view(shape), 0.0)


def _copied(model: nn.Module, visit: Callable[[nn.Module, str], None]) -> nn.Module:
    """A copy of a network's modules, not of its tensors; each is visited, with its name."""
    copies: dict[nn.Module, nn.Module] = {}
    names = {module: name for name, module in model.named_modules()}

    def copied(module: nn.Module) -> nn.Module:
        if module not in copies:
            copies[module] = found = copy.copy(module)
            for own, value in module.__dict__.items():
                if own in ("_parameters", "_buffers") or own.endswith("_hooks"):
                    found.__dict__[own] = copy.copy(value)
            found.__dict__["_modules"] = {
                key: None if child is None else copied(child)
                for key, child in module._modules.items()
            }
            mend(found)
            visit(found, names[module])
        return copies[module]

    return copied(model)


class Conv2d(nn.Conv2d):
    """torch's, which takes of its maps what it reads before it computes where it is pointwise.

    On processors oneDNN's gradient of such a convolution's weights writes past its room where there
    are fewer input channels than a block (8 with AVX2, 16 with AVX-512) and the maps are channels
    last, which ends in wrong gradients or a dead process (github.com/uxlfoundation/oneDNN,
    issue 6035, in torch 2.13). Without a stride it does not.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        unpadded = self.padding in ((0, 0), "valid")
        if self.kernel_size != (1, 1) or not unpadded or self.groups > 1 or self.stride == (1, 1):
            found: Tensor = super()._conv_forward(input, weight, bias)
            return found
        read = F.avg_pool2d(input, 1, self.stride)  # unlike a slice, it keeps the layout
        return F.conv2d(read, weight, bias)


def mend(module: nn.Module) -> None:
    """Make a convolution of torch's one of those here; others stay as they are."""
    if type(module) is nn.Conv2d:
        module.__class__ = Conv2d
