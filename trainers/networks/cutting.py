"""A classifier in two: a trunk, and a tail whose blocks rows divide.

Both are graphs over the network's own modules, under the same names, so a row of the tail is
`Row(cut.tail, division, kept)` with the division of the whole network.
"""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from trainers.networks.blocks import find_blocks
from trainers.networks.division import Divisible, Division
from trainers.networks.recording import Recording, holds, reachable


class CutError(ValueError):
    """A network that cannot be cut as asked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """A classifier in two.

    Attributes:
        trunk: Maps images to the one tensor that crosses the cut.
        tail: Maps that tensor to a tuple of the divided blocks' outputs, and the (N, F) feature
            vectors that the head reads.
        repeated: All blocks that the network repeats, in the order in which they run.
        blocks: The divided ones, in that order.
        boundary: The module or function whose tensor crosses the cut.
        head: The module that reads the feature vectors.
        features: F, their width.
        before: Modules that run before the divided blocks: those of the trunk, unless it is empty.
    """

    trunk: fx.GraphModule
    tail: fx.GraphModule
    repeated: tuple[str, ...]
    blocks: tuple[str, ...]
    boundary: str
    head: str
    features: int
    before: frozenset[str]

    def divisible(self, division: Division) -> tuple[Divisible, ...]:
        """The groups of channels that only modules behind the cut make or read.

        Where the trunk is empty, of all but streams those that none before the blocks has.

        Args:
            division: Of the whole network.
        """
        behind = {*_modules(self.tail), self.head}
        tail = {name for name in division.axes if _inside(name, behind)}
        trunk = {name for name in tail if _inside(name, _modules(self.trunk))}
        before = {name for name in tail if _inside(name, self.before)}
        fixed = {
            kind: {
                int(unit)
                for name in division.axes.keys() - (tail - others)
                for owner in division.axes[name].values()
                for unit in np.unique(owner)
            }
            for kind, others in (("stream", trunk), ("hidden", before), ("heads", before))
        }
        return tuple(
            each
            for each in division.groups
            if fixed[each.group.kind].isdisjoint(range(each.units.start, each.units.stop))
            and not _inside(each.group.name, {self.head})  # rows have another in its place
        )


def cut(
    model: nn.Module,
    images: Tensor,
    partition: Sequence[str] | None = None,
    *,
    head: str | None = None,
    whole: bool = False,
) -> Cut:
    """Cut a classifier before the first of the blocks that are to be divided.

    Its halves follow `train` and `eval` as far as modules and dropout between them do. Other
    code between modules does as it did in `eval` mode. They are made anew where they are needed,
    not pickled, which would fix the mode of dropout between modules.

    Args:
        model: Maps a batch of images to logits.
        images: Such a batch, of two or more.
        partition: Names of the blocks to divide, or of other modules, with the wildcards of
            `fnmatch`; the last third of the blocks if there are none.
        head: The module whose input is the feature vector; the linear layer that gives the logits
            if None.
        whole: Leave the trunk empty: the tail is all of the network, and reads the images.

    Raises:
        CutError: No module matches, or a divided one runs more than once; more than one tensor
            crosses the cut; there is no head; or the halves do not compute what the network does.
        RecordingError: One run does not tell what others do.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        found = Recording(model, images)
        head = _head(found, head)
        repeated = find_blocks(model, images)
        blocks = _chosen(found, repeated, partition)
        if _inside(head, blocks):
            raise CutError(f"the head must be outside the divided blocks, got {head}")
        record = Recording(model, images, (*blocks, head))
        boundary, features = _ends(record, blocks, head, whole=whole)
        trunk, tail = _halves(model, record, blocks, boundary, features)
        _verify(model, trunk, tail, head, torch.cat((images, images[:1])))
    finally:
        for module, training in modes.items():
            module.training = training
    trunk.training = tail.training = model.training
    return Cut(
        trunk=trunk,
        tail=tail,
        repeated=repeated,
        blocks=blocks,
        boundary=str(boundary.target if boundary.op == "call_module" else boundary.name),
        head=head,
        features=record.shape(features)[1],
        before=frozenset(_before(record, blocks)),
    )


def _before(record: Recording, blocks: tuple[str, ...]) -> set[str]:
    """The modules that the divided blocks depend on."""
    steps = {record.steps[block] for block in blocks}
    needed = reachable(steps, lambda node: node.all_input_nodes)
    after = reachable(steps, lambda node: node.users)
    return {str(node.target) for node in needed - after if node.op == "call_module"}


def _head(found: Recording, head: str | None) -> str:
    if head is None:
        head = found.head
    if head is None:
        raise CutError(
            "no linear layer gives the logits: name the module whose input is the feature vector "
            "as the head"
        )
    if head not in found.calls:
        raise CutError(f"the head must be a module that runs, got {head!r}{_near(head, found)}")
    return head


