"""What a selector chooses for the images of a split, and what it is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data import Task, normalise
from trainers.methods.elastic.networks import ElasticNetworks
from trainers.network import to_channels_last

#: Of random selectors.
SEED = 0
#: Structures that are kept of a split, those of most images, and images of each.
MOST, EXAMPLES = 20, 8


@torch.no_grad()
def measure_choices(part: ElasticNetworks, row: int, task: Task, split: str) -> dict[str, Any]:
    """A selector's choices for a split's images, with what others would have come to.

    Args:
        part: In evaluation mode.
        row: One whose network is chosen per image.
        task: Its task, on the device of the networks.
        split: Which.

    Returns:
        parameters and macs of an image's network (means, without the selector), and of the
        selector; `shuffled`, the accuracy where each image has the network that was chosen for
        another one (the same networks, so the same cost); `random`, where levels are drawn, those
        of more or fewer channels so much more often that `random_macs` come to as many; `levels`,
        for each block the share of images at each level; `structures`, levels of blocks with the
        number of images, of the most frequent; `examples`, for each of these the positions of its
        first images in the split; `different`, how many structures there are; images.
    """
    batches = _batches(part, task, split)
    chosen_Bn = _chosen(part, row, task, batches)
    rng = np.random.default_rng(SEED)
    means = _mean_costs(part, task, chosen_Bn)
    random_Bn = _random(part, task, chosen_Bn.shape, means["macs"], rng)
    shuffled_Bn = chosen_Bn[rng.permutation(len(chosen_Bn))]
    structures, of_B, counts = np.unique(chosen_Bn, axis=0, return_inverse=True, return_counts=True)
    first = np.argsort(-counts, kind="stable")[:MOST]
    return {
        **means,
        "shuffled": _accuracy(part, task.name, batches, shuffled_Bn),
        "random": _accuracy(part, task.name, batches, random_Bn),
        "random_macs": float(_costs(part, task, random_Bn)[1].mean()),
        "levels": [
            [float((chosen_Bn[:, block] == level).mean()) for level in range(part.part.levels)]
            for block in range(chosen_Bn.shape[1])
        ],
        "structures": [[structures[at].tolist(), int(counts[at])] for at in first],
        "examples": [np.flatnonzero(of_B.reshape(-1) == at)[:EXAMPLES].tolist() for at in first],
        "different": len(structures),
        "images": len(chosen_Bn),
    }


@torch.no_grad()
def chosen_costs(part: ElasticNetworks, row: int, task: Task, split: str) -> dict[str, float]:
    """What the networks that a selector chooses for a split's images cost, and the selector.

    Args:
        part: In evaluation mode.
        row: One whose network is chosen per image.
        task: Its task, on the device of the networks.
        split: Which.

    Returns:
        parameters and macs (means, without the selector), selector_parameters and selector_macs.
    """
    return _mean_costs(part, task, _chosen(part, row, task, _batches(part, task, split)))


def _batches(part: ElasticNetworks, task: Task, split: str) -> list[tuple[Tensor, Tensor]]:
    data, count = task.splits[split], part.backbone.batch
    found = (data.batch(start, start + count) for start in range(0, len(data), count))
    return [(to_channels_last(normalise(images, task)), labels) for images, labels in found]


def _chosen(
    part: ElasticNetworks, row: int, task: Task, batches: list[tuple[Tensor, Tensor]]
) -> NDArray[np.int64]:
    """(B, n): levels of all images."""
    budget = part.budget_of(row)
    return np.concatenate(
        [part.choose(images, task.name)[:, budget].cpu().numpy() for images, _ in batches]
    )


def _random(
    part: ElasticNetworks, task: Task, shape: tuple[int, ...], macs: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(B, n): levels l drawn by e^(a l), a such that networks come to so many MACs on average.

    What a block costs does not depend on the others, so that means add up.
    """
    levels, blocks = part.part.levels, shape[1]
    alone = [np.zeros(blocks, dtype=np.int64)]  # then each block at each level, others at 0
    for block in range(blocks):
        for level in range(levels):
            alone.append(np.where(np.arange(blocks) == block, level, 0))
    macs_S = _costs(part, task, np.stack(alone))[1].astype(float)
    more_l = (macs_S[1:] - macs_S[0]).reshape(blocks, levels).sum(0)

    def shares(tilt: float) -> NDArray[np.float64]:
        weight_l = np.exp(tilt * np.arange(levels) - max(0.0, tilt * (levels - 1)))
        found: NDArray[np.float64] = weight_l / weight_l.sum()
        return found

    low, high = -50.0, 50.0  # beyond them all blocks have the same level
    for _ in range(60):
        tilt = (low + high) / 2
        if macs_S[0] + shares(tilt) @ more_l < macs:
            low = tilt
        else:
            high = tilt
    return rng.choice(levels, size=shape, p=shares((low + high) / 2))


def _mean_costs(
    part: ElasticNetworks, task: Task, chosen_Bn: NDArray[np.int64]
) -> dict[str, float]:
    parameters_B, macs_B = _costs(part, task, chosen_Bn)
    selector_parameters, selector_macs = part.selector.costs(task.size)
    return {
        "parameters": float(parameters_B.mean()),
        "macs": float(macs_B.mean()),
        "selector_parameters": selector_parameters,
        "selector_macs": selector_macs,
    }


def _accuracy(
    part: ElasticNetworks, task: str, batches: list[tuple[Tensor, Tensor]], z_Bn: NDArray[np.int64]
) -> float:
    """Share of images that are classified correctly, each by the network of its levels."""
    correct, at = 0, 0
    for images, labels in batches:
        own = torch.from_numpy(z_Bn[at : at + len(images)])
        correct += int((part.chosen(images, task, own).argmax(1) == labels).sum())
        at += len(images)
    return correct / len(z_Bn)


def _costs(
    part: ElasticNetworks, task: Task, z_Bn: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Parameters and multiply-accumulates of every image's network, with the task's head."""
    structures, inverse_B = np.unique(z_Bn, axis=0, return_inverse=True)
    kept = part.kept_by(task.name, structures)
    counted = part.backbone.counter.count(kept)
    weights = part.backbone.features * task.num_classes
    each = counted.parameters + weights + task.num_classes, counted.macs + weights
    inverse_B = inverse_B.reshape(-1)
    return each[0][inverse_B], each[1][inverse_B]
