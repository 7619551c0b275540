"""Networks of other libraries with random weights, and plain ones, small enough for tests."""

import functools
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.networks import Backbone, BackboneConfig, build_backbone
from trainers.networks.built_in import (
    VGG,
    ResNet,
    SimpleConvNet,
    WideResNet,
    resnet42,
    resnext29,
)
from trainers.networks.sources import Logits


@functools.cache
def with_operators() -> torch.library.Library:
    """Define the operators of torchvision's C++ library, which its wheel has for CUDA builds alone.

    None of them is ever called here; without their names neither it nor timm can be imported.
    """
    library = torch.library.Library("torchvision", "DEF")
    spec = importlib.util.find_spec("torchvision")
    if spec is not None and spec.origin is not None:
        text = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
        for name in sorted({*re.findall(r'register_meta\("(\w+)"', text),
                            *re.findall(r"torchvision::(\w+)", text)}):  # fmt: skip
            library.define(f"{name}() -> ()")
    return library


def of_timm(name: str, **arguments: Any) -> nn.Module:
    """One of timm's, with ten classes."""
    with_operators()
    import timm

    model: nn.Module = timm.create_model(name, num_classes=10, **arguments)
    return model


def of_transformers(kind: str, **settings: Any) -> nn.Module:
    """One of transformers' image classifiers, with ten classes."""
    with_operators()
    import transformers

    config = getattr(transformers, f"{kind}Config")(num_labels=10, **settings)
    return Logits(getattr(transformers, f"{kind}ForImageClassification")(config))


class Residual(nn.Module):
    """A convolution, blocks in a loop around a stream, with layers of most kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(12, 24, 1, bias=False), nn.GroupNorm(6, 24), nn.SiLU(),
                nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24), nn.ReLU6(),
                nn.Conv2d(24, 18, 3, padding=1, groups=3), nn.PReLU(18), nn.Conv2d(18, 12, 1),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = x + block(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


#: By name: what builds it, and the height and width of its images.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: of_timm("resnet18"), 64),
    "resnext50": (lambda: of_timm("resnext50_32x4d"), 64),
    "convnext": (lambda: of_timm("convnext_atto"), 64),
    "vit": (lambda: of_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3), 32),
    "mobilenet": (lambda: of_timm("mobilenetv3_small_050"), 64),
    "efficientnet": (lambda: of_timm("efficientnet_b0"), 64),
    "vgg": (lambda: of_timm("vgg11", mlp_ratio=1 / 32), 32),
    "transformers_resnet": (
        lambda: of_transformers(
            "ResNet", depths=[1, 1, 2, 1], hidden_sizes=[32, 64, 128, 256], embedding_size=16,
        ),
        64,
    ),
    "transformers_vit": (
        lambda: of_transformers(
            "ViT", hidden_size=96, num_hidden_layers=3, num_attention_heads=3,
            intermediate_size=192, image_size=32, patch_size=8,
        ),
        32,
    ),
    "residual": (Residual, 16),
    "resnet14": (lambda: ResNet(2, width=8), 16),
    "wrn32": (lambda: WideResNet(2, widen=1), 16),
    "resnet42": (lambda: resnet42(width=4), 16),
    "resnext29": (lambda: resnext29(groups=4, width=2), 16),
    "vgg16": (lambda: VGG(width=4, hidden=16), 32),
    "simple_convnet": (lambda: SimpleConvNet(size=16, width=8, hidden=12), 16),
}  # fmt: skip


def network(name: str, *, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """One of `NETWORKS`, and two images; weights and statistics are such that all layers matter."""
    torch.manual_seed(seed)
    build, size = NETWORKS[name]
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in model.parameters():  # some begin at 0, or nearly
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model, torch.randn(2, 3, size, size)


#: Backbones whose rows are trained in tests, and the height and width of their images.
BACKBONES: dict[str, tuple[BackboneConfig, int]] = {
    "resnet14": (
        BackboneConfig(model="resnet14", args={"width": 4}, partition=("stage2.*", "stage3.*")),
        8,
    ),
    "resnet14 with streams": (
        BackboneConfig(
            model="resnet14", args={"width": 4}, partition=("stage2.*", "stage3.*"), stream=True
        ),
        8,
    ),
    "vit": (
        BackboneConfig(
            model="timm:vit_tiny_patch16_224",
            args={"img_size": 16, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3},
            partition=("*",),
        ),
        16,
    ),
    "convnext": (
        BackboneConfig(
            model="timm:convnext_atto",
            args={"depths": (1, 1, 1, 2), "dims": (4, 8, 12, 16)},
            partition=("stages.3.*",),
        ),
        32,
    ),
    "convnext with streams": (
        BackboneConfig(
            model="timm:convnext_atto",
            args={"depths": (1, 1, 1, 2), "dims": (4, 8, 12, 16)},
            partition=("stages.3",),
            stream=True,
        ),
        32,
    ),
}


def backbone(name: str) -> Backbone:
    """One of `BACKBONES`."""
    with_operators()
    return build_backbone(*BACKBONES[name])


def drawn_state(found: Backbone, seed: int = 0) -> dict[str, Tensor]:
    """Tensors of a network, by name, such that all layers and norms matter."""
    generator = torch.Generator().manual_seed(seed)
    state = found.initial(2, 0)
    for name, value in state.items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            state[name] = 0.5 + noise if name in found.own else value + 0.02 * (noise - 0.5)
    return state
