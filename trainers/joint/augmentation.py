"""Stronger variation of training images, by torchvision, which is loaded where it is asked for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainers.joint.config import TrainConfig
from trainers.libraries import needed_for

Change = Callable[[Tensor], Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def require_library(config: TrainConfig) -> None:
    """Refuse settings that need torchvision where it cannot be loaded.

    Raises:
        MissingLibraryError: It cannot.
    """
    if config.randaugment or config.mixup:
        _transforms()


def changes(config: TrainConfig) -> Change | None:
    """What is done to uint8 images (B, 3, S, S), each by draws of its own; None for nothing."""
    if not config.randaugment:
        return None
    change = _transforms().RandAugment(magnitude=config.randaugment)

    def each(images: Tensor) -> Tensor:
        return torch.stack([change(image) for image in images])

    return each


def mixing(config: TrainConfig, classes: int) -> Mix | None:
    """What is done to images and labels (B,), which become shares (B, classes); None likewise."""
    if not config.mixup:
        return None
    mix: Mix = _transforms().MixUp(alpha=config.mixup, num_classes=classes)
    return mix


def _transforms() -> Any:
    with needed_for("train.randaugment and train.mixup", "torchvision", "torchvision"):
        from torchvision.transforms import v2
    return v2
