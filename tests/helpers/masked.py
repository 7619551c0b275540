"""Rows as whole networks whose channels are multiplied by masks: what stacks must give."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from trainers.networks import BATCH_NORMS, LAYERS, Backbone, Division, own_tensors
from trainers.networks.division import used_by


def masked(
    tensors: Mapping[str, Tensor], division: Division, kept: NDArray[np.bool_]
) -> dict[str, Tensor]:
    """The whole network's tensors, 0 wherever a layer would read a unit that a row does not use."""
    found = dict(tensors)
    for name, dims in division.axes.items():
        if name in found and 1 in dims:
            used = torch.from_numpy(used_by(dims[1], kept))
            found[name] = found[name] * used.view(1, -1, *[1] * (found[name].ndim - 2))
    return found


class OwnChannels(nn.Module):
    """A layer norm that normalises over some channels alone."""

    def __init__(self, norm: nn.LayerNorm, used: NDArray[np.bool_]) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.used = torch.from_numpy(used)
        self.last = type(norm).__name__ != "LayerNorm2d"

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.last else x.movedim(1, -1)
        own = x[..., self.used] if self.used.any() else torch.zeros_like(x[..., :1])
        mean, var = own.mean(-1, keepdim=True), own.var(-1, keepdim=True, unbiased=False)
        y = ((x - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias) * self.used
        return y if self.last else y.movedim(-1, 1)


def with_own_norms(model: nn.Module, division: Division, kept: NDArray[np.bool_]) -> nn.Module:
    """A copy of a network whose layer norms see the channels that a row uses."""
    whole = copy.deepcopy(model)
    for name, module in list(whole.named_modules()):
        if isinstance(module, nn.LayerNorm) and name in division.axes:
            parent, _, child = name.rpartition(".")
            own = OwnChannels(module, used_by(division.axes[name][0], kept))
            setattr(whole.get_submodule(parent), child, own)
    return whole


def entries(division: Division, name: str, tensor: Tensor, kept: NDArray[np.bool_]) -> Tensor:
    """Which entries of a whole tensor a row has that uses these units."""
    found = torch.ones(tensor.shape, dtype=torch.bool)
    for dim, owner in division.axes.get(name, {}).items():
        used = torch.from_numpy(used_by(owner, kept))
        found &= used.view([-1 if d == dim else 1 for d in range(tensor.ndim)])
    return found


class MaskedRow:
    """A row of the tail, trained by SGD that is written out.

    Args:
        backbone: The network.
        kept: (units,), what the row uses.
        shared: Whole weights by name, which rows share; changed in place.
        own: Whole tensors of norms by name; copied.
        free: (units,), what the row may change; None for all that it uses.
    """

    def __init__(
        self,
        backbone: Backbone,
        kept: NDArray[np.bool_],
        shared: dict[str, Tensor],
        own: Mapping[str, Tensor],
        free: NDArray[np.bool_] | None = None,
    ) -> None:
        self.backbone, self.kept, self.shared = backbone, kept, shared
        division = backbone.division
        self.module = with_own_norms(backbone.tail, division, kept).eval()
        for each in self.module.modules():
            if isinstance(each, BATCH_NORMS):
                each.momentum = 1.0
        names = own_tensors(backbone.tail)
        self.own = {n: value.clone() for n, value in own.items() if n in names}
        learned = {n for n, _ in backbone.tail.named_parameters()}
        for name, value in (*self.own.items(), *shared.items()):
            value.requires_grad_(name in learned)
        allowed = kept if free is None else free
        self.free = {n: entries(division, n, v, allowed) for n, v in shared.items()}
        self.layers = {
            f"{n}.weight" for n, m in backbone.tail.named_modules() if isinstance(m, LAYERS)
        }
        self.momentum: dict[str, Tensor] = {}
        self.by_batch(training=True)

    def by_batch(self, *, training: bool) -> None:
        for each in self.module.modules():
            if isinstance(each, BATCH_NORMS):
                each.training = training

    def __call__(self, x: Tensor) -> Any:
        """Block outputs and features as rows have them, of all channels that they use."""
        own = masked({**self.shared, **self.own}, self.backbone.division, self.kept)
        outputs, features = functional_call(self.module, own, (x,))
        found = []
        for out, output in zip(outputs, self.backbone.outputs, strict=True):
            if output.dim is not None and output.owner is not None:
                used = np.flatnonzero(used_by(output.owner, self.kept))
                out = out.index_select(output.dim, torch.from_numpy(used))
            found.append(out)
        owner = self.backbone.division.axes.get(self.backbone.of_head[0], {}).get(1)
        if owner is not None:
            features = features[:, torch.from_numpy(used_by(owner, self.kept))]
        return found, features

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """Nesterov's form, with decay of what layers multiply by and momentum of the row's own."""
        for name, value in (*self.shared.items(), *self.own.items()):
            if value.grad is None:
                continue
            gradient = value.grad + weight_decay * value * (name in self.layers)
            gradient = gradient * self.free.get(name, torch.ones(1))
            before = self.momentum.get(name, torch.zeros_like(value))
            self.momentum[name] = momentum * before + gradient
            value -= learning_rate * (gradient + momentum * self.momentum[name])
            value.grad = None
