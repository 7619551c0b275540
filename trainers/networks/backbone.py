"""The network that a study divides: built, cut, and what masks divide of it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from partitioning import ChannelGroup, Masks
from partitioning.settings import checked, one_of
from trainers.networks.counting import Counter
from trainers.networks.division import (
    Divisible,
    Division,
    Owner,
    used_by,
)
from trainers.networks.sources import Logits, build_model, pretrained
from trainers.networks.stack import own_tensors


class BackboneError(ValueError):
    """A network that cannot be built, cut or divided as the config says."""


@dataclass(frozen=True, kw_only=True)
@checked("backbone.{field}")
class BackboneConfig:
    """The network, and what of it is divided.

    Attributes:
        model: resnet14, resnet26 or resnet38 (the ResNet of the Decathlon literature), wrn32,
            resnet42, resnext29, vgg16 or simple_convnet (those of the papers on virtual networks),
            `timm:NAME`, `torchvision:NAME`, `transformers:NAME` (or a folder), or
            `package.module:function` of any function that returns a network.
        args: Keyword arguments of what builds it, such as `pretrained: true`; of resnet26 and the
            like width (channels of the first stage, 64; each further stage has twice as many),
            stem_width, stem_stride and strides (one for each of the three stages, 1, 2 and 2); of
            wrn32 widen (4), of resnet42 width (64), of resnext29 groups (8) and width (64), of all
            three stem_stride; of vgg16 width (64) and hidden (4096); of simple_convnet size (84
            pixels, which must be input_size), width (32) and hidden (128).
        weights: A file of weights that it begins with (safetensors, or a plain state dict); those
            of the head are not needed. A study keeps what it begins with.
        partition: Names of the blocks to divide, or of other modules, with * and ?; the last third
            of the repeated blocks if there are none. What comes before them is the trunk. Their
            outputs are what students imitate.
        stream: Divide residual streams, too.
        head: The module that reads the feature vector; tasks have a linear layer in its place. None
            takes the linear layer that gives the logits.
        trunk: frozen (its norms alone are each task's own; the tail reads its stored features), or
            train: there is none, and everything is trained, from the images on.
    """

    model: str = "resnet26"
    args: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    partition: tuple[str, ...] = ()
    stream: bool = False
    head: str | None = None
    trunk: Annotated[str, one_of(("frozen", "train"))] = "frozen"

    @property
    def pretrained(self) -> bool:
        """Whether it begins with weights that mean something, as far as the config says."""
        return self.weights is not None or pretrained(self.model, self.args)


@dataclass(frozen=True, kw_only=True, eq=False)
class Output:
    """What a divided block gives for an image.

    Attributes:
        name: Of the block.
        shape: Without masks.
        dim: Its dimension of channels, counted from that of images; None where rows give all.
        owner: The unit of each channel there; None likewise.
    """

    name: str
    shape: tuple[int, ...]
    dim: int | None = None
    owner: Owner | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A network, what is before its divided blocks and what is behind.

    Its modules are shared by all who use it, and their tensors are not used: `Stack`, `Row` and
    `bound` make copies with tensors of their own.

    Attributes:
        config: What it was built from.
        model: The network.
        trunk: Maps normalised images to the one tensor that crosses the cut.
        tail: Maps that to the outputs of the blocks and the (B, F) feature vectors.
        boundary: The tensor's shape, without the dimension of images.
        repeated: All blocks that the network repeats.
        outputs: Of the divided blocks.
        head: The module that tasks have a layer of their own in the place of.
        features: F.
        division: Units of the whole network.
        divisible: Groups of them that masks could divide behind the cut.
        groups: Those that they do: all but, without `stream`, residual streams.
        cut_at: The module or function whose tensor crosses the cut, or "images".
        counter: Of what rows cost, without their heads.
        batch: Images in one forward pass when nothing is trained.
        map_bytes: Of all that the tail's modules give for an image, in single precision.
        smallest_map: Places that the batch norm with the fewest has for an image; None without
            batch norms.
        stackable: Whether rows of several candidates run side by side.
        padded: Whether rows with fewer units than others can be padded with zeros.
    """

    config: BackboneConfig
    model: nn.Module
    trunk: nn.Module
    tail: nn.Module
    boundary: tuple[int, ...]
    repeated: tuple[str, ...]
    outputs: tuple[Output, ...]
    head: str
    features: int
    division: Division
    divisible: tuple[Divisible, ...]
    groups: tuple[ChannelGroup, ...]
    cut_at: str
    counter: Counter
    batch: int
    map_bytes: int
    smallest_map: int | None
    stackable: bool
    padded: bool

    @functools.cached_property
    def own(self) -> frozenset[str]:
        """Names of tensors that every row has of its own, but for its head."""
        return frozenset(own_tensors(self.model))

    @functools.cached_property
    def code(self) -> str:
        """What says, beside its arguments and weights, what the network computes.

        Its modules; the source of those classes that are no library's; versions of libraries; and
        the config of a network of transformers.
        """
        parts = [repr(self.model)]
        for kind in sorted({type(m) for m in self.model.modules()}, key=lambda k: k.__qualname__):
            package = kind.__module__.partition(".")[0]
            file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
            if package in ("torch", "trainers"):
                continue
            if "site-packages" in file:
                parts.append(f"{package} {getattr(sys.modules[package], '__version__', '')}")
            else:
                with suppress(OSError, TypeError):
                    parts.append(inspect.getsource(kind))
        if isinstance(self.model, Logits):
            own: Any = self.model.model
            parts.append(own.config.to_json_string())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @functools.cached_property
    def feature_owner(self) -> Owner | None:
        """The unit of each feature that the head reads; None where rows have all."""
        return self.division.read_by(self.head, self.features)

    @property
    def of_head(self) -> tuple[str, str]:
        """Names of the tensors of a head."""
        return f"{self.head}.weight", f"{self.head}.bias"

    @functools.cached_property
    def divided(self) -> NDArray[np.bool_]:
        """(units,): whether masks divide a unit."""
        names = {group.name for group in self.groups}
        divided = np.zeros(self.division.units, dtype=np.bool_)
        for each in self.division.groups:
            divided[each.units] = each.group.name in names
        return divided

    @functools.cached_property
    def stem(self) -> str:
        """The convolution that reads the images, of a network without a trunk.

        Raises:
            BackboneError: There is none.
        """
        assert isinstance(self.tail, fx.GraphModule)
        for node in self.tail.graph.find_nodes(op="call_module"):
            if isinstance(self.tail.get_submodule(str(node.target)), nn.Conv2d):
                return str(node.target)
        raise BackboneError(
            f"{self.config.model} has no convolution before its divided blocks, which could have "
            "another stride for images of another size"
        )

    def stem_stride(self, size: int) -> int:
        """The stride of the stem with which images of another size give maps of the same size.

        Args:
            size: Height and width of the images, in pixels.

        Raises:
            BackboneError: There is none.
        """
        conv, base = self.tail.get_submodule(self.stem), self.boundary[-1]
        assert isinstance(conv, nn.Conv2d)
        stride = conv.stride[0] * size // base
        kernel, padding = conv.kernel_size[0], conv.padding[0]
        assert isinstance(padding, int)
        ends = [
            (pixels + 2 * padding - kernel) // step
            for pixels, step in ((base, conv.stride[0]), (size, max(1, stride)))
        ]
        if stride < 1 or ends[0] != ends[1]:
            raise BackboneError(
                f"no stride of {self.stem} makes maps of images of {size} pixels as large as those "
                f"of {base} pixels with stride {conv.stride[0]}"
            )
        return stride

    def set_stride(self, module: nn.Module, size: int) -> None:
        """Give a copy of the tail's modules the stem's stride for images of a size.

        Args:
            module: The copy, with the stride that the backbone has.
            size: Height and width, in pixels.

        Raises:
            BackboneError: There is none.
        """
        if size != self.boundary[-1]:  # else a network need not have a stem
            conv = module.get_submodule(self.stem)
            assert isinstance(conv, nn.Conv2d)
            conv.stride = (self.stem_stride(size),) * 2

    def kept(self, masks: Masks, side: str = "forward") -> NDArray[np.bool_]:
        """(R, units): what each row uses, or may change.

        Args:
            masks: Of this network.
            side: "forward" or "backward".

        Raises:
            BackboneError: They are of another network, or of other parts of this one.
        """
        if masks.groups != self.groups:
            raise BackboneError(
                f"the masks are of the groups {_words(masks.groups)}; those of {self.config.model} "
                f"that are divided are {_words(self.groups)}"
            )
        found = getattr(masks, side) or masks.forward
        return np.stack(
            [
                self.division.kept({name: mask[row] for name, mask in found.items()})
                for row in range(len(masks.networks))
            ]
        )

    def can_normalise(self, count: int) -> bool:
        """Whether batch norms have more than one number for a channel of so many images."""
        return self.smallest_map is None or count * self.smallest_map >= 2

    def check_batches(self, counts: Mapping[str, int]) -> None:
        """Refuse batches that would leave a batch norm a single number per channel.

        Args:
            counts: How many images are normalised together, by the setting that says it.

        Raises:
            BackboneError: One of them is too small for maps as small as the network's.
        """
        for name, count in counts.items():
            if not self.can_normalise(count):
                raise BackboneError(
                    f"{name} must be at least 2 with maps of a single pixel, which batch norms "
                    f"cannot normalise one image of; got {count}"
                )

    def features_of(self, kept_RU: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(R, F): which features the head of each row reads."""
        owner = self.feature_owner
        if owner is None:
            return np.ones((len(kept_RU), self.features), dtype=np.bool_)
        return used_by(owner, self.division.alone(kept_RU))

    def read_by_head(self, kept_RU: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(R,): how many features the head of each row reads."""
        return np.asarray(self.features_of(kept_RU).sum(axis=1), dtype=np.int64)

    def initial(self, classes: int, seed: int) -> dict[str, Tensor]:
        """The tensors that the network begins with, and a head.

        Args:
            classes: Of the head.
            seed: Of weights that are not given.

        Raises:
            BackboneError: Weights cannot be read or do not fit.
        """
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                fresh = build_model(
                    self.config.model, self.config.args, _weights(self.config), self.head
                )
        except ValueError as error:
            raise BackboneError(f"backbone: {error}") from error
        state = {
            name: tensor
            for name, tensor in fresh.state_dict().items()
            if not f"{name}.".startswith(f"{self.head}.")
        }
        for name, tensor in self.model.state_dict().items():
            if f"{name}.".startswith(f"{self.head}."):
                continue
            if name not in state or state[name].shape != tensor.shape:
                raise BackboneError(
                    f"backbone: with its weights {self.config.model} is another network than "
                    f"without: {name}"
                )
        odd = [n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
        if odd:
            raise BackboneError(
                f"backbone: weights of {self.config.model} are not finite: {', '.join(odd[:3])}"
            )
        return {**state, **self.new_head(self.features, classes, [seed])}

    def new_head(self, features: int, classes: int, seed: int | Sequence[int]) -> dict[str, Tensor]:
        """Weight (classes, features) and bias of a head, by name."""
        drawn = np.random.default_rng(seed).normal(0.0, 0.01, (classes, features))
        weight = torch.from_numpy(drawn).float()
        return dict(zip(self.of_head, (weight, torch.zeros(classes)), strict=True))


def _weights(config: BackboneConfig) -> Path | None:
    return None if config.weights is None else Path(config.weights).expanduser()


def _words(groups: tuple[ChannelGroup, ...]) -> str:
    shown = [f"{group.name} ({group.width})" for group in groups]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])
