"""How alike tasks are: whether their teachers tell the same images apart in the same way.

Legend of shapes: T tasks, N images, C features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partitioning import FloatArray
from trainers.data import Task, normalise
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import Whole, to_channels_last
from trainers.networks import BackboneConfig, build_backbone
from trainers.teachers import Trained, fingerprint

#: Validation images of every task that all teachers are shown.
IMAGES_EACH = 64


def similarity_digest(
    teachers: Mapping[str, Trained], tasks: Mapping[str, Task], *, precision: str
) -> str:
    """Hash of all that determines how alike the teachers are."""
    return fingerprint(
        kind="similarity",
        images=IMAGES_EACH,
        teachers=[teachers[name].digest for name in tasks],
        data=[task.fingerprint() for task in tasks.values()],
        precision=precision,
    )


def probe_images(tasks: Sequence[Task]) -> Tensor:
    """The images that teachers are compared on, uint8 (N, 3, S, S): as many of each task."""
    chosen = []
    for task in tasks:
        split = task.splits["validation"]
        # Spread over the split: datasets are often stored class by class.
        evenly = np.linspace(0, len(split) - 1, min(len(split), IMAGES_EACH)).astype(int)
        chosen.append(split.take(torch.from_numpy(evenly))[0].cpu())
    return torch.cat(chosen)


@torch.no_grad()
def teacher_features(
    config: BackboneConfig, teacher: Trained, task: Task, images: Tensor, compute: ComputeConfig
) -> NDArray[np.float32]:
    """A teacher's features of images, before its head.

    Args:
        config: The backbone.
        teacher: The teacher.
        task: Its task.
        images: uint8 (N, 3, S, S), of any task.
        compute: Device and precision.

    Returns:
        (N, C).
    """
    device = resolve_device(compute.device)
    backbone = build_backbone(config, task.size)
    network = Whole(backbone, teacher.state, device).eval()
    moved = task.to(device)
    features = []
    for batch in images.split(backbone.batch):
        with autocast(device, compute.precision):
            x = network.trunk(to_channels_last(normalise(batch.to(device), moved)))
            features.append(network.tail(x)[1].float().cpu())
    return np.asarray(torch.cat(features).numpy(), dtype=np.float32)


def linear_cka(features: Sequence[NDArray[np.float32]]) -> FloatArray:
    r"""Centred kernel alignment of features of the same images (Kornblith et al. 2019).

    With X and Y centred, $\|Y^\top X\|_F^2 / (\|X^\top X\|_F \|Y^\top Y\|_F)$: 1 where one is the
    other but for a rotation and a scale, 0 where they have nothing in common.

    Args:
        features: T arrays (N, C); C may differ.

    Returns:
        (T, T), symmetric, in [0, 1], with 1 on the diagonal.

    Example:
        >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]], dtype=np.float32)
        >>> linear_cka([x, 3 * x[:, ::-1]]).round(6).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    grams = []
    for array in features:
        centred_NC = array.astype(np.float64) - array.mean(axis=0, dtype=np.float64)
        gram_NN = centred_NC @ centred_NC.T
        grams.append(gram_NN / (np.linalg.norm(gram_NN) or 1.0))
    flat_TX = np.stack([gram.ravel() for gram in grams])
    alike_TT = np.clip(flat_TX @ flat_TX.T, 0.0, 1.0)
    np.fill_diagonal(alike_TT, 1.0)
    return np.asarray((alike_TT + alike_TT.T) / 2)
