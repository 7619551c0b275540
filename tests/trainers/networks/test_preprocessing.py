"""What networks' own configs say of their images, against what the libraries do by them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.foreign import with_operators
from trainers.data import Inputs
from trainers.networks import ModelError, build_model, own_inputs

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def own(model: str, **args: Any) -> tuple[int | None, Inputs]:
    with_operators()
    return own_inputs(model, args, build_model(model, args))


def test_timm() -> None:
    size, inputs = own("timm:vgg11")
    assert (size, inputs) == (224, Inputs(**IMAGENET, interpolation="bilinear"))
    size, inputs = own("timm:vit_tiny_patch16_224", depth=1)
    assert (size, inputs.mean, inputs.std) == (224, (0.5,) * 3, (0.5,) * 3)
    assert inputs.interpolation == "bicubic"


def test_a_size_that_was_asked_for_stays() -> None:
    assert own("timm:vit_tiny_patch16_224", img_size=32, depth=1)[0] == 32
    assert own("timm:vit_tiny_patch16_224", img_size=(48, 48), depth=1)[0] == 48
    assert own("torchvision:vit_b_32", image_size=32) == (32, Inputs())


def test_torchvision() -> None:
    """By all names that a network can be built by; nothing is downloaded here."""
    with_operators()
    from torchvision import models

    assert own("torchvision:resnet18") == (None, Inputs())
    weights = models.EfficientNet_B3_Weights.IMAGENET1K_V1
    for name in (weights, "DEFAULT", "IMAGENET1K_V1", "EfficientNet_B3_Weights.DEFAULT"):
        found = own_inputs("torchvision:efficientnet_b3", {"weights": name}, nn.Identity())
        assert found == (300, Inputs(**IMAGENET, interpolation="bicubic"))


def test_functions_of_ones_own() -> None:
    assert own("tests.helpers.foreign:Residual") == (None, Inputs())


def folder(top: Path, processor: str = "", **settings: Any) -> str:
    """A small network in the hub's format, with the file of an image processor if one is named."""
    with_operators()
    import transformers

    config = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=32, patch_size=8,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(top)
    if processor:
        getattr(transformers, processor)(**settings).save_pretrained(top)
    return f"transformers:{top}"


PROCESSORS: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": ("ViTImageProcessor", {"size": {"height": 48, "width": 48}, "resample": 3}, 48),
    "number": ("ViTImageProcessor", {"size": 40, "image_mean": IMAGENET["mean"]}, 40),
    "nearest": ("ViTImageProcessor", {"resample": 0}, 224),
    "plain": ("ViTImageProcessor", {"do_normalize": False}, 224),
    "bytes": ("ViTImageProcessor", {"do_normalize": False, "do_rescale": False}, 224),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, 384),
    "levit": (
        "LevitImageProcessor",
        {"size": {"shortest_edge": 256}, "crop_size": {"height": 192, "width": 192}},
        192,
    ),
    "efficientnet": (
        "EfficientNetImageProcessor",
        {"size": {"height": 64, "width": 64}, "image_std": IMAGENET["std"], "include_top": True},
        64,
    ),
    "offset": (
        "EfficientNetImageProcessor",
        {"size": 64, "rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False},
        64,
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_transformers(name: str, tmp_path: Path) -> None:
    """A grey image comes to what the image processor itself makes of it."""
    processor, settings, side = PROCESSORS[name]
    size, inputs = own(folder(tmp_path, processor, **settings))
    assert size == side
    resample = settings.get("resample", 2 if processor.startswith("ViT") else 3)
    assert inputs.interpolation == {0: "nearest", 2: "bilinear", 3: "bicubic"}[resample]
    import transformers

    whole = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for grey in (0, 100, 255):
        image = np.full((300, 300, 3), grey, dtype=np.uint8)
        made = torch.as_tensor(whole(image, return_tensors="np")["pixel_values"])
        assert made.shape == (1, 3, side, side)
        assert inputs.mean is not None
        assert inputs.std is not None
        wanted = (grey / 255 - torch.tensor(inputs.mean)) / torch.tensor(inputs.std)
        torch.testing.assert_close(made[0, :, 20, 20].float(), wanted, atol=2e-5, rtol=1e-5)


def test_a_folder_of_an_old_transformers(tmp_path: Path) -> None:
    model = folder(tmp_path)
    said = {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2}
    said |= {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    assert own(model) == (32, Inputs(mean=(0.5,) * 3, std=(0.5,) * 3))


def test_transformers_without_an_image_processor(tmp_path: Path) -> None:
    model = folder(tmp_path)
    assert own(model) == (32, Inputs())
    with pytest.raises(ModelError, match=r"do not fit: 1 tensors .*position_embeddings"):
        own(model, image_size=16, ignore_mismatched_sizes=True)
    folder(tmp_path, "ViTImageProcessor")
    assert own(model)[0] == 224


def test_what_cannot_be_followed(tmp_path: Path) -> None:
    def refused(words: str, processor: str, **settings: Any) -> None:
        model = folder(tmp_path, processor, **settings)
        with pytest.raises(ModelError, match=f"its own inputs cannot be followed: .*{words}"):
            own(model)

    refused("BGR", "MobileViTImageProcessor")
    refused("squares are needed", "ViTImageProcessor", size={"height": 32, "width": 64})
    network = build_model("tests.helpers.foreign:Residual")
    network.pretrained_cfg = {"input_size": (1, 32, 32)}  # type: ignore[assignment]
    with pytest.raises(ModelError, match="1 channels, where RGB is needed"):
        own_inputs("timm:residual", {}, network)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be followed"):
        own(f"transformers:{tmp_path}")
