"""The network that a study divides: built, cut, and what masks divide of it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from partitioning import ChannelGroup, Masks
from partitioning.settings import checked, one_of
from trainers.data import Inputs
from trainers.networks.counting import Counter
from trainers.networks.cutting import Cut, cut
from trainers.networks.division import (
    HEADS,
    LAYERS,
    Divisible,
    Division,
    Owner,
    find_division,
    used_by,
)
from trainers.networks.preprocessing import own_inputs
from trainers.networks.resnet import BLOCKS
from trainers.networks.row import Row, tensors_of
from trainers.networks.sources import SOURCES, Logits, build_model, pretrained
from trainers.networks.stack import BATCH_NORMS, own_tensors

#: Height and width of images, in pixels, where no config says them: of networks of libraries,
#: and of others.
LARGE, SMALL = 224, 32
#: Bytes that the largest map of a batch may take where nothing is trained.
EVALUATION_BYTES = 2**28
#: Images in one forward pass when nothing is trained, at most.
EVALUATION_BATCH = 512


class BackboneError(ValueError):
    """A network that cannot be built, cut or divided as the config says."""


@dataclass(frozen=True, kw_only=True)
@checked("backbone.{field}")
class BackboneConfig:
    """The network, and what of it is divided.

    Attributes:
        model: resnet14, resnet26 or resnet38 (the ResNet of the Decathlon literature), `timm:NAME`,
            `torchvision:NAME`, `transformers:NAME` (or a folder), or `package.module:function` of
            any function that returns a network.
        args: Keyword arguments of what builds it, such as `pretrained: true`; of resnet26 and the
            like width (channels of the first stage, 64; each further stage has twice as many),
            stem_width, stem_stride and strides (one for each of the three stages, 1, 2 and 2).
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

    def check_batches(self, counts: Mapping[str, int]) -> None:
        """Refuse batches that would leave a batch norm a single number per channel.

        Args:
            counts: How many images are normalised together, by the setting that says it.

        Raises:
            BackboneError: One of them is too small for maps as small as the network's.
        """
        for name, count in counts.items():
            if self.smallest_map is not None and count * self.smallest_map < 2:
                raise BackboneError(
                    f"{name} must be at least 2 with maps of a single pixel, which batch norms "
                    f"cannot normalise one image of; got {count}"
                )

    def read_by_head(self, kept_RU: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(R,): features that the head of each row reads."""
        owner = self.feature_owner
        if owner is None:
            return np.full(len(kept_RU), self.features)
        return np.asarray(used_by(owner, self.division.alone(kept_RU)).sum(axis=1), dtype=np.int64)

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


def network_inputs(config: BackboneConfig) -> tuple[int, Inputs]:
    """Resolution in pixels and other inputs as the network's own config says.

    Where it says no resolution, 224 pixels of a library's network, and 32 of others.

    Mean and deviation are those of trained weights: without any they are the tasks' own.

    Raises:
        BackboneError: The network cannot be built, or its inputs cannot be followed.
    """
    if config.model in BLOCKS:
        return SMALL, Inputs()
    key = json.dumps(asdict(config), sort_keys=True, default=str)
    if key not in _INPUTS:
        try:
            model = build_model(config.model, config.args, structure=True)
            size, inputs = own_inputs(config.model, config.args, model)
        except ValueError as error:
            raise BackboneError(f"backbone: {error}") from error
        if not config.pretrained:
            inputs = Inputs(interpolation=inputs.interpolation)
        usual = LARGE if config.model.partition(":")[0] in SOURCES else SMALL
        _INPUTS[key] = size or usual, inputs
    return _INPUTS[key]


#: By config, as JSON.
_INPUTS: dict[str, tuple[int, Inputs]] = {}


def build_backbone(config: BackboneConfig, input_size: int) -> Backbone:
    """Build a network and find out what of it can be divided; the same one for the same config.

    Args:
        config: Which.
        input_size: Height and width of its images, in pixels.

    Raises:
        BackboneError: It cannot be built, traced or cut, or nothing of it can be divided.
    """
    key = json.dumps([asdict(config), input_size], sort_keys=True, default=str)
    if key not in _BUILT:
        try:
            _BUILT[key] = _build(config, input_size)
        except ValueError as error:
            raise BackboneError(f"backbone: {error}") from error
    return _BUILT[key]


#: By config and input size, as JSON.
_BUILT: dict[str, Backbone] = {}


def _build(config: BackboneConfig, input_size: int) -> Backbone:
    # Without pretrained weights, which only who begins with them needs.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = build_model(config.model, config.args, structure=True)
        images = torch.randn(2, 3, input_size, input_size)
    try:
        with torch.no_grad():
            model(images)
    except Exception as error:  # whatever happens in a module of anyone's
        raise BackboneError(
            f"{config.model} does not take images of {input_size} pixels: {error}"
        ) from error
    halves = cut(model, images, config.partition, head=config.head, whole=config.trunk == "train")
    division = find_division(model, images)
    behind = halves.divisible(division)
    divisible = [each for each in behind if config.stream or each.group.kind != "stream"]
    if not divisible:
        why = "; ".join(f"{name}: {reason}" for name, reason in division.refused.items())
        raise BackboneError(
            f"nothing of {', '.join(halves.blocks)} can be divided{f': {why}' if why else ''}"
        )
    with torch.no_grad():
        boundary = halves.trunk(images)
        outputs, _ = halves.tail(boundary)
        made = _made(model, images)
    kept, smaller, features = _half_row(halves, division, divisible, boundary)
    exact = _is_exact(halves, division, kept, boundary, features)
    owners = _output_owners(halves.blocks, division, kept, outputs, smaller)
    of_tail = {name for name, _ in halves.tail.named_modules()}
    norms = [
        int(shape.numel() // (len(images) * shape[1]))
        for name, shape in made.items()
        if isinstance(model.get_submodule(name), BATCH_NORMS)
    ]
    largest = max(shape.numel() for shape in made.values()) // len(images) * 4
    return Backbone(
        config=config,
        model=model,
        trunk=halves.trunk,
        tail=halves.tail,
        boundary=tuple(boundary.shape[1:]),
        repeated=halves.repeated,
        outputs=tuple(
            Output(name=name, shape=tuple(out.shape[1:]), dim=dim, owner=owner)
            for name, out, (dim, owner) in zip(halves.blocks, outputs, owners, strict=True)
        ),
        head=halves.head,
        features=halves.features,
        division=division,
        divisible=behind,
        groups=tuple(each.group for each in divisible),
        cut_at=halves.boundary,
        counter=Counter(model, division, images, head=halves.head),
        batch=max(8, min(EVALUATION_BATCH, EVALUATION_BYTES // largest)),
        map_bytes=sum(4 * s.numel() // len(images) for n, s in made.items() if n in of_tail),
        smallest_map=min(norms, default=None),
        padded=exact and _can_pad(halves.tail, division, divisible),
    )


def _made(model: nn.Module, images: Tensor) -> dict[str, torch.Size]:
    """The shape of what each module without others in it gives, by name."""
    found: dict[str, torch.Size] = {}

    def note(name: str, out: Any) -> None:
        if isinstance(out, Tensor):
            found[name] = out.shape

    hooks = [
        module.register_forward_hook(lambda _m, _args, out, name=name: note(name, out))
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _output_owners(
    blocks: Sequence[str],
    division: Division,
    kept: NDArray[np.bool_],
    outputs: Sequence[Tensor],
    smaller: Sequence[Tensor],
) -> list[tuple[int | None, Owner | None]]:
    """For each block's output the dimension that a row has less of, and the units there.

    Args:
        blocks: Their names.
        division: Of the whole network.
        kept: What the row uses.
        outputs: Of the whole network.
        smaller: Of the row.
    """
    of_streams = {
        unit
        for each in division.groups
        if each.group.kind == "stream"
        for unit in range(each.units.start, each.units.stop)
    }
    found: list[tuple[int | None, Owner | None]] = []
    for name, whole, part in zip(blocks, outputs, smaller, strict=True):
        dims = [d for d in range(1, whole.ndim) if whole.shape[d] != part.shape[d]]
        if not dims:
            found.append((None, None))
            continue
        owners = [
            axes[0]
            for other, axes in division.axes.items()
            if other.startswith(f"{name}.")
            and 0 in axes
            and axes[0].size == whole.shape[dims[0]]
            and used_by(axes[0], kept).sum() == part.shape[dims[0]]
        ]
        # What is added to is what a block gives, where layers within are as wide.
        owners.sort(key=lambda owner: not {int(unit) for unit in owner} <= of_streams | {-1})
        if len(dims) > 1 or not owners:
            raise BackboneError(f"the channels of what {name} gives cannot be followed")
        found.append((dims[0], owners[0]))
    return found


@torch.no_grad()
def _half_row(
    halves: Cut, division: Division, divisible: Sequence[Divisible], boundary: Tensor
) -> tuple[NDArray[np.bool_], Sequence[Tensor], Tensor]:
    """What a row with half of every divided group uses, and what its tail gives.

    Raises:
        BackboneError: A row does not run: of which group.
    """
    state = tensors_of(halves.tail)

    def run(groups: Sequence[Divisible]) -> tuple[NDArray[np.bool_], Sequence[Tensor], Tensor]:
        kept = np.ones(division.units, dtype=np.bool_)
        for each in groups:
            kept[each.units] = np.arange(each.group.width) < (each.group.width + 1) // 2
        row = Row(halves.tail, division, kept)
        outputs, features = row(row.gather(state), boundary)
        return kept, outputs, features

    try:
        return run(divisible)
    except Exception:  # whatever happens in a module of anyone's
        for each in divisible:
            try:
                run([each])
            except Exception as error:
                raise BackboneError(
                    f"{each.group.name} cannot be divided: a row with a part of it does not run: "
                    f"{error}"
                ) from error
        raise


@torch.no_grad()
def _is_exact(
    halves: Cut,
    division: Division,
    kept: NDArray[np.bool_],
    boundary: Tensor,
    features: Tensor,
) -> bool:
    """Whether a row's features are those of the network whose masked channels count as 0.

    Norms over channels, and layers that normalise their own weights, do otherwise.
    """
    masked = tensors_of(halves.tail)
    for name, dims in division.axes.items():
        if name in masked and 1 in dims:
            used = torch.from_numpy(used_by(dims[1], kept))
            masked[name] = masked[name] * used.view(1, -1, *[1] * (masked[name].ndim - 2))
    expected = functional_call(halves.tail, masked, (boundary,))[1]
    owner = division.read_by(halves.head, halves.features)
    if owner is not None:
        expected = expected[:, torch.from_numpy(used_by(owner, kept))]
    close = features.shape == expected.shape and torch.allclose(
        features, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
    )
    return bool(close)


def _can_pad(tail: nn.Module, division: Division, divisible: Sequence[Divisible]) -> bool:
    """Whether a unit whose weights are 0 leaves all others as they are."""
    known = (*BATCH_NORMS, nn.GroupNorm)
    divided = {unit for each in divisible for unit in range(each.units.start, each.units.stop)}
    for name, module in tail.named_modules():
        own = [name, *(f"{name}.{each}" for each, _ in module.named_parameters(recurse=False))]
        units = {
            int(unit)
            for each in own
            for owner in division.axes.get(each, {}).values()
            for unit in np.unique(owner)
        }
        # Heads do not see each other, and one without weights adds nothing. Others with weights,
        # such as a response norm over channels, are not known to leave them.
        if any(hasattr(module, each) for each in HEADS):
            continue
        if units & divided and not isinstance(module, (*LAYERS, *known, nn.PReLU)):
            return False
    return True


def _weights(config: BackboneConfig) -> Path | None:
    return None if config.weights is None else Path(config.weights).expanduser()


def _words(groups: tuple[ChannelGroup, ...]) -> str:
    shown = [f"{group.name} ({group.width})" for group in groups]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])
