"""Building a backbone: what of a network can be divided, found by running it.

A network is cut, its channels are followed, and rows of it are tried, so that what cannot be
divided is known before anything is trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.data import Inputs
from trainers.networks.backbone import Backbone, BackboneConfig, BackboneError, Output
from trainers.networks.built_in import BUILT_IN
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
from trainers.networks.soundness import (
    can_stack,
    check_parameters,
    check_tensors,
    half,
    is_exact,
    run_row,
    sound,
    with_units,
)
from trainers.networks.sources import SOURCES, build_model
from trainers.networks.stack import BATCH_NORMS

#: Height and width of images, in pixels, where no config says them: of networks of libraries,
#: and of others.
LARGE, SMALL = 224, 32
#: Bytes that the largest map of a batch may take where nothing is trained.
EVALUATION_BYTES = 2**28
#: Images in one forward pass when nothing is trained, at most.
EVALUATION_BATCH = 512


def network_inputs(config: BackboneConfig) -> tuple[int, Inputs]:
    """Resolution in pixels and other inputs as the network's own config says.

    Where it says no resolution, 224 pixels of a library's network, and 32 of others.

    Mean and deviation are those of trained weights: without any they are the tasks' own.

    Raises:
        BackboneError: The network cannot be built, or its inputs cannot be followed.
    """
    if config.model in BUILT_IN:
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
        check_parameters(model)
        images = torch.randn(2, 3, input_size, input_size)
    try:
        with torch.no_grad():
            model(images)
    except Exception as error:  # whatever happens in a module of anyone's
        raise BackboneError(
            f"{config.model} does not take images of {input_size} pixels: {error}"
        ) from error
    halves = cut(model, images, config.partition, head=config.head, whole=config.trunk == "train")
    check_tensors(halves, images)
    division = find_division(model, images)
    with torch.no_grad():
        boundary = halves.trunk(images)
        outputs, _ = halves.tail(boundary)
        made = _made(model, images)
    behind, reasons = sound(halves, division, halves.divisible(division), boundary)
    division = replace(division, refused={**division.refused, **reasons})
    divisible = [each for each in behind if config.stream or each.group.kind != "stream"]
    if not divisible:
        refused = {n: reason for n, reason in division.refused.items() if n != halves.head}
        why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise BackboneError(
            f"nothing of {', '.join(halves.blocks)} can be divided{f': {why}' if why else ''}"
        )
    kept = with_units(division, divisible, half)
    smaller, features = run_row(halves, division, kept, boundary)
    exact = is_exact(halves, division, kept, boundary, features)
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
        counter=Counter(model, division, images, of=_used(halves)),
        batch=max(8, min(EVALUATION_BATCH, EVALUATION_BYTES // largest)),
        map_bytes=sum(4 * s.numel() // len(images) for n, s in made.items() if n in of_tail),
        smallest_map=min(norms, default=None),
        stackable=can_stack(halves, division, kept, boundary),
        padded=exact and _can_pad(halves.tail, division, divisible),
    )


def _used(halves: Cut) -> set[str]:
    """Names of the parameters that rows have: those of both halves."""
    return {name for part in (halves.trunk, halves.tail) for name, _ in part.named_parameters()}


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
