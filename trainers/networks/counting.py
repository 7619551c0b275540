"""What a row costs, counted from the sizes of its tensors.

How often each weight is used for an image does not depend on masks. So it is measured once, of the
whole network, and a row's multiply-accumulates follow from how many weights it has; those between
activations, in an attention, from how many heads. Weights that are used by functions instead of
layers, as those of `nn.MultiheadAttention`, count by the parameter of their module that has most of
them. What torch's own counter says of the row alone is the same
(`tests/trainers/networks/test_counting.py`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from trainers.networks.division import LAYERS, NORMS, Division, used_by

#: Operators whose floating-point operations are those of weights.
OF_WEIGHTS = ("convolution", "addmm", "mm")
SDPA = "scaled_dot_product_attention"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What rows cost.

    Attributes:
        parameters: Of each row, (R,).
        macs: Multiply-accumulates of each row for one image, (R,).
        union: Parameters of one network that holds all rows: shared ones once, those of norms for
            every row.
    """

    parameters: NDArray[np.int64]
    macs: NDArray[np.int64]
    union: int


class Counter:
    """Counts what rows of a network cost.

    Args:
        model: The whole network.
        division: Of it.
        example: A batch of images.
        of: Parameters that are counted, by name; None for all. Rows have heads of their own.
    """

    def __init__(
        self,
        model: nn.Module,
        division: Division,
        example: Tensor,
        *,
        of: Collection[str] | None = None,
    ) -> None:
        self._division = division
        self._shapes = {
            name: tuple(value.shape)
            for name, value in model.named_parameters()
            if of is None or name in of
        }
        norms = [name for name, module in model.named_modules() if isinstance(module, NORMS)]
        self._own = {f"{name}.{tensor}" for name in norms for tensor in ("weight", "bias")}
        uses, all_of_it = _uses(model, example)
        by_functions, self._between = ({}, {}) if all_of_it else _outside_layers(model, example)
        for name, macs in by_functions.items():
            uses[name] = uses.get(name, 0.0) + macs / model.get_parameter(name).numel()
        self._uses = {name: each for name, each in uses.items() if name in self._shapes}
        #: For each parameter and module the groups that its dimensions are of.
        self._of = {
            name: {n for n, each in enumerate(division.groups) if division.reaches(each, name)}
            for name in division.axes
        }

    def count(self, kept_RU: NDArray[np.bool_]) -> Counts:
        """What rows cost that use these units; one of every group of which they use none."""
        kept_RU = self._division.alone(kept_RU)
        whole_U = np.asarray(kept_RU.all(axis=0))
        changed = {n for n, e in enumerate(self._division.groups) if not whole_U[e.units].all()}
        rows, union = len(kept_RU), 0
        size_R: dict[str, NDArray[np.int64]] = {}
        for name, shape in self._shapes.items():
            whole = math.prod(shape)
            if changed.isdisjoint(self._of.get(name, ())):
                size_R[name] = np.full(rows, whole)
                union += whole * (rows if name in self._own else 1)
            else:
                size_R[name] = self._sizes(name, kept_RU)
                own = name in self._own
                union += int(size_R[name].sum()) if own else self._union(name, kept_RU)
        macs_R = np.zeros(rows)
        for name, uses in self._uses.items():
            macs_R += uses * size_R[name]
        for name, between in self._between.items():
            macs_R += between * self._share(name, kept_RU)
        return Counts(
            parameters=np.sum(list(size_R.values()), axis=0, dtype=np.int64),
            macs=np.rint(macs_R).astype(np.int64),
            union=union,
        )

    def _sizes(self, name: str, kept_RU: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(R,): entries of a parameter that each row has."""
        size_R = np.full(len(kept_RU), self._rest(name))
        for owner in self._division.axes.get(name, {}).values():
            size_R *= used_by(owner, kept_RU).sum(axis=1)
        return size_R

    def _union(self, name: str, kept_RU: NDArray[np.bool_]) -> int:
        """Entries of a parameter that any row has."""
        used = [used_by(o, kept_RU) for o in self._division.axes.get(name, {}).values()]
        if np.all([each.all(axis=1) for each in used], axis=0).any():  # some row has all of it
            return math.prod(self._shapes[name])
        if len(used) == 1:
            return self._rest(name) * int(used[0].any(axis=0).sum())
        one, other = (each.astype(np.float32) for each in used)
        return self._rest(name) * int(np.count_nonzero(one.T @ other))

    def _rest(self, name: str) -> int:
        """Entries of a parameter for each choice of indices of the dimensions that have owners."""
        axes = self._division.axes.get(name, {})
        return math.prod(n for dim, n in enumerate(self._shapes[name]) if dim not in axes)

    def _share(self, name: str, kept_RU: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(R,): share of a module's heads that each row has."""
        axes = self._division.axes.get(name)
        return np.ones(len(kept_RU)) if axes is None else used_by(axes[0], kept_RU).mean(axis=1)


@torch.no_grad()
def _uses(model: nn.Module, example: Tensor) -> tuple[dict[str, float], bool]:
    """How often an image uses each entry of a layer's weight, by the weight's name.

    Returns:
        That, and whether layers do all of the multiplying.
    """
    found: dict[str, float] = {}
    products = _Products()

    def note(name: str, module: nn.Module, out: Tensor) -> None:
        products.by_layers += 1
        made = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        uses = out.numel() / int(made) / len(example)  # type: ignore[arg-type]
        found[f"{name}.weight"] = found.get(f"{name}.weight", 0.0) + uses

    hooks = [
        module.register_forward_hook(lambda m, _, out, name=name: note(name, m, out))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    try:
        with products:
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found, not products.others and products.like_layers <= products.by_layers


class _Products(TorchFunctionMode):
    """Counts what multiplies.

    Attributes:
        like_layers: Calls of functions that layers are made of.
        by_layers: Those that layers made, which is for others to count.
        others: Whether matrices are multiplied in other ways.
    """

    def __init__(self) -> None:
        super().__init__()
        self.like_layers = self.by_layers = 0
        self.others = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a torch function."""
        name = getattr(func, "__name__", "")
        self.like_layers += name == "linear" or name.startswith("conv")
        self.others |= any(word in name for word in ("mm", "matmul", "einsum", "attention"))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def module_macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of a module for an image, as torch counts them.

    Args:
        module: What is run.
        example: A batch of what it reads.
    """
    return round(sum(_flops(module, example)["Global"].values()) / 2 / len(example))


def _flops(module: nn.Module, example: Tensor) -> Mapping[str, Mapping[Any, int]]:
    """By module and operator, and of all together as "Global"."""
    # It takes a second to import.
    from torch.utils.flop_counter import FlopCounterMode

    # Others are fused, and not looked into.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    found: Mapping[str, Mapping[Any, int]] = counter.get_flop_counts()
    return found


@torch.no_grad()
def _outside_layers(
    model: nn.Module, example: Tensor
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Multiply-accumulates for an image that no layer does.

    Returns:
        Those of weights that functions use, by the parameter of the innermost module that has most
        entries, and those between activations, by the innermost module.
    """
    layers = {n for n, module in model.named_modules() if isinstance(module, LAYERS)}
    root = type(model).__name__
    own: dict[str, tuple[float, float]] = {}
    found = {
        name.removeprefix(root).removeprefix("."): operators
        for name, operators in _flops(model, example).items()
        if name != "Global"
    }
    for name in sorted(found, key=len, reverse=True):  # what a module is in is counted after it
        inside = f"{name}." if name else ""
        both = [0.0, 0.0]
        for operator, flops in found[name].items():
            both[str(operator).split(".")[-1] not in OF_WEIGHTS] += flops / 2 / len(example)
        for other, each in own.items():
            if other.startswith(inside):
                both = [whole - part for whole, part in zip(both, each, strict=True)]
        own[name] = both[0], both[1]
    of_weights: dict[str, float] = {}
    between = {name: each[1] for name, each in own.items() if each[1]}
    for name, (macs, _) in own.items():
        if macs and name not in layers:
            inside = f"{name}." if name else ""
            direct = dict(model.get_submodule(name).named_parameters(recurse=False))
            weights = {n: p.numel() for n, p in direct.items() if p.ndim > 1}
            if weights:
                largest = inside + max(weights, key=lambda each: weights[each])
                of_weights[largest] = of_weights.get(largest, 0.0) + macs
            else:  # of a module that is called in parts
                between[name] = between.get(name, 0.0) + macs
    return of_weights, between
