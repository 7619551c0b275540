"""How many candidates train side by side: as many as fit into memory, and as pays.

Legend of shapes: K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from partitioning import Masks
from trainers.networks import Backbone

Result = TypeVar("Result")

# What libraries say in a plain RuntimeError when memory has run out.
OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "unable to find a valid cudnn algorithm",
)

# On a CPU one student already keeps the cores busy, and each of several waits for the others.
CPU_CANDIDATES = 1

# Memory that is left alone: other processes, fragments, and what the estimate does not know of.
SHARE_OF_FREE = 0.7


def candidate_bytes(backbone: Backbone, *, rows: int, batch_size: int, norm_images: int) -> int:
    """Bytes that one candidate more takes on a device, about.

    All weights, every row's part of them with momentum and the positions that it is gathered from,
    one row's gradient, and the larger of the maps that training keeps for its backward pass and
    those that measuring the norms' statistics makes.

    Args:
        backbone: The network.
        rows: Virtual networks.
        batch_size: Images of a training step.
        norm_images: Images over which the norms' statistics are measured at once.
    """
    weights = sum(parameter.numel() for parameter in backbone.tail.parameters())
    # Positions take eight bytes for each of the weights at worst.
    maps = max(3 * batch_size, norm_images) * backbone.map_bytes
    return weights * (rows * (4 + 4 + 4 + 8) + 4 + 4) + maps


def room(device: torch.device, bytes_each: int, share: float = 1.0) -> int:
    """How many candidates of that size fit into a share of the device's memory, at least 1."""
    if device.type != "cuda":
        return CPU_CANDIDATES
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    # What torch holds without using it is free, too.
    free += torch.cuda.memory_reserved(device) - allocated
    free = min(free, int(share * total) - allocated)
    return max(1, math.floor(SHARE_OF_FREE * free / bytes_each))


def start_measuring(device: torch.device) -> int:
    """Bytes in use on a GPU, from which `peak_bytes` is measured anew; 0 elsewhere."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_bytes(device: torch.device) -> int:
    """The most bytes in use on a GPU since `start_measuring`; 0 elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def in_chunks(
    items: Sequence[int], size: Callable[[], int], run: Callable[[Sequence[int]], list[Result]]
) -> Iterator[tuple[int, Result]]:
    """Runs items a chunk at a time; chunks that do not fit into memory are halved and run again.

    Args:
        items: What to run, in order.
        size: How many to run next, at most; asked before every chunk. Once a chunk has not fitted,
            none is larger than its half.
        run: One result per item of a chunk.

    Yields:
        Every item with its result.

    Raises:
        MemoryError: A chunk of one item does not fit.
    """
    start, most = 0, len(items)
    while start < len(items):
        chunk = items[start : start + min(size(), most)]
        results = None
        try:
            results = run(chunk)
        except (MemoryError, RuntimeError) as error:  # torch's own are RuntimeErrors
            if not _out_of_memory(error):
                raise
            if len(chunk) == 1:
                raise MemoryError(
                    "one candidate alone does not fit into memory; lower proxy.sgd.batch_size or "
                    f"proxy.norm_images, or use a larger device: {error}"
                ) from error
        if results is None:
            # Only now does nothing hold the tensors of the chunk that failed.
            most = len(chunk) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield from zip(chunk, results, strict=True)
        start += len(chunk)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error).lower() for words in OUT_OF_MEMORY
    )


def alike(cohort: Sequence[Masks], *, padded: bool) -> list[list[int]]:
    """Positions of candidates that can be stacked: of the same networks and groups.

    Where rows cannot be padded with zeros, as layer norms would see them, they also use as many
    units of every group.

    Those of a list are ordered by how many channels they use, so that neighbours need little
    padding; the largest first, whose memory the others do not exceed.
    """
    kinds: dict[tuple[object, ...], list[int]] = {}
    for position, masks in enumerate(cohort):
        counts = () if padded else _counts(masks)
        kinds.setdefault((masks.networks, masks.groups, counts), []).append(position)
    return [sorted(positions, key=lambda i: -_use(cohort[i])) for positions in kinds.values()]


def _counts(masks: Masks) -> tuple[int, ...]:
    return tuple(int(n) for mask in masks.forward.values() for n in mask.sum(axis=1))


def _use(masks: Masks) -> float:
    return float(sum(mask.mean() for mask in masks.forward.values()))
