"""A row of networks that share weights as a network of its own, to be exported."""

import torch
from torch import nn

from partitioning import Masks, VirtualNetwork
from trainers.data import Task, normalise
from trainers.methods.networks import SharedNetworks
from trainers.network import Network

#: Images that both are compared on, and how far their logits may differ, relative to the largest:
#: in both, sums of single precision go another way.
COMPARED, TOLERANCE = 32, 1e-4


@torch.no_grad()
def alone(part: SharedNetworks, row: int, task: Task) -> Network:
    """A row on the CPU, in evaluation mode, with adapters within the weights.

    Args:
        part: On the CPU.
        row: Which.
        task: Its task, on whose images both are compared.

    Raises:
        ValueError: They do not compute the same.
    """
    masks, backbone, own = part.part.masks, part.backbone, part.rows[row]
    begun = backbone.initial(2, 0)
    network = Network(
        backbone,
        Masks(
            networks=(VirtualNetwork(task=task.name),),
            groups=masks.groups,
            forward={name: mask[row : row + 1] for name, mask in masks.forward.items()},
        ),
        [task.num_classes],
        shared=begun,
        norms=[begun],
        seed=0,
        device=torch.device("cpu"),
    )
    backbone.set_stride(network.stacks[0].module, task.size)
    network.load(part.alone(row))
    network.eval()
    own.row.module.eval()
    layers: list[nn.Module] = []
    for weight, bias in own.hidden:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        layers += [layer, nn.ReLU()]
    if layers:
        network.heads[0] = nn.Sequential(*layers, network.heads[0])
    images, _ = task.splits["validation"].batch(0, COMPARED)
    images = normalise(images, task)
    wanted, logits = part(images, row), network(images, 0)
    worst, largest = float((logits - wanted).abs().max()), float(wanted.abs().max())
    if not worst <= TOLERANCE * max(1.0, largest):
        raise ValueError(
            f"the network of {task.name} alone differs from the trained one by {worst:.3g} "
            f"(largest logit {largest:.3g})"
        )
    return network
