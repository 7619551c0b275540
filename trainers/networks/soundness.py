"""Whether rows of a network are what they are taken for, tried before anything is trained.

What is found by following channels holds for the code that was run. So rows are run: with half of
their units, with one, and with all but one. And what they compute is held against the network whose
masked channels count as 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from trainers.networks.cutting import Cut, CutError
from trainers.networks.division import (
    CONVOLUTIONS,
    LAYERS,
    NORMS,
    Divisible,
    Division,
    used_by,
)
from trainers.networks.row import Row, bound, tensors_of
from trainers.networks.stack import BATCH_NORMS

#: How many of so many units a row has.
Count = Callable[[int], int]


def half(width: int) -> int:
    """Half of the units, rounded up."""
    return (width + 1) // 2


#: What is tried.
COUNTS: tuple[Count, ...] = (half, lambda width: 1, lambda width: width - 1)


def with_units(division: Division, groups: Sequence[Divisible], count: Count) -> NDArray[np.bool_]:
    """(units,): the first of some groups' units, so many of each, and all of the others'."""
    kept = np.ones(division.units, dtype=np.bool_)
    for each in groups:
        kept[each.units] = np.arange(each.group.width) < count(each.group.width)
    return kept


@torch.no_grad()
def run_row(
    halves: Cut, division: Division, kept: NDArray[np.bool_], boundary: Tensor
) -> tuple[Sequence[Tensor], Tensor]:
    """What the tail of a row gives: the outputs of blocks, and feature vectors."""
    row = Row(halves.tail, division, kept)
    outputs, features = row(row.gather(tensors_of(halves.tail)), boundary)
    return outputs, features


def check_parameters(model: nn.Module) -> None:
    """Refuse parameters that cannot be trained, and those that wait for a first run.

    Raises:
        CutError: Which.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise CutError(
                f"{name} is lazy: run the network once, on images of the study's size, in the "
                "function that builds it"
            )
        if not parameter.is_floating_point():
            raise CutError(
                f"{name} has {str(parameter.dtype).removeprefix('torch.')} numbers, where real "
                "ones can be trained: make it a buffer, or two parameters"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise CutError("all its parameters have requires_grad=False, so nothing would be trained")


def check_tensors(halves: Cut, images: Tensor) -> None:
    """Make sure that a copy of the modules with other tensors computes with these alone.

    Code that reaches modules other than as submodules, by a list or a method that is bound to
    another module, would go on with the former ones.

    Raises:
        CutError: It does not: of which tensors.
    """

    def learnt(copied: bool) -> set[str]:
        found: dict[str, Tensor] = {}
        x = images
        for part in (halves.trunk, halves.tail):
            own = {n: t.detach().clone() for n, t in tensors_of(part).items()}
            own = {n: nn.Parameter(t) if n in names else t for n, t in own.items()}
            x = bound(part, own)(x) if copied else functional_call(part, own, (x,))
            found |= {n: t for n, t in own.items() if n in names}
        outputs, features = x
        total = sum((out.float().square().sum() for out in outputs), features.float().sum())
        grads = torch.autograd.grad(total, list(found.values()), allow_unused=True)
        return {n for n, grad in zip(found, grads, strict=True) if grad is not None}

    names = {name for part in (halves.trunk, halves.tail) for name, _ in part.named_parameters()}
    with torch.enable_grad():
        missed = sorted(learnt(copied=False) - learnt(copied=True))
    if missed:
        raise CutError(
            f"{', '.join(missed[:3])}: its code reaches them other than as submodules and "
            "parameters of self (by a list, or a function that another module is bound to), so "
            "rows with tensors of their own cannot be made; use nn.ModuleList, and methods"
        )


def sound(
    halves: Cut, division: Division, groups: Sequence[Divisible], boundary: Tensor
) -> tuple[tuple[Divisible, ...], dict[str, str]]:
    """Those of some groups whose rows run, and compute what they should.

    Returns:
        Them, and why others are left out, by name.
    """
    reasons: dict[str, str] = {}

    def left() -> list[Divisible]:
        return [each for each in groups if each.group.name not in reasons]

    for count in COUNTS:
        error = _fails(halves, division, boundary, count, left())
        if error is not None:
            reasons |= _each(left(), partial(_fails, halves, division, boundary, count))
            error = _fails(halves, division, boundary, count, left())
        if error is not None:
            raise CutError(f"each group by itself could be divided, but not all together: {error}")
    unexplained = [each for each in left() if not _explained(halves.tail, division, each)]
    if _differs(halves, division, boundary, unexplained):
        reasons |= _each(unexplained, partial(_differs, halves, division, boundary))
    return tuple(left()), reasons


def can_stack(halves: Cut, division: Division, kept: NDArray[np.bool_], boundary: Tensor) -> bool:
    """Whether rows of two candidates run side by side, and are trained so (`torch.func.vmap`).

    It does not follow functions with gradients of their own, recurrent layers, and code that looks
    at values or sets items.
    """
    row = Row(halves.tail, division, kept)
    learnt = {name for name, _ in halves.tail.named_parameters()}
    two = {
        name: torch.stack([tensor, tensor]).detach().requires_grad_(name in learnt)
        for name, tensor in row.gather(tensors_of(halves.tail)).items()
    }

    def run(tensors: dict[str, Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        outputs, features = row(tensors, boundary)
        return outputs, features

    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is slow
            outputs, features = vmap(run)(two)
            sum((out.float().sum() for out in outputs), features.float().sum()).backward()
    except Exception:  # whatever happens in a module of anyone's
        return False
    return True


def _each(
    groups: Sequence[Divisible], reason: Callable[[Sequence[Divisible]], str | None]
) -> dict[str, str]:
    """What is wrong with groups by themselves, by name."""
    found = {each.group.name: reason([each]) for each in groups}
    return {name: why for name, why in found.items() if why is not None}


def _fails(
    halves: Cut, division: Division, boundary: Tensor, count: Count, groups: Sequence[Divisible]
) -> str | None:
    """Why a row with so many units of some groups does not run."""
    try:
        run_row(halves, division, with_units(division, groups, count), boundary)
    except Exception as error:  # whatever happens in a module of anyone's
        units = ", ".join(f"{count(g.group.width)} of its {g.group.width}" for g in groups[:1])
        return f"a row with {units} units does not run: {error}"
    return None


def _differs(
    halves: Cut, division: Division, boundary: Tensor, groups: Sequence[Divisible]
) -> str | None:
    """Why rows with half of some groups are not what they should be."""
    kept = with_units(division, groups, half)
    _, features = run_row(halves, division, kept, boundary)
    if is_exact(halves, division, kept, boundary, features):
        return None
    return (
        "a row with half of it does not compute what the network does whose other half counts as "
        "0: its channels are put in another order on the way, or normalised by unknown code"
    )


@torch.no_grad()
def is_exact(
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


def _explained(tail: nn.Module, division: Division, one: Divisible) -> bool:
    """Whether a norm over channels, or a layer of weights of its own making, has the group."""
    plain = (*CONVOLUTIONS, nn.Linear)

    def known(module: nn.Module) -> bool:
        norm = isinstance(module, NORMS) and not isinstance(module, BATCH_NORMS)
        return norm or (isinstance(module, LAYERS) and type(module) not in plain)

    return any(
        division.reaches(one, name) or division.reaches(one, f"{name}.weight")
        for name, module in tail.named_modules()
        if known(module)
    )
