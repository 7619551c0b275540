"""Where networks come from: timm, torchvision, transformers, or a function of the user's own.

Nothing that is downloaded runs code: weights are read as safetensors, or as plain tensors.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class ModelError(ValueError):
    """A network that cannot be built or filled as asked."""


class Logits(nn.Module):
    """An image classifier of transformers as a map from images to logits.

    Args:
        model: Of a class such as `ViTForImageClassification`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes)."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def build_model(
    model: str, args: Mapping[str, Any] | None = None, weights: Path | None = None
) -> nn.Module:
    """Build a network.

    Args:
        model: `<source>:<name>` with a key of `SOURCES`, or `<module>:<function>` of any function
            that returns a network.
        args: Keyword arguments of whatever builds it.
        weights: A file of weights that it is filled with, `.safetensors` or a state dict that
            `torch.load(weights_only=True)` reads.

    Returns:
        The network, in evaluation mode.

    Raises:
        ModelError: There is no such library, network or argument, or the weights do not fit.

    Example:
        >>> build_model("torch.nn:Linear", {"in_features": 2, "out_features": 3})
        Linear(in_features=2, out_features=3, bias=True)
    """
    source, colon, name = model.partition(":")
    if not (colon and source and name):
        raise ModelError(
            f"a network is named as {', '.join(f'{each}:NAME' for each in SOURCES)} or "
            f"package.module:function, got {model!r}"
        )
    try:
        build: Callable[[str, dict[str, Any]], Any] = SOURCES.get(source, _of_module(source))
        found = build(name, dict(args or {}))
    except ImportError as error:
        extra = f": pip install 'apportion[{source}]'" if source in SOURCES else ""
        raise ModelError(
            f"{model} needs {source}, which cannot be imported{extra} ({error})"
        ) from error
    except (TypeError, OSError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{model} cannot be built: {str(error) or type(error).__name__}"
        ) from error
    if not isinstance(found, nn.Module):
        raise ModelError(f"{model} must return a torch.nn.Module, got a {type(found).__name__}")
    if weights is not None:
        fill(found, weights)
    return found.eval()


def fill(model: nn.Module, path: Path) -> None:
    """Fill a network with the weights of a file that cannot run code.

    Raises:
        ModelError: The file is missing, is not of plain tensors, or does not fit: which tensors.
    """
    if not path.is_file():
        raise ModelError(f"weights {path} do not exist")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"weights {path} are no safetensors file: {error}") from error
    except Exception as error:
        raise ModelError(
            f"weights {path} are no plain state dict: they would have to be unpickled, which can "
            "run code; save them again with safetensors.torch.save_file"
        ) from error
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
    other = [
        f"{name} is {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted.keys() & state.keys()
        if state[name].shape != wanted[name].shape
    ]
    problems = [
        f"{len(names)} tensors {what}, such as {', '.join(names[:3])}"
        for what, names in (("are missing", missing), ("are not the network's", unknown))
        if names
    ] + sorted(other)[:3]
    if problems:
        raise ModelError(f"weights {path} do not fit: {'; '.join(problems)}")
    odd = sorted(n for n, v in state.items() if v.is_floating_point() and not v.isfinite().all())
    if odd:
        raise ModelError(f"weights {path} have values that are not finite: {', '.join(odd[:3])}")
    model.load_state_dict(state)


def _of_timm(name: str, args: dict[str, Any]) -> nn.Module:
    import timm

    _require(name.partition(".")[0], timm.list_models(), "timm")
    model: nn.Module = timm.create_model(name, **args)
    return model


def _of_torchvision(name: str, args: dict[str, Any]) -> nn.Module:
    from torchvision import models

    _require(name, models.list_models(), "torchvision")
    model: nn.Module = models.get_model(name, **args)
    return model


def _of_transformers(name: str, args: dict[str, Any]) -> nn.Module:
    from transformers import AutoModelForImageClassification

    build = AutoModelForImageClassification.from_pretrained
    return Logits(build(name, trust_remote_code=False, use_safetensors=True, **args))


def _of_module(module: str) -> Callable[[str, dict[str, Any]], Any]:
    def build(name: str, args: dict[str, Any]) -> Any:
        found = importlib.import_module(module)
        if not callable(getattr(found, name, None)):
            near = difflib.get_close_matches(name, dir(found))
            raise ModelError(f"{module} has no function {name}{_hint(near)}")
        return getattr(found, name)(**args)

    return build


def _require(name: str, known: Collection[str], library: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known)
        raise ModelError(f"{library} has no network {name}{_hint(near)}")


def _hint(near: list[str]) -> str:
    return f"; did you mean {' or '.join(near)}?" if near else ""


#: Libraries of networks, by the word before the colon.
SOURCES: dict[str, Callable[[str, dict[str, Any]], nn.Module]] = {
    "timm": _of_timm,
    "torchvision": _of_torchvision,
    "transformers": _of_transformers,
}
