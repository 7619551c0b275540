"""Which entries of a network's tensors belong to which channel, for any network.

The dependency graph of torch-pruning (Fang et al. 2023, "DepGraph: towards any structural pruning")
says which layers share a channel dimension. From it every tensor gets, for each of its dimensions,
the unit that an index belongs to. A unit is the least that can be masked: a channel, or the
channels of a convolution group, of a normalisation group or of an attention head, which only go
together. Units that are alike form a group, over which a mask is defined. So a row (virtual
network) is the same module with smaller tensors, and nothing here knows a family of networks.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from partitioning import ChannelGroup, GroupKind

#: For every index of a tensor's dimension the number of its unit, -1 where it belongs to none.
Owner = NDArray[np.int64]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (
    nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.LayerNorm,
    nn.GroupNorm, nn.RMSNorm,
)  # fmt: skip
LAYERS = (*CONVOLUTIONS, nn.Linear)
#: What has a weight for every channel, or one for all.
CHANNELWISE = (*NORMS, nn.PReLU)
#: Behind the name of a grouped convolution: what it reads, which its weight has no dimension for.
INPUTS = ".<inputs>"
#: What attention modules call the number of their heads.
HEADS = ("num_heads", "num_attention_heads")


class UntraceableError(ValueError):
    """A network of which it cannot be found out how its layers depend on each other."""


@dataclass(frozen=True, kw_only=True)
class Divisible:
    """A group of units, which masks may switch off.

    Attributes:
        group: Its name, which is that of the layer that makes it, how many units it has, and kind:
            hidden, heads or stream.
        first: Number of its first unit; the others follow.
    """

    group: ChannelGroup
    first: int

    @property
    def units(self) -> slice:
        """Where its units are among those of all groups."""
        return slice(self.first, self.first + self.group.width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Division:
    """How a network can be divided.

    Attributes:
        groups: In the order of the network.
        axes: The owner of each of a tensor's dimensions that has any, by its name; also, as
            dimension 0 of a module's name, of the features that it normalises or its heads.
        refused: Why the channels that a layer makes cannot be divided, by its name.
    """

    groups: tuple[Divisible, ...]
    axes: Mapping[str, Mapping[int, Owner]]
    refused: Mapping[str, str]

    @property
    def units(self) -> int:
        """Units of all groups together."""
        return sum(each.group.width for each in self.groups)

    def reaches(self, each: Divisible, name: str) -> bool:
        """Whether a tensor, or what a module of that name normalises, has units of a group."""
        units = range(each.units.start, each.units.stop)
        return any(np.isin(owner, units).any() for owner in self.axes.get(name, {}).values())

    def kept(self, forward: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """(units,): whether a row uses a unit.

        Args:
            forward: The row's masks by the name of a group; others are used in full.
        """
        kept = np.ones(self.units, dtype=np.bool_)
        for each in self.groups:
            if each.group.name in forward:
                kept[each.units] = forward[each.group.name]
        return kept

    def read_by(self, module: str, width: int) -> Owner | None:
        """The unit of each of so many features that a module reads; None where they have none."""
        for name, dims in self.axes.items():
            if name.startswith(f"{module}.") and 1 in dims and dims[1].size == width:
                return dims[1] if (dims[1] >= 0).any() else None
        return None

    def alone(self, kept_RU: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Units that each row has by itself: those that it uses, and one of a group without any."""
        alone_RU = kept_RU.copy()
        for each in self.groups:
            alone_RU[~alone_RU[:, each.units].any(axis=1), each.first] = True
        return alone_RU

    def present(self, kept_KU: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Units that rows have so that all have as many of every group, and one at least.

        Those beyond the kept ones are the first that a row does not use; their weights count as 0.

        Args:
            kept_KU: What each of K rows uses, (K, units).
        """
        present_KU = kept_KU.copy()
        for each in self.groups:
            own_KC = present_KU[:, each.units]  # a view
            missing_K = max(1, int(own_KC.sum(axis=1).max())) - own_KC.sum(axis=1)
            unused_KC = ~own_KC
            own_KC |= unused_KC & (unused_KC.cumsum(axis=1) <= missing_K[:, None])
        return present_KU


def used_by(owner: Owner, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(..., C): which indices of a dimension rows have that use the units `kept`, (..., units)."""
    return (owner < 0) | kept[..., owner]


def find_division(model: nn.Module, example: Tensor) -> Division:
    """Find out what of a network can be divided.

    Args:
        model: Maps a batch of images to logits.
        example: Such a batch.

    Raises:
        UntraceableError: torch-pruning cannot follow it.
    """
    _refuse_untold(model)
    found = _Units(model)
    for members, appended in _dependent(model, example):
        found.add(members, appended)
    found.tie_convolution_groups()
    found.tie_norm_groups()
    found.tie_heads()
    return found.division(_order(model, example))


def _refuse_untold(model: nn.Module) -> None:
    """Refuses weights that two layers share, and those that a layer computes from others."""
    names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if names.setdefault(id(parameter), name) != name:
            raise UntraceableError(f"{names[id(parameter)]} and {name} are one and the same weight")
    for name, module in model.named_modules():
        if isinstance(module, LAYERS) and not isinstance(module._parameters.get("weight"), Tensor):
            raise UntraceableError(f"the weight of {name} is computed from others")


@torch.no_grad()
def _order(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Position of every module in the order of being called."""
    order: dict[str, int] = {}

    def note(name: str) -> None:
        order.setdefault(name, len(order))

    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: note(name))
        for name, module in model.named_modules()
    ]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return order


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A dimension of a module that a group of torch-pruning's reaches.

    Attributes:
        name: Of the module, or of a parameter without one.
        module: None where it is such a parameter.
        out: Whether it makes the channels, or keeps them; else it reads them.
        dim: Of the parameter.
        index: Positions in that dimension.
        root: The channels of the group that they belong to; -1 where that is not known.
        adds: Whether it is an addition.
    """

    name: str
    module: nn.Module | None
    out: bool
    dim: int
    index: NDArray[np.int64]
    root: NDArray[np.int64]
    adds: bool = False


def _dependent(model: nn.Module, example: Tensor) -> Iterator[tuple[list[_Member], bool]]:
    """Groups of torch-pruning's, and whether they are of appended channels alone."""
    import torch_pruning as tp  # takes a second

    modules = {module: name for name, module in model.named_modules()}
    parameters = {id(value): name for name, value in model.named_parameters()}
    try:
        with (
            torch.enable_grad(),
            _learning(model),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")  # of parameters outside modules, which are followed
            graph = tp.DependencyGraph().build_dependency(model, example, verbose=False)
            groups = list(graph.get_all_groups(root_module_types=[*CONVOLUTIONS, nn.Linear]))
            whole = len(groups)
            groups += _left_over(graph, groups, modules)
    except Exception as error:  # whatever its tracing meets in a module of anyone's
        raise UntraceableError(
            f"the network cannot be traced: {type(error).__name__}: {error}"
        ) from error
    for number, group in enumerate(groups):
        members = []
        for item in group:
            target = item.dep.target
            name = modules.get(target.module) or parameters.get(id(target.module), target.name)
            root = np.array([-1 if r is None else r for r in item.root_idxs], dtype=np.int64)
            members.append(
                _Member(
                    name=name,
                    module=target.module if target.module in modules else None,
                    out="out" in item.dep.handler.__name__,
                    dim=target.pruning_dim,
                    index=np.array(item.idxs, dtype=np.int64),
                    root=root,
                    adds="AddBackward" in target.name,
                )
            )
        yield members, number >= whole


@contextlib.contextmanager
def _learning(model: nn.Module) -> Iterator[None]:
    """Let all parameters require gradients for a while, by which a network is followed."""
    fixed = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in fixed:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in fixed:
            parameter.requires_grad_(False)


def _left_over(graph: Any, groups: list[Any], modules: Iterable[nn.Module]) -> list[Any]:
    """Groups of the channels of layers of which others only are in a group.

    Such are those that a shortcut appends zeros for.
    """
    made: dict[nn.Module, set[int]] = defaultdict(set)

    def note(group: Any) -> None:
        for item in group:
            if "out" in item.dep.handler.__name__:
                made[item.dep.target.module].update(item.idxs)

    for group in groups:
        note(group)
    found = []
    for module in modules:
        if isinstance(module, LAYERS) and made.get(module):
            out = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            if missing := sorted(set(range(int(out))) - made[module]):
                prune = graph.get_pruner_of_module(module).prune_out_channels
                found.append(graph.get_pruning_group(module, prune, missing))
                note(found[-1])
    return found


class _Units:
    """Channels of all groups of torch-pruning's, of which some turn out to be one unit."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._parent: list[int] = []
        #: The group of torch-pruning's that a channel is of.
        self._of: list[int] = []
        self._groups: list[list[_Member]] = []
        #: Where the channels of a group of torch-pruning's are lost sight of.
        self._lost: dict[int, str] = {}
        #: Groups of torch-pruning's that are the heads of an attention, and appended channels.
        self._attended: set[int] = set()
        self._appended: set[int] = set()
        self._axes: dict[str, dict[int, Owner]] = {}

    def add(self, members: list[_Member], appended: bool) -> None:
        """Give every index that a group reaches the channel that it belongs to.

        Args:
            members: Of the group.
            appended: Whether layers before do not have its channels, which zeros stand for there.
        """
        if appended:
            self._appended.add(len(self._groups))
            members = [member for member in members if self._has(member)]
        roots = np.unique(np.concatenate([member.root for member in members]))
        roots = roots[roots >= 0]
        size = len(roots)
        first = len(self._parent)
        self._parent += range(first, first + size)
        self._of += [len(self._groups)] * size
        self._groups.append(members)
        for member in members:
            known_K = member.root >= 0
            for name, dim, length in _places(member, self._tensors):
                owner = self._axis(name, dim, length)
                if member.index.max(initial=-1) >= owner.size:  # of what is joined or folded
                    self._lost.setdefault(len(self._groups) - 1, member.name)
                    continue
                channels = first + np.searchsorted(roots, member.root[known_K])
                for index, channel in zip(member.index[known_K], channels, strict=True):
                    if owner[index] >= 0:
                        self._tie([owner[index], channel])
                    owner[index] = channel

    def _has(self, member: _Member) -> bool:
        lengths = [length for _, _, length in _places(member, self._tensors)]
        return not lengths or member.index.max(initial=-1) < min(lengths)

    def tie_convolution_groups(self) -> None:
        """What a group of a grouped convolution reads and makes is one unit."""
        for name, module in self._model.named_modules():
            if isinstance(module, CONVOLUTIONS) and module.groups > 1:
                owners = [
                    self._axes.get(f"{name}.weight", {}).get(0),
                    self._whole(f"{name}{INPUTS}"),
                ]
                self._tie_parts([each for each in owners if each is not None], module.groups)

    def tie_norm_groups(self) -> None:
        """What is normalised together is one unit."""
        for name, module in self._model.named_modules():
            owner = self._whole(name)
            if isinstance(module, nn.GroupNorm) and owner is not None:
                self._tie_parts([owner], module.num_groups)

    def tie_heads(self) -> None:
        """What an attention head makes, queries, keys and values, and what is read of it."""
        for name, module in self._model.named_modules():
            heads = next((getattr(module, each) for each in HEADS if hasattr(module, each)), None)
            if not isinstance(heads, int) or isinstance(module, nn.MultiheadAttention):
                continue
            parts: list[Owner] = []
            inside = f"{name}." if name else ""
            for members in self._groups:
                makers = [
                    each for each in members if each.out and isinstance(each.module, nn.Linear)
                ]
                readers = [m for m in members if not m.out and isinstance(m.module, nn.Linear)]
                if not (makers and readers and all(m.name.startswith(inside) for m in makers)):
                    continue
                width = readers[0].index.size
                for maker in makers:
                    owner = self._axes[f"{maker.name}.weight"][0]
                    if owner.size % width == 0 and width % heads == 0:
                        parts += np.split(owner, owner.size // width)
            if parts and len({part.size for part in parts}) == 1:
                self._tie_parts(parts, heads)
                self._attended |= {self._of[channel] for part in parts for channel in part}
                self._axes[name] = {0: parts[0].reshape(heads, -1)[:, 0].copy()}

    def division(self, order: Mapping[str, int]) -> Division:
        """Units by number, and the groups that they form.

        Args:
            order: Of the modules, by name.
        """
        root_C = np.array([self._find(channel) for channel in range(len(self._parent))], dtype=int)
        together = list(range(len(self._groups)))  # groups of torch-pruning's that share a unit
        pairs = {(self._of[channel], self._of[root]) for channel, root in enumerate(root_C)}
        for one, other in sorted(pairs):
            together = [together[other] if each == together[one] else each for each in together]
        sets: dict[int, list[int]] = defaultdict(list)
        for number, first in enumerate(together):
            sets[first].append(number)
        groups: list[Divisible] = []
        refused: dict[str, str] = {}
        unit_C = np.full(len(root_C), -1)
        first = 0
        for numbers in sorted(sets.values(), key=lambda each: self._begins(each, order)):
            members = [member for number in numbers for member in self._groups[number]]
            name = self._name(members, order)
            channels_C = np.flatnonzero(np.isin(self._of, numbers))
            roots, unit_of_C = np.unique(root_C[channels_C], return_inverse=True)
            lost = [self._lost[number] for number in numbers if number in self._lost]
            why = _refusal(members, len(roots), lost)
            if why is not None:
                refused[name] = why
                continue
            unit_C[channels_C] = first + unit_of_C
            kind: GroupKind = "stream" if self._appended & set(numbers) else _kind(members)
            kind = "heads" if self._attended & set(numbers) else kind
            made = self._axes[f"{name}.weight"][0]
            groups.append(
                Divisible(
                    group=ChannelGroup(
                        name=name,
                        width=len(roots),
                        kind=kind,
                        channels=max(1, int(np.isin(made, channels_C).sum()) // len(roots)),
                    ),
                    first=first,
                )
            )
            first += len(roots)
        axes = {
            name: {dim: np.where(owner >= 0, unit_C[owner], -1) for dim, owner in dims.items()}
            for name, dims in self._axes.items()
        }
        return Division(groups=tuple(groups), axes=axes, refused=refused)

    def _begins(self, numbers: list[int], order: Mapping[str, int]) -> int:
        members = [member for number in numbers for member in self._groups[number]]
        return min(order.get(m.name, len(order)) for m in members if isinstance(m.module, LAYERS))

    def _name(self, members: list[_Member], order: Mapping[str, int]) -> str:
        """Of the first layer that makes its channels."""
        makers = [m.name for m in members if m.out and isinstance(m.module, LAYERS)]
        return min(makers, key=lambda name: order.get(name, len(order)))

    def _whole(self, name: str) -> Owner | None:
        return self._axes.get(name, {}).get(0)

    def _axis(self, name: str, dim: int, length: int) -> Owner:
        return self._axes.setdefault(name, {}).setdefault(dim, np.full(length, -1))

    def _tie_parts(self, owners: list[Owner], count: int) -> None:
        """Let part i of all owners be one unit, where each consists of so many parts."""
        for parts in zip(*(np.split(owner, count) for owner in owners), strict=True):
            self._tie(np.concatenate(parts))

    def _tie(self, channels: Sequence[int] | Owner) -> None:
        roots = [self._find(int(channel)) for channel in channels if channel >= 0]
        for root in roots:
            self._parent[self._find(root)] = self._find(roots[0])

    def _find(self, channel: int) -> int:
        while self._parent[channel] != channel:
            self._parent[channel] = channel = self._parent[self._parent[channel]]
        return channel


def _kind(members: list[_Member]) -> GroupKind:
    """Stream where several layers add up to the channels, else hidden."""
    made_by = {m.name for m in members if m.out and isinstance(m.module, LAYERS)}
    return "stream" if len(made_by) > 1 and any(m.adds for m in members) else "hidden"


def _places(member: _Member, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, int, int]]:
    """The dimensions that a member stands for: a name among the axes, a dimension, its length."""
    module, name = member.module, member.name
    if module is None:
        if name in tensors:
            yield name, member.dim % tensors[name].ndim, tensors[name].shape[member.dim]
        return
    features = [f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var"]
    if isinstance(module, LAYERS) and not member.out:
        if isinstance(module, CONVOLUTIONS) and module.groups > 1:
            yield f"{name}{INPUTS}", 0, module.in_channels
        else:
            yield features[0], 1, tensors[features[0]].shape[1]
    elif isinstance(module, (*LAYERS, *CHANNELWISE)):
        for each in features:
            if each in tensors and tensors[each].numel() > 1:
                yield each, 0, tensors[each].shape[0]
        if isinstance(module, NORMS):
            yield name, 0, _features(module)


def _features(module: nn.Module) -> int:
    """How many features a norm has."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return int(module.normalized_shape[-1])
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    assert isinstance(module, nn.modules.batchnorm._NormBase)
    return module.num_features


def _refusal(members: list[_Member], units: int, lost: list[str]) -> str | None:
    """Why a group cannot be divided, or None."""
    lost = lost + [member.name for member in members if (member.root < 0).any()]
    if lost:
        return f"they cannot be followed through {lost[0]}"
    if not any(not m.out and isinstance(m.module, LAYERS) for m in members):
        return "nothing reads it: it is an output of the network"
    if units < 2:
        return "it has one unit, which cannot be divided"
    for member in members:
        module = member.module
        if module is None or isinstance(module, (*LAYERS, *CHANNELWISE)):
            continue
        if next(module.parameters(recurse=False), None) is not None:
            return f"what {member.name}, a {type(module).__name__}, does to them is not known"
    return None
