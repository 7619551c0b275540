"""What a network's own config says of its images: resolution, mean and deviation, resizing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from trainers.data import Inputs
from trainers.networks.sources import Logits, ModelError, torchvision_arguments

#: Height and width in pixels, None where nothing is said of them, and the rest.
Own = tuple[int | None, Inputs]
Colour = tuple[float, float, float]

#: What transformers keeps beside a network in a folder.
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def own_inputs(model: str, args: Mapping[str, Any] | None, network: nn.Module) -> Own:
    """How images are to be given to a network, as far as its own config says it.

    Of timm that is its `pretrained_cfg`, of torchvision what belongs to the argument `weights`, of
    transformers its image processor. Sizes that were given as an argument come before. How much of
    an image is cut off around the centre is not followed.

    Args:
        model: What `build_model` was given.
        args: Likewise.
        network: What it returned.

    Returns:
        Height and width in pixels, and the other inputs. None and `Inputs()` where nothing is said:
        of functions of one's own, of torchvision without weights, and of a folder of transformers
        without an image processor.

    Raises:
        ModelError: Its images are not square, or not RGB, or are resized in a way that there is not
            here; or its image processor cannot be read.

    Example:
        >>> from trainers.networks import build_model
        >>> args = {"in_features": 2, "out_features": 3}
        >>> own_inputs("torch.nn:Linear", args, build_model("torch.nn:Linear", args))
        (None, Inputs(mean=None, std=None, interpolation='bilinear'))
    """
    source, _, name = model.partition(":")
    if source not in OWN:
        return None, Inputs()
    try:
        return OWN[source](name, dict(args or {}), network)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{model}: its own inputs cannot be followed: {error}") from error


def _of_timm(name: str, args: Mapping[str, Any], network: Any) -> Own:
    config = network.pretrained_cfg
    channels, *shape = config["input_size"]
    if channels != 3:
        raise ValueError(f"images have {channels} channels, where RGB is needed")
    return _side(args.get("img_size", shape)), Inputs(
        mean=_rgb(config["mean"]), std=_rgb(config["std"]), interpolation=config["interpolation"]
    )


def _of_torchvision(name: str, args: Mapping[str, Any], network: nn.Module) -> Own:
    from torchvision import models

    args = torchvision_arguments(args)
    if args.get("weights") is None:
        return _side(args.get("image_size")), Inputs()
    preset = models.get_model_weights(name).verify(args["weights"]).transforms()
    return _side(args.get("image_size", preset.crop_size)), Inputs(
        mean=_rgb(preset.mean), std=_rgb(preset.std), interpolation=preset.interpolation.value
    )


def _of_transformers(name: str, args: Mapping[str, Any], network: nn.Module) -> Own:
    from transformers import AutoImageProcessor

    assert isinstance(network, Logits)
    config: Any = network.model.config
    size = _side(args.get("image_size"))
    if Path(name).is_dir() and not any(Path(name, file).is_file() for file in PROCESSORS):
        return size or _side(getattr(config, "image_size", None)), Inputs()
    where = {key: args[key] for key in ("revision", "subfolder", "cache_dir") if key in args}
    said = AutoImageProcessor.from_pretrained(name, trust_remote_code=False, **where).to_dict()
    if said.get("do_flip_channel_order"):
        raise ValueError("its images are BGR, where RGB is needed")
    cut = said.get("crop_size") if said.get("do_center_crop") else None
    size = size or _side(cut or said.get("size") or getattr(config, "image_size", None))
    mean, std = _normalisation(said)
    resampling = Image.Resampling(said["resample"]).name.lower()
    return size, Inputs(mean=mean, std=std, interpolation=resampling)


def _normalisation(said: Mapping[str, Any]) -> tuple[Colour, Colour]:
    """Mean and deviation in units of [0, 1] that do what an image processor does to 0 ... 255."""
    span = 255 * said["rescale_factor"] if said.get("do_rescale") else 255
    black = -1 if said.get("do_rescale") and said.get("rescale_offset") else 0
    mean, std = np.zeros(3), np.ones(3)
    if said.get("do_normalize"):
        mean, std = np.array(said["image_mean"]), np.array(said["image_std"])
    if said.get("include_top"):  # EfficientNet's divides once more
        std = std * said["image_std"]
    # What is told by 0.485 and 1 / 255 is 0.485 again, whatever floats make of 255 / 255.
    return _rgb(((mean - black) / span).round(9)), _rgb((std / span).round(9))


def _rgb(values: Any) -> Colour:
    """Red, green and blue, of three numbers or of one for all."""
    red, green, blue = np.broadcast_to(values, 3).tolist()
    return red, green, blue


def _side(size: Any) -> int | None:
    """The side of a square that is given as a number, as two or one in a list, or by names.

    Raises:
        ValueError: It is no square.
    """
    if size is None or isinstance(size, int):
        return size
    sides = [*size.values()] if isinstance(size, Mapping) else [*size]
    if len(set(sides)) != 1:
        raise ValueError(f"images are {size}, where squares are needed")
    return int(sides[0])


#: By the word before the colon, as in `SOURCES`: name, arguments and network to what is said.
OWN: dict[str, Callable[[str, dict[str, Any], nn.Module], Own]] = {
    "timm": _of_timm,
    "torchvision": _of_torchvision,
    "transformers": _of_transformers,
}
