"""One run of a network as a graph, in which modules are steps that are not looked into.

What modules call is theirs. What is done to tensors between them is recorded by torch function.
Sizes that the code there reads off tensors are steps too, so that the graph holds for every batch
size and for every width that the modules have.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

#: What turns values of tensors into Python's, or changes them where a graph would not show it.
UNRECORDABLE = {
    Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__setitem__,
    *(getattr(Tensor, f"__{name}__") for name in ("bool", "int", "float", "index", "complex")),
}  # fmt: skip


class RecordingError(ValueError):
    """A network of which one run does not tell what others do."""


class Recording(TorchFunctionMode):
    """A run of a network.

    Args:
        model: Maps a batch of images to logits; in `eval` mode.
        images: Such a batch.
        steps: Names of modules that are steps although what they are in is not; all others are
            where they hold none of these.

    Attributes:
        graph: The run, from `images` to the logits. Every node is a module, a function, a parameter
            or buffer, or `training`, which is the mode of the module that the graph is given to.
        calls: How often each module ran, by name, in the order in which they first ended.
        single: Modules that gave one tensor.
        outputs: Of every step that gave one tensor, the tensor's node.
        steps: Of every step that gave one tensor, its own node, which is another where it gave the
            tensor in a tuple or the like.
        sizes: The nodes that read sizes, and what they read.
        head: The linear layer that gives the logits, None where there is none.

    Raises:
        RecordingError: What happens between modules depends on more than shapes, or it uses a value
            that was not seen to be computed.
    """

    def __init__(self, model: nn.Module, images: Tensor, steps: Collection[str] = ()) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.calls: dict[str, int] = {}
        self.single: set[str] = set()
        self.outputs: dict[str, fx.Node] = {}
        self.steps: dict[str, fx.Node] = {}
        self.sizes: dict[fx.Node, int] = {}
        #: The node that gave a tensor, the tensor, and its version then.
        self._nodes: dict[int, fx.Node] = {}
        self._tensors: dict[fx.Node, tuple[Tensor, int]] = {}
        self._own = {
            id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        self._depth = 0
        self._taken: tuple[Any, Any] = ((), {})
        self._made: dict[str, Tensor] = {}  # by linear layers
        self._stand_for(images, self.graph.placeholder("images"))
        with ExitStack() as hooks, torch.no_grad():
            for name, module in model.named_modules():
                if name:
                    opaque = not holds(name, steps)
                    began, ended = partial(self._began, opaque), partial(self._ended, name, opaque)
                    for handle in (
                        module.register_forward_pre_hook(began, prepend=True, with_kwargs=True),
                        module.register_forward_hook(ended),
                    ):
                        hooks.callback(handle.remove)
            with self:
                logits = model(images)
        if id(logits) not in self._nodes:
            raise RecordingError("the network must give logits that are computed from the images")
        self.graph.output(self._nodes[id(logits)])
        heads = [name for name, made in self._made.items() if made.data_ptr() == logits.data_ptr()]
        self.head = heads[-1] if heads else None

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of a node's tensor, in the run."""
        return tuple(self._tensors[node][0].shape)

    def overwritten(self, node: fx.Node) -> bool:
        """Whether a later step changed a node's tensor in place."""
        tensor, version = self._tensors[node]
        return tensor._version != version

    def describe(self, node: fx.Node) -> str:
        """A node by its module or function, and its shape."""
        return f"{node.target if node.op == 'call_module' else node.name} {self.shape(node)}"

    def crossing(self, blocks: Iterable[str]) -> list[fx.Node]:
        """The tensors that blocks, and all that depends on them, take from what is before them.

        What only sizes decide is not among them: where what is before is fixed, they are numbers.
        """
        after = reachable((self.steps[block] for block in blocks), lambda node: node.users)
        needed = reachable([self.graph.output_node()], lambda node: node.all_input_nodes)
        taken = {i for node in after & needed for i in node.all_input_nodes} - after
        computed = reachable(
            self.graph.find_nodes(op="placeholder"),
            lambda node: () if node in self.sizes else node.users,
        )
        return [node for node in self.graph.nodes if node in taken & computed - self.sizes.keys()]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a torch function and, outside the steps, record it."""
        kwargs = kwargs or {}
        if func is Tensor.__iter__:
            return iter(self.__torch_function__(Tensor.unbind, types, args))
        if self._depth:
            return func(*args, **kwargs)
        if func in UNRECORDABLE and id(args[0]) in self._nodes:
            node = self.describe(self._nodes[id(args[0])])
            raise RecordingError(
                f"what is done between modules must not depend on values, or set them: "
                f"{func.__name__} of {node}"
            )
        value = func(*args, **kwargs)
        if isinstance(value, torch.Size) or func in (Tensor.size, Tensor.__len__):
            return self._read_sizes(value, args[0], *args[1:], *kwargs.values())
        if any(True for _ in tensors_in(value)):
            self._stand_for(value, self._call(func, self._argument(args), self._argument(kwargs)))
        return value

    def _call(self, func: Any, taken: Any, given: Any) -> fx.Node:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self.graph.call_function(getattr, (taken[0], func.__self__.__name__))
        if func is getattr(Tensor, name, None):
            return self.graph.call_method(name, taken, given)
        if given.get("training") is False:  # as dropout has it in this run, but not in training
            given = {**given, "training": self.graph.get_attr("training")}
        return self.graph.call_function(func, taken, given)

    def _began(self, opaque: bool, module: nn.Module, args: Any, kwargs: Any) -> None:
        if opaque:
            if self._depth == 0:  # before the module can change them
                self._taken = self._argument(args), self._argument(kwargs)
            self._depth += 1

    def _ended(self, name: str, opaque: bool, module: nn.Module, args: Any, output: Any) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        tensors = list(tensors_in(output))
        if len(tensors) == 1:
            self.single.add(name)
        if isinstance(module, nn.Linear) and output.ndim == 2:
            self._made[name] = output
        if opaque:
            self._depth -= 1
            if self._depth == 0:
                node = self.graph.call_module(name, *self._taken)
                self._stand_for(output, node)
                if len(tensors) == 1:
                    self.outputs[name], self.steps[name] = self._nodes[id(tensors[0])], node

    def _stand_for(self, value: Any, node: fx.Node) -> None:
        """Let a node stand for a tensor, and nodes of its items for the tensors in a nest."""
        if isinstance(value, Tensor):
            self._nodes[id(value)] = node
            self._tensors[node] = (value, value._version)
        else:
            for key, item in _items(value):
                if any(True for _ in tensors_in(item)):
                    self._stand_for(item, self.graph.call_function(operator.getitem, (node, key)))

    def _argument(self, value: Any) -> Any:
        """A value as the graph has it: nodes in the places of tensors and of sizes."""
        if isinstance(value, _Size):
            return value.node
        if isinstance(value, Tensor):
            if id(value) in self._own and id(value) not in self._nodes:
                self._stand_for(value, self.graph.get_attr(self._own[id(value)]))
            if id(value) in self._nodes:
                return self._nodes[id(value)]
        elif isinstance(value, slice):
            return slice(*map(self._argument, (value.start, value.stop, value.step)))
        elif isinstance(value, (tuple, list)):
            return (list if isinstance(value, list) else tuple)(map(self._argument, value))
        elif isinstance(value, Mapping):
            return {key: self._argument(item) for key, item in value.items()}
        elif value is None or value is ... or isinstance(value, (range, *fx.node.base_types)):
            return value
        raise RecordingError(
            f"a {type(value).__name__} is used between modules that is neither computed there nor "
            "a parameter or buffer"
        )

    def _read_sizes(self, value: Any, tensor: Tensor, *axis: int) -> Any:
        shape = self.graph.call_function(getattr, (self._argument(tensor), "shape"))
        sizes = [
            _Size(size, self.graph.call_function(operator.getitem, (shape, index)), self.sizes)
            for index, size in enumerate(tensor.shape)
        ]
        return torch.Size(sizes) if isinstance(value, torch.Size) else sizes[(*axis, 0)[0]]


class _Size(int):
    """A size read off a tensor, with the node that reads it; `known` lists all of them."""

    node: fx.Node
    known: dict[fx.Node, int]

    def __new__(cls, value: int, node: fx.Node, known: dict[fx.Node, int]) -> Self:
        self = super().__new__(cls, value)
        self.node, self.known = node, known
        known[node] = value
        return self


def _tracked(function: Callable[[Any, Any], Any], *, swapped: bool) -> Callable[[_Size, Any], Any]:
    """An integer operator whose result is a recorded size."""

    def apply(self: _Size, other: Any) -> Any:
        pair = (other, self) if swapped else (self, other)
        value = function(*(int(item) if isinstance(item, int) else item for item in pair))
        if not isinstance(other, int):
            return value
        nodes = tuple(item.node if isinstance(item, _Size) else item for item in pair)
        return _Size(value, self.node.graph.call_function(function, nodes), self.known)

    return apply


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    setattr(_Size, f"__{_name}__", _tracked(getattr(operator, _name), swapped=False))
    setattr(_Size, f"__r{_name}__", _tracked(getattr(operator, _name), swapped=True))


def holds(name: str, others: Iterable[str]) -> bool:
    """Whether any of other modules is inside a module."""
    return any(other.startswith(f"{name}.") for other in others)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a nest of tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    else:
        for _, item in _items(value):
            yield from tensors_in(item)


def reachable(
    starts: Iterable[fx.Node], following: Callable[[fx.Node], Iterable[fx.Node]]
) -> set[fx.Node]:
    """Nodes, those that follow them, and so on."""
    found: set[fx.Node] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(following(node))
    return found


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, (tuple, list)) else ()
