"""A row of several candidates side by side, and how its weights are trained.

Candidates differ by their masks alone: they start from the same weights and see the same images, so
one pass serves all of them (`torch.func.vmap`). The weights that rows share lie in stores, in
single precision; what a row uses of them is gathered before a step and put back after it, so that a
step never changes a weight that the row does not use (Newell et al. 2019, A.2, "Momentum").
Candidates that use fewer units than others are padded with such whose weights count as 0 and stay
as they are, so that a candidate's result does not depend on who is beside it.

Legend of shapes: K candidates, B images, C indices of a dimension and N of them that a row uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainers.networks.division import LAYERS, NORMS, Division, Owner
from trainers.networks.row import Places, bound, find_places, places_of, resized
from trainers.optim import buffers_of, load_buffers, sgd_step

#: Those that normalise by the statistics of a batch.
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


class Store:
    """One tensor of a network for every candidate, of which rows gather their parts.

    Args:
        tensor: The whole one.
        dims: Its dimensions that are divided, ascending.
        candidates: K.
        device: Where it is kept.
    """

    def __init__(
        self, tensor: Tensor, dims: Sequence[int], candidates: int, device: torch.device
    ) -> None:
        self.dims = tuple(dims)
        #: The order of its dimensions here, behind that of candidates: the divided ones first.
        self.order = [0, *(1 + d for d in dims)]
        self.order += [1 + d for d in range(tensor.ndim) if d not in dims]
        own = tensor.detach().float().to(device)[None].permute(self.order)
        #: (K, ...), in single precision.
        self.data = own.expand(candidates, *own.shape[1:]).contiguous().clone()

    def whole(self) -> Tensor:
        """The first candidate's tensor, its dimensions in their own order."""
        return self.data.permute([self.order.index(d) for d in range(len(self.order))])[0]


class Part:
    """What a row has of a store, for all candidates.

    Args:
        value: Room for what a forward pass reads and a backward pass gives a gradient, (K, ...).
        store: What it is gathered from and put back to.
        index: Positions in the store's divided dimensions and that of candidates together; None
            where it is all of the store.
        decays: Whether weight decay pulls on it.
        real: 0.0 where it counts as 0, in the store's order of dimensions; None where nothing does.
        free: Likewise, 1.0 where the row may change it; None where it may all.

    Attributes:
        leaf: The value, without the dimension of candidates where there is one.
        exact: What the store has of it, as last gathered or updated, in the store's order.
        momentum: Of the row, likewise; None before the first step.
    """

    def __init__(
        self,
        value: Tensor,
        store: Store,
        *,
        index: Tensor | None,
        decays: bool,
        real: Tensor | None,
        free: Tensor | None,
    ) -> None:
        self.leaf = nn.Parameter(value[0] if len(value) == 1 else value)
        self._store, self._index, self._decays = store, index, decays
        self._real, self._free = real, free
        self._laid = value.permute(store.order)
        self.exact = store.data
        self.momentum: Tensor | None = None

    @torch.no_grad()
    def gather(self) -> None:
        """Read the part as other rows have left it."""
        if self._index is not None:
            flat = self._store.data.flatten(0, len(self._store.dims))
            self.exact = flat.index_select(0, self._index).view(self._laid.shape)
        self._laid.copy_(self.exact if self._real is None else self.exact * self._real)

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """One update of SGD (Nesterov's form), with momentum of the row's own."""
        if self.leaf.grad is None:
            return
        given = self.leaf.grad
        given = given if given.ndim == self._laid.ndim else given[None]
        # Laid out and rounded as the layer wants it.
        gradient = torch.empty_like(self.exact).copy_(given.permute(self._store.order))
        if self._decays and weight_decay:
            gradient.add_(self.exact, alpha=weight_decay)
        if self._free is not None:
            gradient.mul_(self._free)
        if momentum:
            if self.momentum is None:
                self.momentum = torch.zeros_like(gradient)
            self.momentum.mul_(momentum).add_(gradient)
            gradient.add_(self.momentum, alpha=momentum)
        self.exact.sub_(gradient, alpha=learning_rate)
        self.leaf.grad = None
        if self._index is not None:
            divided = len(self._store.dims)
            flat = self._store.data.flatten(0, divided)
            flat.index_copy_(0, self._index, self.exact.flatten(0, divided))


def own_tensors(model: nn.Module) -> set[str]:
    """Names of the parameters and buffers that every row has of its own: those of norms."""
    return {
        f"{name}.{tensor}"
        for name, module in model.named_modules()
        if isinstance(module, NORMS)
        for tensor, _ in (
            *module.named_parameters(recurse=False), *module.named_buffers(recurse=False),
        )
    }  # fmt: skip


