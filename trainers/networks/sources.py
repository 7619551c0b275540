"""Where networks come from: timm, torchvision, transformers, or a function of the user's own.

Nothing that is downloaded runs code: weights are read as safetensors, or as plain tensors.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainers.networks.built_in import BUILT_IN

#: (name, keyword arguments, whether to leave out trained weights, the head) to the network.
Build = Callable[[str, dict[str, Any], bool, str | None], Any]


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


def pretrained(model: str, args: Mapping[str, Any]) -> bool:
    """Whether a network has trained weights when it is built, as far as its arguments say."""
    source, colon, _ = model.partition(":")
    if source in ("timm", "torchvision"):
        return bool(args.get("pretrained") or args.get("weights") or args.get("checkpoint_path"))
    return bool(colon)  # a function's are its own


def build_model(
    model: str,
    args: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    head: str | None = None,
    *,
    structure: bool = False,
) -> nn.Module:
    """Build a network.

    Args:
        model: A key of `BUILT_IN`, `<source>:<name>` with a key of `SOURCES`, or
            `<module>:<function>` of any function that returns a network.
        args: Keyword arguments of whatever builds it.
        weights: A file of weights that it is filled with, `.safetensors` or a state dict that
            `torch.load(weights_only=True)` reads.
        head: A module that the file need not have the weights of.
        structure: Leave out trained weights, which may have to be downloaded.

    Returns:
        The network, in evaluation mode.

    Raises:
        ModelError: There is no such library, network or argument, or the weights do not fit.

    Example:
        >>> build_model("torch.nn:Linear", {"in_features": 2, "out_features": 3})
        Linear(in_features=2, out_features=3, bias=True)
    """
    source, colon, name = model.partition(":")
    if model in BUILT_IN:
        source, name = "", model
    elif not (colon and source and name):
        raise ModelError(
            f"a network is named {', '.join(BUILT_IN)}, "
            f"{', '.join(f'{each}:NAME' for each in SOURCES)} or package.module:function, got "
            f"{model!r}{_hint(difflib.get_close_matches(model, BUILT_IN))}"
        )
    try:
        build: Build = SOURCES.get(source, _built_in if not source else _of_module(source))
        with _plain_tensors_only() if source in SOURCES else nullcontext():
            found = build(name, dict(args or {}), structure, head)
    except ImportError as error:
        extra = f": pip install 'apportion[{source}]'" if source in SOURCES else ""
        raise ModelError(
            f"{model} needs {source}, which cannot be imported{extra} ({error})"
        ) from error
    except ModelError:
        raise
    except Exception as error:  # whatever builds it may raise what it likes
        raise ModelError(
            f"{model} cannot be built: {str(error) or type(error).__name__}"
        ) from error
    if not isinstance(found, nn.Module):
        raise ModelError(f"{model} must return a torch.nn.Module, got a {type(found).__name__}")
    if weights is not None:
        fill(found, weights, head)
    return found.float().eval()


@contextmanager
def _plain_tensors_only() -> Iterator[None]:
    """Let `torch.load` refuse what could run code, whichever library calls it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def fill(model: nn.Module, path: Path, head: str | None = None) -> None:
    """Fill a network with the weights of a file that cannot run code.

    Args:
        model: The network.
        path: The file.
        head: A module that keeps its own.

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
    loaded: Any = state
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        entries = loaded.items() if isinstance(loaded, Mapping) else ()
        nested = [name for name, value in entries if isinstance(value, Mapping)]
        hint = f"; save what is under {nested[0]!r} in it alone" if nested else ""
        raise ModelError(f"weights {path} must be a mapping of names to tensors{hint}")
    wanted = model.state_dict()
    if state and all(name.startswith("module.") for name in state):  # of DataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if isinstance(model, Logits) and not any(name.startswith("model.") for name in state):
        state = {f"model.{name}": tensor for name, tensor in state.items()}  # as the library has it
    counts = {n: t for n, t in wanted.items() if n.endswith("num_batches_tracked")}
    state = counts | dict(state)  # which decide nothing
    if head is not None:
        of_head = {n: v for n, v in wanted.items() if n.startswith(f"{head}.")}
        state = {n: v for n, v in state.items() if not n.startswith(f"{head}.")} | of_head
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


def _built_in(name: str, args: dict[str, Any], structure: bool, head: str | None) -> nn.Module:
    return BUILT_IN[name](**args)


def _of_timm(name: str, args: dict[str, Any], structure: bool, head: str | None) -> nn.Module:
    import timm

    _require(name.partition(".")[0], timm.list_models(), "timm")
    if structure:
        args = {**args, "pretrained": False, "checkpoint_path": ""}
    model: nn.Module = timm.create_model(name, **args)
    return model


def _of_torchvision(
    name: str, args: dict[str, Any], structure: bool, head: str | None
) -> nn.Module:
    from torchvision import models

    _require(name, models.list_models(), "torchvision")
    args = torchvision_arguments(args)
    if structure:
        if args.get("weights") and name in ("googlenet", "inception_v3"):
            args = {"transform_input": True, **args}  # as they are with weights
        args = {key: value for key, value in args.items() if not key.startswith("weights")}
    model: nn.Module = models.get_model(name, **args)
    return model


def _of_transformers(
    name: str, args: dict[str, Any], structure: bool, head: str | None
) -> nn.Module:
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    build: Any = AutoModelForImageClassification
    if structure:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **args)
        return Logits(build.from_config(config, trust_remote_code=False))
    model, info = build.from_pretrained(
        name, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **args
    )
    lacking = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if head is not None:
        lacking = [key for key in lacking if not f"model.{key}".startswith(f"{head}.")]
    if lacking:
        raise ModelError(
            f"weights of transformers:{name} do not fit: {len(lacking)} tensors are missing or of "
            f"another shape, such as {', '.join(sorted(lacking)[:3])}"
        )
    return Logits(model)


def torchvision_arguments(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of torchvision, which calls `pretrained: true` its default weights."""
    rest = {key: value for key, value in args.items() if key != "pretrained"}
    return {"weights": "DEFAULT", **rest} if args.get("pretrained") else rest


def _of_module(module: str) -> Build:
    def build(name: str, args: dict[str, Any], structure: bool, head: str | None) -> Any:
        if (here := os.getcwd()) not in sys.path:  # as `python -m` has it
            sys.path.append(here)
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
SOURCES: dict[str, Build] = {
    "timm": _of_timm,
    "torchvision": _of_torchvision,
    "transformers": _of_transformers,
}
