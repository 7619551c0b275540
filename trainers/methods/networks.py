"""Networks that share weights: each row's part of them, and what it has of its own.

Weights and momentum are shared; norms and heads are each row's own. `Network` computes the same for
rows whose weights are the shared ones, and draws one row a step, with momentum of its own (Newell
et al. 2019); here the losses of all rows of a step are added up (Kim et al. 2019, eq. 4).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partitioning import BoolArray, IntArray, Masks
from trainers.network import to_channels_last
from trainers.networks import Backbone, Row, bound, tensors_of

#: What a row's trained tensors are called in a state, beside norms and head.
ADAPTER, HIDDEN = "adapter", "hidden"
#: Likewise, of shared weights: which row owns each (from 1; 0 is nobody's).
OWNER = "owner"
#: Before the names of weights that read images of another size than the backbone's.
STEM = "stem:"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Networks that share weights.

    Attributes:
        masks: Their rows, of the backbone's groups.
        adapters: Every 3x3 convolution of a row has a 1x1 convolution of the row's own beside it,
            with the same input, whose output is added.
        hidden: Of each row, fully connected layers of as many units as there are features, before
            its head.
        pruned: Single weights, not channels, are shared out among the rows: see `prune`.
    """

    masks: Masks
    adapters: bool = False
    hidden: tuple[int, ...] = ()
    pruned: bool = False

    @property
    def copies(self) -> int:
        """How many networks are computed for an image."""
        return 1

    def networks(self, backbone: Backbone, classes: Sequence[int], **where: Any) -> SharedNetworks:
        """The networks, as training begins with them.

        Args:
            backbone: Of which they are rows.
            classes: Of each row's head, (R,).
            where: state, sizes, seed and device of `SharedNetworks`.
        """
        return SharedNetworks(backbone, self, classes, **where)

    def form(self, rows: Sequence[int]) -> list[object]:
        """All that decides what some rows compute, beside masks and weights."""
        return [self.adapters, self.pruned, [self.layers(row) for row in rows]]

    def layers(self, row: int) -> int:
        """How many fully connected layers a row has before its head."""
        return self.hidden[row] if self.hidden else 0