def make_stores(
    model: nn.Module,
    division: Division,
    divided: NDArray[np.bool_],
    state: Mapping[str, Tensor],
    candidates: int,
    device: torch.device,
) -> dict[str, Store]:
    """A store for every parameter of a network, or a part of one, that rows share.

    Args:
        model: The network or part.
        division: Of the whole network.
        divided: Which units masks divide, (units,).
        state: The whole parameters, by name.
        candidates: K, which all begin with these.
        device: Where they are kept.
    """
    own = own_tensors(model)

    def dims(name: str) -> list[int]:
        owners = division.axes.get(name, {})
        return sorted(dim for dim, owner in owners.items() if divided[owner[owner >= 0]].any())

    return {
        name: Store(state[name], dims(name), candidates, device)
        for name, _ in model.named_parameters()
        if name not in own
    }


class Stack:
    """A row of K candidates.

    Args:
        model: The network, or the part of one, that rows divide.
        division: Of the whole network.
        kept_KU: What each candidate's row uses, (K, units).
        stores: Of `make_stores`, shared with other rows.
        own: Whole tensors by name, of norms and buffers at least, that the row's begin with.
        free_KU: What each candidate's row may change; None for all that it uses.
        kind: Type that weights of layers are multiplied in.
    """

    def __init__(
        self,
        model: nn.Module,
        division: Division,
        kept_KU: NDArray[np.bool_],
        stores: Mapping[str, Store],
        own: Mapping[str, Tensor],
        *,
        free_KU: NDArray[np.bool_] | None = None,
        kind: torch.dtype = torch.float32,
    ) -> None:
        self.candidates = len(kept_KU)
        self._device = next(iter(stores.values())).data.device
        self._kept_KU, self._present_KU = kept_KU, division.present(kept_KU)
        self._places = find_places(division, kept_KU)
        self._free_KU, self._division = free_KU, division
        self.module = resized(model, self._places)
        layers = {
            f"{name}.weight" for name, m in model.named_modules() if isinstance(m, LAYERS)
        }  # fmt: skip
        self.parts: dict[str, Part] = {}
        #: What the row has of its own, without the dimension of candidates where there is one.
        self.alone: dict[str, nn.Parameter] = {}
        for name, whole in model.named_parameters():
            if name in stores:
                self.parts[name] = self._shared(
                    name, stores[name], name in layers, kind if name in layers else torch.float32
                )
                self.parts[name].leaf.requires_grad_(whole.requires_grad)
            else:
                value = self._taken(name, own[name])
                value = value[0] if self.candidates == 1 else value
                self.alone[name] = nn.Parameter(value, requires_grad=whole.requires_grad)
        self._optimizer: torch.optim.SGD | None = None
        if self.alone:
            self.learn(self.alone.values(), decays=False)
        self.buffers: dict[str, Tensor] = {}
        for name, buffer in model.named_buffers():
            found = self._taken(name, own.get(name, buffer))
            self.buffers[name] = found[0] if self.candidates == 1 else found
        if self.candidates == 1:
            self.module = bound(self.module, {**self._leaves(), **self.buffers})
        self._norms = [m for m in self.module.modules() if isinstance(m, BATCH_NORMS)]

    def own(self) -> dict[str, Tensor]:
        """The tensors that the row has alone, by name: (N, ...) or, of several, (K, N, ...)."""
        names = own_tensors(self.module)
        buffers = {name: value for name, value in self.buffers.items() if name in names}
        return {name: value.detach() for name, value in {**self.alone, **buffers}.items()}

    def learn(self, parameters: Iterable[nn.Parameter], *, decays: bool) -> None:
        """Update more parameters than the model's, with those that the row has alone.

        Args:
            parameters: Such as those of a head.
            decays: Whether weight decay pulls on them.
        """
        group = {"params": list(parameters), "decays": decays}
        if self._optimizer is None:
            self._optimizer = torch.optim.SGD([group], foreach=True)
        else:
            self._optimizer.add_param_group(group)

    def gather(self) -> None:
        """Read the weights as other rows have left them."""
        for part in self.parts.values():
            part.gather()

    def step(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """Update with the gradients of a loss, then clear them; SGD in Nesterov's form.

        The row keeps momentum of its own for weights that it shares, too.
        """
        for part in self.parts.values():
            part.step(learning_rate, momentum, weight_decay)
        if self._optimizer is not None:
            sgd_step(self._optimizer, learning_rate, momentum, weight_decay)

    def momentum(self) -> dict[str, Tensor]:
        """What the steps before left behind, by name, as it is."""
        found = {f"part.{n}": p.momentum for n, p in self.parts.items() if p.momentum is not None}
        if self._optimizer is not None:
            found |= {f"own.{n}": tensor for n, tensor in buffers_of(self._optimizer).items()}
        return found

    def go_on(self, momentum: Mapping[str, Tensor]) -> None:
        """Take what `momentum` gave of a row with the same masks."""
        for name, tensor in named_below("part", momentum).items():
            part = self.parts[name]
            part.momentum = torch.empty_like(part.exact).copy_(tensor)
        if self._optimizer is not None:
            load_buffers(self._optimizer, named_below("own", momentum))

    def __call__(self, x: Tensor) -> Any:
        """What the model gives, with weights as last gathered; behind K where there are several."""
        if self.candidates == 1:
            return self.module(x)

        def run(tensors: dict[str, Tensor], x: Tensor) -> Any:
            return functional_call(self.module, tensors, (x,))

        return vmap(run, in_dims=(0, None))({**self._leaves(), **self.buffers}, x)

    def _leaves(self) -> dict[str, Tensor]:
        return {**{name: part.leaf for name, part in self.parts.items()}, **self.alone}

    def imitate(self) -> None:
        """Be as in evaluation, but for batch norms, which go by the batch."""
        self.module.eval()
        for norm in self._norms:
            norm.momentum = 1.0
            norm._buffers["num_batches_tracked"] = None
        self.by_batch(training=True)

    def by_batch(self, *, training: bool, remembered: bool = False) -> None:
        """Let batch norms go by the batch, or by the statistics that they remember.

        Args:
            training: Go by the batch.
            remembered: And remember it, which takes a fifth of a norm's time.
        """
        for norm in self._norms:
            norm.training, norm.track_running_stats = training, remembered

    def places_of(self, owner: Owner) -> Places:
        """Which indices of a dimension the row has, by the unit of each."""
        return places_of(owner, self._kept_KU, self._present_KU)

    def _taken(self, name: str, tensor: Tensor) -> Tensor:
        """(K, ...): the row's part of a whole tensor, 0 where it counts as such."""
        found = tensor.detach().to(self._device).expand(self.candidates, *tensor.shape)
        for dim, places in self._places.get(name, {}).items():
            if not places.whole:
                index = torch.from_numpy(places.index_KN).to(self._device)
                shape = [-1 if d == dim else 1 for d in range(tensor.ndim)]
                index = index.view(self.candidates, *shape)
                sizes = list(found.shape)
                sizes[1 + dim] = index.shape[1 + dim]
                found = found.gather(1 + dim, index.expand(sizes))
                real = torch.from_numpy(places.real_KN).to(self._device)
                found = found * real.view(index.shape).to(found.dtype)
        return found.clone()

    def _shared(self, name: str, store: Store, decays: bool, kind: torch.dtype) -> Part:
        """The row's part of a store."""
        places = {dim: self._places[name][dim] for dim in store.dims}
        sizes = [self.candidates, *(p.index_KN.shape[1] for p in places.values())]
        rest = store.data.ndim - 1 - len(places)
        sizes += store.data.shape[1 + len(places) :]
        value = _empty([sizes[store.order.index(d)] for d in range(len(sizes))], kind, self._device)
        index = None
        if not all(p.whole for p in places.values()):
            flat = torch.arange(self.candidates)
            for number, p in enumerate(places.values()):
                length = store.data.shape[1 + number]
                each = torch.from_numpy(p.index_KN)
                each = each.view(self.candidates, *[1] * number, -1)
                flat = flat[..., None] * length + each
            index = flat.flatten().to(self._device)
        return Part(
            value,
            store,
            index=index,
            decays=decays,
            real=self._product([p.real_KN for p in places.values()], rest),
            free=self._free(name, places, rest),
        )

    def _free(self, name: str, places: Mapping[int, Places], rest: int) -> Tensor | None:
        sides = []
        for dim, p in places.items():
            owner_C = self._division.axes[name][dim]
            free_KN = p.real_KN
            if self._free_KU is not None:
                owner_KN = owner_C[p.index_KN]
                allowed = np.take_along_axis(self._free_KU, np.maximum(owner_KN, 0), axis=1)
                free_KN = free_KN & (allowed | (owner_KN < 0))
            sides.append(free_KN)
        return self._product(sides, rest)

    def _product(self, sides: Sequence[NDArray[np.bool_]], rest: int) -> Tensor | None:
        """(K, N, ..., 1, ...): 1.0 where all sides are true; None where they are everywhere."""
        if all(side.all() for side in sides):
            return None
        found = torch.ones(self.candidates)
        for number, side in enumerate(sides):
            each = torch.from_numpy(side).float().view(self.candidates, *[1] * number, -1)
            found = found[..., None] * each
        return found.view(*found.shape, *[1] * rest).to(self._device)


def _empty(sizes: Sequence[int], kind: torch.dtype, device: torch.device) -> Tensor:
    """Room for a weight (K, ...), of convolutions with channels last, which is fastest."""
    if len(sizes) == 5:
        candidates, outputs, inputs, *kernel = sizes
        found = torch.empty(candidates, outputs, *kernel, inputs, dtype=kind, device=device)
        return found.permute(0, 1, 4, 2, 3)
    return torch.empty(*sizes, dtype=kind, device=device)


def named_below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose name begins with a prefix and a dot, by what follows."""
    at = len(prefix) + 1
    return {name[at:]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
