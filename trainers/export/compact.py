"""A virtual network alone, unused channels physically removed, as a module and as a program."""

import io
import logging
from contextlib import redirect_stderr

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from partitioning import Masks, VirtualNetwork
from trainers.data import Task
from trainers.export.folding import fold_norms
from trainers.export.proof import ExportError
from trainers.network import Network
from trainers.networks import BUILT_IN, Backbone, Row, bound, half, tensors_of, with_units


class RawImages(nn.Module):
    """What reads images as they are stored, RGB of 0 to 255, or normalised ones.

    Args:
        task: Gives the mean and standard deviation that images are normalised with.
        raw: Read them as they are stored.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, task: Task, *, raw: bool = True) -> None:
        super().__init__()
        self._raw = raw
        self.register_buffer("mean", 255 * task.mean.detach().cpu().view(1, 3, 1, 1))
        self.register_buffer("std", 255 * task.std.detach().cpu().view(1, 3, 1, 1))

    def normalised(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) as they are read to normalised ones."""
        return (images.float() - self.mean) / self.std if self._raw else images


def example_images(task: Task, *, raw: bool) -> Tensor:
    """Two black images of a task's size, of the type that networks read."""
    shape = (2, 3, task.size, task.size)
    return torch.zeros(shape, dtype=torch.uint8 if raw else torch.float32)


class CompactNetwork(RawImages):
    """A virtual network alone, from images to logits.

    Args:
        network: A trained network.
        row: Which of its virtual networks.
        task: Gives the mean and standard deviation that images are normalised with.
        raw: Read images as they are stored; otherwise normalised ones.
    """

    def __init__(self, network: Network, row: int, task: Task, *, raw: bool = True) -> None:
        super().__init__(task, raw=raw)
        self.trunk, self.tail, self.head = network.row(row)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S), uint8 RGB or normalised ones, to logits (B, classes)."""
        _, features = self.tail(self.trunk(self.normalised(images)))
        logits: Tensor = self.head(features)
        return logits


def undivided(network: Network, task: Task, *, raw: bool) -> CompactNetwork:
    """The same network with every channel and any weights, to compare costs with."""
    masks, backbone = network.masks, network.backbone
    whole = Masks(
        networks=(VirtualNetwork(task=task.name),),
        groups=masks.groups,
        forward={
            name: np.ones((1, m.shape[1]), dtype=np.bool_) for name, m in masks.forward.items()
        },
    )
    head = backbone.new_head(backbone.features, task.num_classes, 0)
    begun = {**tensors_of(backbone.model), **head}
    found = Network(
        backbone,
        whole,
        [task.num_classes],
        shared=begun,
        norms=[begun],
        seed=0,
        device=torch.device("cpu"),
    )
    if backbone.cut_at == "images":
        backbone.set_stride(found.stacks[0].module, task.size)
    return CompactNetwork(found, 0, task, raw=raw).eval()


class _Chain(nn.Module):
    """Both halves of a row, from images to feature vectors."""

    def __init__(self, trunk: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.trunk, self.tail = trunk, tail

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to feature vectors (B, F)."""
        features: Tensor = self.tail(self.trunk(images))[1]
        return features


def check_exportable(backbone: Backbone, size: int) -> None:
    """Export a row with half of the units, so that what cannot be is known before any training.

    Networks that are built in can be, and are not tried.

    Args:
        backbone: The network.
        size: Height and width of its images, in pixels.

    Raises:
        ExportError: `torch.export` does not follow its code.
    """
    if backbone.config.model in BUILT_IN:
        return
    kept = with_units(backbone.division, backbone.divisible, half)
    example = torch.randn(2, 3, size, size)
    said = logging.getLogger("torch")
    level = said.level
    said.setLevel(logging.CRITICAL)  # it logs graphs and traces of what it then raises
    try:
        with redirect_stderr(io.StringIO()):
            row_program(backbone, kept, example)
    except Exception as error:  # whatever its tracing meets in a module of anyone's
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ExportError(
            f"backbone: rows of {backbone.config.model} cannot be exported: torch.export cannot "
            f"follow its code ({type(error).__name__}: {first.strip()})"
        ) from error
    finally:
        said.setLevel(level)


def row_program(
    backbone: Backbone, kept: NDArray[np.bool_], example: Tensor, *, folded: bool = False
) -> ExportedProgram:
    """A row alone as a program, from normalised images to feature vectors, with any weights.

    Args:
        backbone: The network.
        kept: (units,), what the row uses.
        example: Two images or more.
        folded: As in `program_of`.
    """
    tail = Row(backbone.tail, backbone.division, kept).alone(tensors_of(backbone.tail))
    trunk = bound(backbone.trunk, tensors_of(backbone.trunk))
    return program_of(_Chain(trunk, tail).eval(), example, folded=folded)


def program_of(network: nn.Module, example: Tensor, *, folded: bool = False) -> ExportedProgram:
    """A network as a program for any number of images.

    Args:
        network: In evaluation mode.
        example: Two images or more.
        folded: With batch norms taken into the convolutions before them.
    """
    size = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(network, (example,), dynamic_shapes=(size,))
    if folded:
        module = program.module()
        fold_norms(module)
        program = torch.export.export(module, (example,), dynamic_shapes=(size,))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            for key in node.meta.keys() - {"val", "tensor_meta"}:
                del node.meta[key]  # it would tell in which folder a layer was written
    return program