class SharedNetworks:
    """A backbone's weights once, and what each row has of its own.

    Args:
        backbone: The network; all of it is trained, so it has no trunk.
        part: Rows.
        classes: Of each row's head, (R,).
        state: Whole tensors by name that it begins with.
        sizes: Of each row's images, in pixels, (R,); rows of another size than the backbone's have
            a stem in common with rows of that size.
        seed: Of the heads.
        device: Where it is kept.

    Raises:
        ValueError: The backbone has a trunk, or the masks say what rows may change.
    """

    def __init__(
        self,
        backbone: Backbone,
        part: Part,
        classes: Sequence[int],
        *,
        state: Mapping[str, Tensor],
        sizes: Sequence[int],
        seed: int,
        device: torch.device,
    ) -> None:
        if backbone.config.trunk != "train":
            raise ValueError(
                "these methods train all of a network, from the images on: backbone.trunk must be "
                f"train, got {backbone.config.trunk}"
            )
        if part.masks.backward is not None:
            raise ValueError(
                "masks with backward masks are not trained by these methods: every row may change "
                "what it uses"
            )
        self.backbone, self.part = backbone, part
        kept_RU = backbone.kept(part.masks)
        whole = {name: state[name].detach().to(device) for name in tensors_of(backbone.tail)}
        #: Weights that rows share, by name.
        self.shared = {
            name: nn.Parameter(to_channels_last(whole[name].clone()), parameter.requires_grad)
            for name, parameter in backbone.tail.named_parameters()
            if name not in backbone.own
        }
        #: Names of these but for other sizes' stems, which follow.
        self.plain = tuple(self.shared)
        self._sizes = tuple(sizes)
        for size in sorted(set(sizes) - {backbone.boundary[-1]}):
            for name in self.stem_tensors:
                self.shared[_of_stem(size, name)] = nn.Parameter(self.shared[name].detach().clone())
        #: Of those that are shared out one by one: which row owns each weight, from 1.
        self.owner = {
            name: torch.zeros_like(weight, dtype=torch.uint8)
            for name, weight in self.shared.items()
            if part.pruned and weight.ndim > 1
        }
        read_R = backbone.read_by_head(kept_RU)
        self.rows = [
            _Row(
                backbone,
                kept_RU[row],
                {name: whole[name] for name in whole if name not in self.shared},
                backbone.new_head(int(read_R[row]), count, [seed, row]),
                _new_hidden(int(read_R[row]), part.layers(row), [seed, row, 1]),
                device,
            )
            for row, count in enumerate(classes)
        ]
        for row, size in zip(self.rows, sizes, strict=True):
            backbone.set_stride(row.row.module, size)
        if part.adapters:
            for number, row in enumerate(self.rows):
                row.adapt(self.read(number))

    def __call__(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes of the row)."""
        return self.rows[row](self.read(row), images)

    def read(self, row: int) -> Mapping[str, Tensor]:
        """The shared weights as a row reads them: without those that others may change."""
        pruned = self.owner if self.rows[row].pruned else {}
        return {
            name: self.shared[key] * self._own(key, row) if key in pruned else self.shared[key]
            for name, key in self._keys(row).items()
        }

    @property
    def stem_tensors(self) -> list[str]:
        """Names of the tensors of the convolution that reads the images."""
        return [name for name in self.plain if name.startswith(f"{self.backbone.stem}.")]

    def _keys(self, row: int) -> dict[str, str]:
        """By the backbone's name of each shared tensor, which of `shared` a row reads."""
        keys = {name: name for name in self.plain}
        if self._sizes[row] != self.backbone.boundary[-1]:
            keys |= {name: _of_stem(self._sizes[row], name) for name in self.stem_tensors}
        return keys

    def parameters(
        self, rows: Sequence[int], changes: str
    ) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What some rows train: weights of layers, which weight decay pulls on, and the others.

        Args:
            rows: Which.
            changes: As in `Phase`: with "head" it is heads, and what stands before them, alone.
        """
        found = [] if changes == "head" else list(self.shared.values())
        for row in rows:
            found += self.rows[row].parameters(only_head=changes == "head")
        return [p for p in found if p.ndim > 1], [p for p in found if p.ndim <= 1]

    def freeze(self, rows: Sequence[int]) -> list[nn.Parameter]:
        """Compute no gradients of what makes the features of some rows; returns what had some."""
        found = [*self.shared.values(), *(p for row in rows for p in self.rows[row].own.values())]
        frozen = [parameter for parameter in found if parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        return frozen

    @torch.no_grad()
    def used(self, row: int) -> dict[str, Tensor]:
        """Which entries of each shared weight a row uses, by name."""
        found = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in self.shared.items()}
        keys = self._keys(row)
        others = {key: key for key in self.shared if key not in self.plain and not _is_stem(key)}
        for name, key in {**keys, **others}.items():
            weight = self.shared[key]
            found[key] = used = torch.ones_like(weight, dtype=torch.bool)
            for dim, places in self.rows[row].row.places.get(name, {}).items():
                kept = torch.zeros(weight.shape[dim], dtype=torch.bool)
                kept[torch.from_numpy(places.index_KN[0][places.real_KN[0]])] = True
                shape = [-1 if d == dim else 1 for d in range(weight.ndim)]
                used &= kept.to(weight.device).view(shape)
            if key in self.owner and self.rows[row].pruned:
                used &= self._own(key, row)
        return found

    @torch.no_grad()
    def prune(self, row: int, keep: float) -> None:
        """Give a row the largest of the weights that are nobody's yet, and the others back.

        Iterative pruning (Mallya and Lazebnik 2018, PackNet, section 3): from then on the row reads
        what it and the rows before it own, and those that it gave back are 0.

        Args:
            row: Which.
            keep: Share of each layer's weights that are nobody's, in (0, 1].
        """
        for name, owner in self.owner.items():
            free = owner == 0
            count = int(free.sum())
            kept = min(count, max(1, round(keep * count)))
            size = torch.where(free, self.shared[name].abs(), -1.0).flatten()
            # A stable order, so that equal weights are kept alike everywhere.
            first = size.argsort(descending=True, stable=True)[:kept]
            chosen = torch.zeros(owner.numel(), dtype=torch.bool, device=owner.device)
            chosen[first] = True
            owner[chosen.view(owner.shape)] = row + 1
            self.shared[name].masked_fill_(owner == 0, 0.0)
        self.rows[row].pruned = True

    def inherit(self, row: int, source: int) -> None:
        """Let a row begin with the norms of another, of the channels that both have."""
        self.rows[row].begin_with(self.rows[source])

    @torch.no_grad()
    def state(self, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Its tensors by name, on the CPU: shared ones once, and those of all or some rows."""
        found: dict[str, Tensor] = {f"shared.{name}": t for name, t in self.shared.items()}
        found |= {f"{OWNER}.{name}": owner for name, owner in self.owner.items()}
        for number in range(len(self.rows)) if rows is None else rows:
            own = self.rows[number].tensors()
            found |= {f"row{number}.{name}": tensor for name, tensor in own.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors that `state` gave; rows that are not among them stay as they are."""
        for name, weight in self.shared.items():
            weight.copy_(state[f"shared.{name}"])
        for name, owner in self.owner.items():
            owner.copy_(state[f"{OWNER}.{name}"])
        for number, row in enumerate(self.rows):
            for name, tensor in row.tensors().items():
                if f"row{number}.{name}" in state:
                    tensor.copy_(state[f"row{number}.{name}"])
            row.pruned = any(bool((t == number + 1).any()) for t in self.owner.values())

    @torch.no_grad()
    def alone(self, row: int) -> dict[str, Tensor]:
        """A row's tensors as those of a `Network` of that row alone: adapters within the weights.

        Layers that it has before its head are left out.
        """
        own = self.rows[row]
        found = {f"shared.{name}": tensor.clone() for name, tensor in self.read(row).items()}
        for name, adapter in own.adapters.items():
            outs, ins = (_indices(own.row, name, adapter, dim) for dim in (0, 1))
            found[f"shared.{name}"][outs[:, None], ins, 1, 1] += adapter[:, :, 0, 0]
        found |= {
            f"row0.{name}": tensor
            for name, tensor in own.tensors().items()
            if not name.startswith((ADAPTER, HIDDEN))
        }
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}

    @torch.no_grad()
    def stored(self, rows: Sequence[int]) -> int:
        """Numbers that must be kept for some rows: what any of them uses, and their own."""
        used = [self.used(row) for row in rows]
        shared = sum(int(torch.stack([u[name] for u in used]).any(dim=0).sum()) for name in used[0])
        own = {id(t): t.numel() for row in rows for t in self.rows[row].parameters()}
        return shared + sum(own.values())

    def _own(self, name: str, row: int) -> Tensor:
        owner = self.owner[name]
        return (owner > 0) & (owner <= row + 1)


class _Row:
    """One row: its part of the shared weights, and its own norms, layers and head."""

    def __init__(
        self,
        backbone: Backbone,
        kept_U: BoolArray,
        own: Mapping[str, Tensor],
        head: Mapping[str, Tensor],
        hidden: Sequence[tuple[Tensor, Tensor]],
        device: torch.device,
    ) -> None:
        self.row = Row(backbone.tail, backbone.division, kept_U)
        self._of_head = backbone.of_head
        parameters = dict(backbone.tail.named_parameters())
        small = self.row.gather(own)
        self.own = {
            n: nn.Parameter(t.clone(), parameters[n].requires_grad)
            for n, t in small.items()
            if n in parameters
        }
        self.buffers = {n: t.clone() for n, t in small.items() if n not in parameters}
        self.head = tuple(nn.Parameter(head[name].to(device)) for name in backbone.of_head)
        self.hidden = [
            (nn.Parameter(weight.to(device)), nn.Parameter(bias.to(device)))
            for weight, bias in hidden
        ]
        self.adapters: dict[str, nn.Parameter] = {}
        #: Whether the row reads no more than what it and those before it own.
        self.pruned = False

    def adapt(self, shared: Mapping[str, Tensor]) -> None:
        """Add adapters, which begin at 0, so that the row begins as without them."""
        for name, weight in self.row.gather(shared).items():
            if weight.shape[2:] == (3, 3):
                self.adapters[name] = nn.Parameter(weight.new_zeros(*weight.shape[:2], 1, 1))

    def __call__(self, shared: Mapping[str, Tensor], images: Tensor) -> Tensor:
        found = self.row.gather(shared)
        for name, adapter in self.adapters.items():
            # A 1x1 convolution beside a 3x3 one, of its stride, is its kernel's middle.
            found[name] = found[name] + F.pad(adapter, (1, 1, 1, 1))
        _, features = self.row({**found, **self.own, **self.buffers}, images)
        features = features.float()
        for weight, bias in self.hidden:
            features = F.relu(F.linear(features, weight, bias))
        logits: Tensor = F.linear(features, *self.head)
        return logits

    def parameters(self, *, only_head: bool = False) -> list[nn.Parameter]:
        """What it trains of its own."""
        found = [*self.head, *(p for layer in self.hidden for p in layer)]
        return found if only_head else [*found, *self.own.values(), *self.adapters.values()]

    def tensors(self) -> dict[str, Tensor]:
        """All its own tensors by name."""
        found: dict[str, Tensor] = {**self.own, **self.buffers}
        found |= dict(zip(self._of_head, self.head, strict=True))
        found |= {f"{ADAPTER}.{name}": tensor for name, tensor in self.adapters.items()}
        for number, layer in enumerate(self.hidden):
            found |= {f"{HIDDEN}.{number}.{n}": t for n, t in zip(("w", "b"), layer, strict=True)}
        return found

    def frozen_copy(self) -> _Row:
        """The row as it is now, whatever is trained later."""
        found = copy.copy(self)
        for name in ("own", "buffers", "adapters"):
            setattr(found, name, {n: t.detach().clone() for n, t in getattr(self, name).items()})
        found.head = tuple(map(_frozen, self.head))
        found.hidden = [(_frozen(weight), _frozen(bias)) for weight, bias in self.hidden]
        found.row = copy.copy(self.row)
        found.row.module = bound(self.row.module, {})
        return found

    @torch.no_grad()
    def begin_with(self, other: _Row) -> None:
        """Take the norms of another row, of the channels that both have."""
        for mine, theirs in ((self.own, other.own), (self.buffers, other.buffers)):
            for name, tensor in mine.items():
                if not tensor.ndim:
                    tensor.copy_(theirs[name])
                    continue
                at, have = (
                    {int(i): n for n, i in enumerate(_indices(row, name, t, 0))}
                    for row, t in ((self.row, tensor), (other.row, theirs[name]))
                )
                both = sorted(at.keys() & have.keys())
                tensor[[at[i] for i in both]] = theirs[name][[have[i] for i in both]]


def _of_stem(size: int, name: str) -> str:
    return f"{STEM}{size}.{name}"


def _is_stem(name: str) -> bool:
    return name.startswith(STEM)


def _indices(row: Row, name: str, own: Tensor, dim: int) -> IntArray:
    """Which indices of a dimension of a whole tensor a row's own has."""
    places = row.places.get(name, {})
    return places[dim].index_KN[0] if dim in places else np.arange(own.shape[dim])


def _frozen(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), requires_grad=False)


def _new_hidden(features: int, layers: int, seed: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of fully connected layers (He et al. 2015)."""
    rng = np.random.default_rng(seed)
    scale = (2 / features) ** 0.5
    return [
        (
            torch.from_numpy(rng.normal(0.0, scale, (features, features))).float(),
            torch.zeros(features),
        )
        for _ in range(layers)
    ]
