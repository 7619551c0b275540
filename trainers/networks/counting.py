"""What a row costs, counted from the sizes of its tensors.

How often each weight is used for an image does not depend on masks. So it is measured once, of the
whole network, and a row's multiply-accumulates follow from how many weights it has; those between
activations, in an attention, from how many heads. What torch's own counter says of the row alone is
the same (`tests/trainers/networks/test_counting.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
        head: A module that is not counted, as rows have others in its place.
    """

    def __init__(
        self, model: nn.Module, division: Division, example: Tensor, *, head: str | None = None
    ) -> None:
        self._division = division

        def counted(name: str) -> bool:
            return head is None or not f"{name}.".startswith(f"{head}.")

        self._shapes = {
            name: tuple(value.shape) for name, value in model.named_parameters() if counted(name)
        }
        norms = [name for name, module in model.named_modules() if isinstance(module, NORMS)]
        self._own = {f"{name}.{tensor}" for name in norms for tensor in ("weight", "bias")}
        uses = _uses(model, example)
        self._uses = {name: each for name, each in uses.items() if name in self._shapes}
        self._between = _between_activations(model, example)
        #: For each parameter and module the groups that its dimensions are of.
        self._of = {
            name: {
                number
                for number, each in enumerate(division.groups)
                for owner in dims.values()
                if np.isin(owner, range(each.units.start, each.units.stop)).any()
            }
            for name, dims in division.axes.items()
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
def _uses(model: nn.Module, example: Tensor) -> Mapping[str, float]:
    """How often an image uses each entry of a layer's weight, by the weight's name."""
    found: dict[str, float] = {}

    def note(name: str, module: nn.Module, out: Tensor) -> None:
        made = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        uses = out.numel() / int(made) / len(example)  # type: ignore[arg-type]
        found[f"{name}.weight"] = found.get(f"{name}.weight", 0.0) + uses

    hooks = [
        module.register_forward_hook(lambda m, _, out, name=name: note(name, m, out))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class _Products(TorchFunctionMode):
    """Notes whether activations are multiplied with each other as matrices."""

    found = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a torch function."""
        name = getattr(func, "__name__", "")
        self.found |= "mm" in name or "matmul" in name or name in ("einsum", SDPA)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _between_activations(model: nn.Module, example: Tensor) -> Mapping[str, float]:
    """Multiply-accumulates for an image that no weight takes part in, by the innermost module."""
    products = _Products()
    with products:
        model(example)
    if not products.found:
        return {}  # torch's counter takes a second to import
    from torch.utils.flop_counter import FlopCounterMode

    # Others are fused, and not looked into.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(example)
    root = type(model).__name__
    counts: dict[str, float] = {}
    for name, operators in counter.get_flop_counts().items():
        if name != "Global":
            others = [v for op, v in operators.items() if str(op).split(".")[-1] not in OF_WEIGHTS]
            counts[name.removeprefix(root).removeprefix(".")] = sum(others) / 2 / len(example)
    own: dict[str, float] = {}
    for name in sorted(counts, key=len, reverse=True):  # what a module is in is counted after it
        inside = f"{name}." if name else ""
        own[name] = counts[name] - sum(v for other, v in own.items() if other.startswith(inside))
    return {name: macs for name, macs in own.items() if macs}
