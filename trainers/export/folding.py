"""Batch norms that follow a convolution, taken into its weights."""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

_ATEN = torch.ops.aten
CONVOLUTIONS = (_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default)


def fold_norms(network: GraphModule) -> int:
    """Take every batch norm that alone reads a convolution into the convolution's weights.

    What is computed changes by the order of sums alone. Where weights are computed themselves, or a
    norm comes before its convolution, both stay.

    Args:
        network: The module of an exported program, in evaluation mode; changed in place.

    Returns:
        How many were folded.
    """
    folded = 0
    for norm in network.graph.find_nodes(
        op="call_function", target=_ATEN.batch_norm.default, sort=True
    ):
        conv = norm.args[0]
        if not _folds(conv, norm):
            continue
        weight, bias = conv.args[1], conv.args[2] if len(conv.args) > 2 else None
        values = [_value(network, node) for node in (weight, bias, *norm.args[1:5])]
        w, b, gamma, beta, mean, var = values
        assert w is not None
        assert mean is not None
        assert var is not None
        own = fuse_conv_bn_weights(w, b, mean, var, norm.args[7], gamma, beta)
        with network.graph.inserting_before(conv):
            named = [
                _kept(network, f"folded{folded}_weight", own[0]),
                _kept(network, f"folded{folded}_bias", own[1]),
            ]
        conv.args = (conv.args[0], *named, *conv.args[3:])
        norm.replace_all_uses_with(conv)
        network.graph.erase_node(norm)
        folded += 1
    network.graph.eliminate_dead_code()
    _drop_unused(network)
    network.recompile()
    return folded


def _folds(conv: object, norm: Node) -> bool:
    """Whether a norm can be taken into what it reads."""
    if not isinstance(conv, Node) or conv.target not in CONVOLUTIONS or len(conv.users) > 1:
        return False
    given = [*conv.args[1:3], *norm.args[1:5]]
    stored = all(
        node is None or (isinstance(node, Node) and node.op == "get_attr") for node in given
    )
    return stored and norm.args[3] is not None and not norm.args[5]


def _value(network: GraphModule, node: Node | None) -> Tensor | None:
    if node is None:
        return None
    parent, _, name = str(node.target).rpartition(".")
    value: Tensor = getattr(network.get_submodule(parent), name)
    return value


def _kept(network: GraphModule, name: str, value: Tensor) -> Node:
    """A node that reads a new parameter."""
    network.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
    return network.graph.get_attr(name)


def _drop_unused(network: GraphModule) -> None:
    """Forget parameters and buffers that nothing reads any more."""
    read = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    for name, _ in [*network.named_parameters(), *network.named_buffers()]:
        if name not in read:
            parent, _, own = name.rpartition(".")
            delattr(network.get_submodule(parent), own)
