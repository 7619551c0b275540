"""The repeated blocks of a network."""

from __future__ import annotations

from torch import Tensor, nn

from trainers.networks.recording import Recording, holds

#: Modules that hold others in a row.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_blocks(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Names of a network's blocks, in the order in which they run.

    A block is in a container, runs once, gives one tensor, and has two or more layers with a weight
    matrix or kernel; half or more of the layers beside it are such modules, else it is a part of a
    block. What it reads is all that crosses a cut before it. Of blocks within blocks, as of stages,
    the innermost count.

    Args:
        model: Maps a batch of images to logits; in `eval` mode.
        images: Such a batch.

    Raises:
        RecordingError: One run does not tell what others do.
    """
    record = Recording(model, images)
    large = {
        name
        for name in record.single
        if record.calls[name] == 1 and _weighted(model.get_submodule(name)) >= 2
    }
    while True:
        candidates = _among_their_kind(model, large)
        blocks = [n for n in record.calls if n in candidates and not holds(n, candidates)]
        record = Recording(model, images, blocks)
        parts = {name for name in blocks if len(record.crossing([name])) != 1}
        if not parts:
            return tuple(blocks)
        large -= parts


def _among_their_kind(model: nn.Module, large: set[str]) -> set[str]:
    """Of modules with several weighted layers, those that lie among others such in a container."""
    found: set[str] = set()
    for parent, module in model.named_modules():
        if isinstance(module, CONTAINERS):
            prefix = f"{parent}." if parent else ""
            chosen = {f"{prefix}{name}" for name, _ in module.named_children()} & large
            if 2 * len(chosen) >= sum(_weighted(child) > 0 for child in module.children()):
                found |= chosen
    return found


def _weighted(module: nn.Module) -> int:
    """Layers with a parameter of two or more axes."""
    return sum(
        any(p.ndim >= 2 for p in layer.parameters(recurse=False)) for layer in module.modules()
    )