def _chosen(
    found: Recording, blocks: tuple[str, ...], partition: Sequence[str] | None
) -> tuple[str, ...]:
    """The modules to divide, in the order in which they run."""
    if not partition:
        if not blocks:
            raise CutError("no repeated blocks were found: name the modules to divide")
        return blocks[-max(1, len(blocks) // 3) :]
    names: set[str] = set()
    for pattern in partition:
        matches = {name for name in blocks if fnmatchcase(name, pattern)}
        matches = matches or {name for name in found.calls if fnmatchcase(name, pattern)}
        if not matches:
            raise CutError(f"no module that runs matches {pattern!r}{_near(pattern, found)}")
        names |= matches
    chosen = tuple(n for n in found.calls if n in names and not _inside(n, names - {n}))
    for name in chosen:
        if found.calls[name] > 1 or name not in found.single:
            raise CutError(f"a divided block must run once and give one tensor, {name} does not")
    return chosen


def _near(name: str, found: Recording) -> str:
    near = difflib.get_close_matches(name, found.calls, n=5)
    return f"; near it: {', '.join(near)}" if near else ""


def _ends(
    record: Recording, blocks: tuple[str, ...], head: str, *, whole: bool
) -> tuple[fx.Node, fx.Node]:
    """The node whose tensor crosses the cut, and the one that gives the feature vector."""
    crossing = record.graph.find_nodes(op="placeholder") if whole else record.crossing(blocks)
    if len(crossing) != 1:
        raise CutError(
            f"one tensor must cross the cut before {blocks[0]}, got {len(crossing)}: "
            f"{', '.join(map(record.describe, crossing))}"
        )
    after = reachable((record.outputs[block] for block in blocks), lambda node: node.users)
    if record.outputs.get(head) not in after:
        raise CutError(f"the head must be behind the divided blocks, got {head}")
    features = record.outputs[head].all_input_nodes[0]
    if len(record.shape(features)) != 2:
        raise CutError(
            f"the head must read a vector for each image, {head} reads {record.describe(features)}"
        )
    return crossing[0], features


def _halves(
    model: nn.Module,
    record: Recording,
    blocks: tuple[str, ...],
    boundary: fx.Node,
    features: fx.Node,
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Trunk and tail on either side of a node."""
    trunk, tail = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, Any] = {}
    for node in _needed(record, [boundary], set()):
        copies[node] = trunk.node_copy(node, copies.__getitem__)
    trunk.output(copies[boundary])

    def cloned(node: fx.Node, copy: fx.Node) -> fx.Node:
        return tail.call_method("clone", (copy,)) if record.overwritten(node) else copy

    results = [*(record.outputs[block] for block in blocks), features]
    kept = {boundary: tail.placeholder("boundary")}
    copies = {boundary: cloned(boundary, kept[boundary])}  # the caller keeps the tensor
    before = record.sizes.keys() - reachable([boundary], lambda node: node.users)
    for node in _needed(record, results, {boundary, *before}):
        if node in before:
            copies[node] = _fixed(record, node, kept[boundary], record.shape(boundary)[0])
        elif node is not boundary:
            copies[node] = tail.node_copy(node, copies.__getitem__)
            if node in results:
                kept[node] = cloned(node, copies[node])
    both = {
        name
        for name in _modules_of(trunk) & _modules_of(tail)
        if model.get_submodule(name).state_dict()
    }
    if both:
        raise CutError(f"{', '.join(sorted(both))} must not run both before the cut and behind it")
    outputs = [kept[node] for node in results]
    tail.output((tuple(outputs[:-1]), outputs[-1]))
    return fx.GraphModule(model, trunk, "Trunk"), fx.GraphModule(model, tail, "Tail")


def _fixed(record: Recording, node: fx.Node, start: fx.Node, images: int) -> fx.Node | int:
    """What the tail has for a size that was read before the cut: images, or a number."""
    size = record.sizes[node]
    if node.target is getitem and node.args[1] == 0 and size == images:
        return start.graph.call_method("size", (start, 0))
    return size


def _needed(record: Recording, results: Iterable[fx.Node], stops: set[fx.Node]) -> list[fx.Node]:
    """The nodes that results need, in their order, back to the stops."""
    needed = reachable(results, lambda node: () if node in stops else node.all_input_nodes)
    return [node for node in record.graph.nodes if node in needed]


def _verify(
    model: nn.Module, trunk: fx.GraphModule, tail: fx.GraphModule, head: str, images: Tensor
) -> None:
    """Hold the halves against the network on a batch of another size than the recorded one."""
    read: list[Tensor] = []
    hook = model.get_submodule(head).register_forward_pre_hook(lambda _, args: read.append(args[0]))
    try:
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # where fx says it, too
            model(images)
            _, features = tail(trunk(images))
    except Exception as error:  # whatever happens in a module of anyone's
        raise CutError(
            f"the halves do not run on {len(images)} images: {error}; between modules the number "
            "of images must be read as x.shape[0] or x.size(0), since len(x) cannot be followed"
        ) from error
    finally:
        hook.remove()
    if not torch.equal(features, read[0]):
        raise CutError(
            "the halves do not compute what the network does: between its modules it does what "
            "cannot be recorded"
        )


def _modules(graph: fx.GraphModule) -> set[str]:
    return _modules_of(graph.graph)


def _modules_of(graph: fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.find_nodes(op="call_module")}


def _inside(name: str, modules: Iterable[str]) -> bool:
    """Whether a name is that of one of some modules, or of something in it."""
    return any(name == module or holds(module, [name]) for module in modules)
