"""A row (virtual network): the same module with smaller tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from trainers.networks.division import CONVOLUTIONS, HEADS, Division, used_by

#: What attention modules call their heads' channels together.
HEAD_CHANNELS = ("attn_dim", "all_head_size", "inner_dim")


class Row:
    """The part of a network that one row computes.

    Args:
        model: The whole network, or a part that has some of its modules under their names.
        division: Of the whole network.
        kept: (units,), what the row uses.
    """

    def __init__(self, model: nn.Module, division: Division, kept: NDArray[np.bool_]) -> None:
        self._kept = {
            name: {dim: used_by(owner, kept) for dim, owner in dims.items()}
            for name, dims in division.axes.items()
        }
        #: A copy that shares all tensors, but knows the sizes of the smaller ones.
        self.module = _copied(model, self._resize)
        self._index = {
            name: {
                dim: torch.from_numpy(np.flatnonzero(used))
                for dim, used in dims.items()
                if not used.all()
            }
            for name, dims in self._kept.items()
        }

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The row's part of the whole network's tensors; gradients reach these."""
        found = dict(tensors)
        for name, dims in self._index.items():
            if name in found:
                for dim, index in dims.items():
                    found[name] = found[name].index_select(dim, index)
        return found

    def __call__(self, tensors: Mapping[str, Tensor], *inputs: Tensor) -> Any:
        """What the row computes with its own, smaller tensors, as the network gives it."""
        return functional_call(self.module, dict(tensors), inputs)

    def alone(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """The row as a module of its own, with copies of its part of these tensors."""
        found = _copied(self.module, lambda module, name: None)
        for name, value in self.gather(tensors).items():
            parent, _, child = name.rpartition(".")
            module, own = found.get_submodule(parent), value.detach().clone()
            if child in module._parameters:
                module._parameters[child] = nn.Parameter(own)
            else:
                module._buffers[child] = own
        return found

    def _resize(self, module: nn.Module, name: str) -> None:
        if isinstance(module, CONVOLUTIONS):
            outs = self._count(f"{name}.weight", 0, module.out_channels)
            per_group = module.out_channels // module.groups
            if module.groups > 1:
                module.in_channels = module.in_channels // module.groups * (outs // per_group)
                module.groups = outs // per_group
            else:
                module.in_channels = self._count(f"{name}.weight", 1, module.in_channels)
            module.out_channels = outs
        elif isinstance(module, nn.Linear):
            module.out_features = self._count(f"{name}.weight", 0, module.out_features)
            module.in_features = self._count(f"{name}.weight", 1, module.in_features)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.normalized_shape = (
                *module.normalized_shape[:-1], self._count(name, 0, module.normalized_shape[-1]),
            )  # fmt: skip
        elif isinstance(module, nn.GroupNorm):
            per_group = module.num_channels // module.num_groups
            module.num_channels = self._count(name, 0, module.num_channels)
            module.num_groups = module.num_channels // per_group
        elif isinstance(module, nn.PReLU):
            module.num_parameters = self._count(f"{name}.weight", 0, module.num_parameters)
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            module.num_features = self._count(name, 0, module.num_features)
        elif name in self._kept and (found := [each for each in HEADS if hasattr(module, each)]):
            attribute = found[0]
            heads = getattr(module, attribute)
            kept = self._count(name, 0, heads)
            for each in HEAD_CHANNELS:
                if hasattr(module, each):
                    setattr(module, each, getattr(module, each) // heads * kept)
            setattr(module, attribute, kept)

    def _count(self, name: str, dim: int, whole: int) -> int:
        used = self._kept.get(name, {}).get(dim)
        return whole if used is None else int(used.sum())


def _copied(model: nn.Module, visit: Callable[[nn.Module, str], None]) -> nn.Module:
    """A copy of a network's modules, not of its tensors; each is visited, with its name."""
    copies: dict[nn.Module, nn.Module] = {}
    names = {module: name for name, module in model.named_modules()}

    def copied(module: nn.Module) -> nn.Module:
        if module not in copies:
            copies[module] = found = copy.copy(module)
            for own in ("_parameters", "_buffers"):
                found.__dict__[own] = dict(module.__dict__[own])
            found.__dict__["_modules"] = {
                key: None if child is None else copied(child)
                for key, child in module._modules.items()
            }
            visit(found, names[module])
        return copies[module]

    return copied(model)
