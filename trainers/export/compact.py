"""One small network per task: unused channels physically removed, checked, and written to disk."""

import io
import logging
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from partitioning import EXPORT, write_atomically, write_json
from trainers.cost import costs
from trainers.data import Task, normalise
from trainers.network import Network
from trainers.networks import BUILT_IN, Backbone, Row, bound, half, tensors_of, with_units
from trainers.tensor_files import save_arrays

#: Largest difference between logits of the compact and the masked network that counts as equal,
#: relative to the largest logit. Removing channels only changes the order of float32 sums.
TOLERANCE = 1e-4


class ExportError(ValueError):
    """A network that cannot be exported, or does not compute what the masked network does."""


class RawImages(nn.Module):
    """What reads images as they are stored: RGB of 0 to 255.

    Args:
        task: Gives the mean and standard deviation that images are normalised with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * task.mean.detach().cpu().view(1, 3, 1, 1))
        self.register_buffer("std", 255 * task.std.detach().cpu().view(1, 3, 1, 1))

    def normalised(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, 3, S, S) to normalised ones."""
        return (images.float() - self.mean) / self.std


class CompactNetwork(RawImages):
    """A virtual network alone, from raw images to logits.

    Args:
        network: A trained network.
        row: Which of its virtual networks.
        task: Gives the mean and standard deviation that images are normalised with.
    """

    def __init__(self, network: Network, row: int, task: Task) -> None:
        super().__init__(task)
        self.trunk, self.tail, self.head = network.row(row)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 RGB images (B, 3, S, S) to logits (B, classes)."""
        _, features = self.tail(self.trunk(self.normalised(images)))
        logits: Tensor = self.head(features)
        return logits


@dataclass(frozen=True, kw_only=True)
class ExportCheck:
    """A compact network compared with the masked network it was cut from.

    Attributes:
        accuracy: Of the compact network, on the split that was compared.
        masked_accuracy: Of the masked network.
        max_difference: Largest absolute difference of any logit.
        images: Number of images compared.
    """

    accuracy: float
    masked_accuracy: float
    max_difference: float
    images: int


@torch.no_grad()
def check_export(
    compact: Callable[[Tensor], Tensor],
    trained: Callable[[Tensor], Tensor],
    task: Task,
    split: str,
    batch: int,
) -> ExportCheck:
    """Run both networks over a split and compare every logit.

    Args:
        compact: Of raw images.
        trained: Of normalised ones, in evaluation mode.
        task: Its images.
        split: Name of the split.
        batch: Images in one forward pass.

    Raises:
        ExportError: Logits differ by more than float32 sums can (`TOLERANCE`).
    """
    data = task.splits[split]
    correct = masked_correct = 0
    worst = largest = 0.0
    for start in range(0, len(data), batch):
        images, labels = data.batch(start, start + batch)
        logits, wanted = compact(images), trained(normalise(images, task))
        if not bool((logits - wanted).isfinite().all()):
            raise ExportError(f"the network of task {task.name} gives logits that are not finite")
        worst = max(worst, float((logits - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
        correct += int((logits.argmax(1) == labels).sum())
        masked_correct += int((wanted.argmax(1) == labels).sum())
    if not worst <= TOLERANCE * max(1.0, largest):
        raise ExportError(
            f"the compact network of task {task.name} differs from the masked one by {worst:.3g} "
            f"(largest logit {largest:.3g}); it was not exported"
        )
    return ExportCheck(
        accuracy=correct / len(data),
        masked_accuracy=masked_correct / len(data),
        max_difference=worst,
        images=len(data),
    )


def export_networks(
    network: Network, tasks: Mapping[str, Task], folder: Path
) -> dict[str, ExportCheck]:
    """Write one compact network per virtual network, each checked as it would be loaded.

    Every `<folder>/<network>/` holds `network.pt2` (a `torch.export` program that needs only torch
    to load and run), `weights.safetensors`, and `network.json`: input, classes, costs, checks.

    Args:
        network: A trained network, on the CPU.
        tasks: Its tasks; the test split is used for the check where there is one.
        folder: Created if missing.

    Returns:
        The check of the reloaded program, by virtual network.

    Raises:
        ExportError: A compact network differs from the masked one.
    """
    network.eval()
    masks = network.masks
    classes = [tasks[n.task].num_classes for n in masks.networks]
    counted = costs(network.backbone, masks, classes)
    checks: dict[str, ExportCheck] = {}
    for row, virtual in enumerate(masks.networks):
        name, task = str(virtual), tasks[virtual.task]
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        checks[name] = _write(network, row, task, target)
        before = _before_head(network.heads[row])
        description = {
            **described(task, virtual.level),
            "parameters": counted.parameters[name] + before[0],
            "macs": counted.macs[name] + before[1],
            "use": counted.use[name],
            "split": checked_split(task),
            "accuracy": checks[name].accuracy,
            "max_logit_difference": checks[name].max_difference,
        }
        write_json(target / "network.json", description)
    return checks


def described(task: Task, level: int) -> dict[str, Any]:
    """What `network.json` says of any network of a task."""
    return {
        **EXPORT.header,
        "task": task.name,
        "level": level,
        "classes": list(task.classes),
        "input": {
            "size": task.size,
            "channels": "RGB",
            "values": "0..255",
            "layout": "NCHW",
            # The shorter side to `size`, so interpolated, and the centre kept.
            "interpolation": task.inputs.interpolation,
        },
    }


def _before_head(head: nn.Module) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the layers that a head has before its last."""
    *layers, _ = (module for module in head.modules() if isinstance(module, nn.Linear))
    weights = sum(layer.weight.numel() for layer in layers)
    return weights + sum(layer.bias.numel() for layer in layers), weights


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
    tail = Row(backbone.tail, backbone.division, kept).alone(tensors_of(backbone.tail))
    trunk = bound(backbone.trunk, tensors_of(backbone.trunk))
    example = torch.randn(2, 3, size, size)
    said = logging.getLogger("torch")
    level = said.level
    said.setLevel(logging.CRITICAL)  # it logs graphs and traces of what it then raises
    try:
        with redirect_stderr(io.StringIO()):
            _program(_Chain(trunk, tail).eval(), example)
    except Exception as error:  # whatever its tracing meets in a module of anyone's
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ExportError(
            f"backbone: rows of {backbone.config.model} cannot be exported: torch.export cannot "
            f"follow its code ({type(error).__name__}: {first.strip()})"
        ) from error
    finally:
        said.setLevel(level)


def _program(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """A network as a program for any number of images."""
    size = {0: torch.export.Dim("batch", min=1)}
    return torch.export.export(network, (example,), dynamic_shapes=(size,))


def checked_split(task: Task) -> str:
    """The split that an export is checked on."""
    return "test" if "test" in task.splits else "validation"


def _write(network: Network, row: int, task: Task, target: Path) -> ExportCheck:
    """Write program and weights of a row, if the program as it is read back computes the same."""
    compact = CompactNetwork(network, row, task).eval()
    split = checked_split(task)
    example = torch.zeros(2, *task.splits[split].images.shape[1:], dtype=torch.uint8)
    program = _program(compact, example)
    with write_atomically(target / "network.pt2") as partial:
        torch.export.save(program, partial)
        check = check_export(
            torch.export.load(partial).module(),
            lambda images: network(images, row),
            task,
            split,
            network.backbone.batch,
        )
    state = {name: tensor.contiguous().numpy() for name, tensor in compact.state_dict().items()}
    save_arrays(state, target / "weights.safetensors", {})
    return check
