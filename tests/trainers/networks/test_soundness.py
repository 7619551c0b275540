"""Networks whose rows would not be what they are taken for, and those that are all right."""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainers.device import ComputeConfig
from trainers.export import ExportError, check_exportable
from trainers.network import Whole
from trainers.networks import Backbone, BackboneConfig, BackboneError, build_backbone
from trainers.networks.building import _BUILT


class Block(nn.Module):
    """Two convolutions around what a test does to the channels between them."""

    def __init__(self, between: Callable[[Tensor], Tensor] = F.relu, width: int = 8) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.between(self.one(x)))


class Net(nn.Module):
    """A stem, two blocks and a head."""

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([block(), block()])
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            out = block(x)
            x = out[0] if isinstance(out, tuple) else out
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def build(block: Callable[[], nn.Module] = Block, **changed: Any) -> Backbone:
    """The backbone of such a network, both of whose blocks are divided."""
    globals()["made"] = lambda: Net(block)
    _BUILT.clear()  # by config, which is the same for all of them
    config = BackboneConfig(model=f"{__name__}:made", partition=("blocks.*",), **changed)
    return build_backbone(config, 8)


def groups(found: Backbone) -> list[str]:
    return [group.name for group in found.groups]


def patched() -> nn.Module:
    block = Block()
    block.forward = types.MethodType(Block.forward, block)  # type: ignore[method-assign]
    return block


class Listed(Block):
    """Reaches its layers by a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [self.one, self.two]

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.layers
        return x + two(F.relu(one(x)))


@pytest.mark.parametrize("block", [patched, Listed])
def test_code_that_reaches_tensors_by_the_back_door(block: Callable[[], nn.Module]) -> None:
    with pytest.raises(BackboneError, match=r"blocks\.0\.one\.bias.*other than as submodules"):
        build(block)


def shuffled(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (lambda x: x.roll(1, dims=1), "put in another order"),
        (lambda x: x.flip(1), "put in another order"),
        (shuffled, "with 1 of its 8 units does not run|put in another order"),
        (
            lambda x: x / (x.std(dim=1, keepdim=True, correction=0) + 1),
            "normalised by unknown code",
        ),
        (lambda x: torch.cat(torch.split(x, [4, 4], dim=1), dim=1), "does not run"),
    ],
)
def test_channels_that_lose_their_places(between: Callable[[Tensor], Tensor], why: str) -> None:
    with pytest.raises(BackboneError, match=rf"nothing of .* can be divided: .*one: .*({why})"):
        build(lambda: Block(between))


def test_one_such_group_leaves_the_others() -> None:
    blocks = iter([Block(lambda x: x.flip(1)), Block()] * 9)
    found = build(lambda: next(blocks))
    assert groups(found) == ["blocks.1.one"]
    assert "another order" in found.division.refused["blocks.0.one"]


def test_blocks_that_give_a_tuple() -> None:
    class Tupled(Block):
        def forward(self, x: Tensor) -> Any:
            return (super().forward(x),)

    found = build(Tupled)
    assert groups(found) == ["blocks.0.one", "blocks.1.one"]
    assert [output.shape for output in found.outputs] == [(8, 8, 8)] * 2


class Fixed(Block):
    """Has a kernel that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        nn.init.constant_(self.blur.weight, 1 / 9)
        self.blur.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.blur(x))


def test_parameters_that_are_fixed_stay_so() -> None:
    found = build(Fixed)
    assert groups(found) == ["blocks.0.one", "blocks.1.one"]
    whole = Whole(found, found.initial(10, 0), torch.device(ComputeConfig(device="cpu").device))
    fixed = {n for n, p in whole.tail.named_parameters() if not p.requires_grad}
    assert fixed == {"blocks.0.blur.weight", "blocks.1.blur.weight"}


class Wrong(Block):
    """Has a parameter that cannot be trained."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.extra = nn.Parameter(value, requires_grad=False)


class Lazy(Block):
    """Has a layer that waits for its first input."""

    def __init__(self) -> None:
        super().__init__()
        self.two = nn.LazyConv2d(8, 1)


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("block", "why"),
    [
        (lambda: Wrong(torch.zeros(2, dtype=torch.complex64)), "blocks.0.extra has complex64"),
        (lambda: Wrong(torch.zeros(2, dtype=torch.int64)), "blocks.0.extra has int64 numbers"),
        (Lazy, r"blocks.0.two.weight is lazy: run the network once"),
    ],
)
def test_parameters_of_other_kinds(block: Callable[[], nn.Module], why: str) -> None:
    with pytest.raises(BackboneError, match=why):
        build(block)


def test_a_network_of_fixed_parameters() -> None:
    globals()["made"] = lambda: Net(Block).requires_grad_(False)
    _BUILT.clear()
    config = BackboneConfig(model=f"{__name__}:made", partition=("blocks.*",))
    with pytest.raises(BackboneError, match="all its parameters have requires_grad=False"):
        build_backbone(config, 8)


class Attended(Block):
    """Attends, by weights that functions use."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        seen = self.attention(tokens, tokens, tokens)[0]
        return super().forward(x + seen.transpose(1, 2).unflatten(2, x.shape[2:]))


class Functional(Block):
    """Convolves by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.conv2d(x, self.kernel, padding=1))


@pytest.mark.parametrize("block", [Block, Attended, Functional])
def test_multiply_accumulates_of_functions_count(block: Callable[[], nn.Module]) -> None:
    found = build(block)
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        found.model(torch.zeros(1, 3, 8, 8))
    torch.backends.mha.set_fastpath_enabled(True)
    head = 8 * 10
    (macs,) = found.counter.count(np.ones((1, found.division.units), dtype=bool)).macs
    assert macs == counter.get_total_flops() // 2 - head


def test_what_rows_do_not_have_does_not_count() -> None:
    class Aided(Net):
        def __init__(self) -> None:
            super().__init__(Block)
            self.aid = nn.Linear(8, 100)

    globals()["made"] = Aided
    _BUILT.clear()
    config = BackboneConfig(model=f"{__name__}:made", partition=("blocks.*",))
    found = build_backbone(config, 8)
    (parameters,) = found.counter.count(np.ones((1, found.division.units), dtype=bool)).parameters
    own = sum(p.numel() for n, p in found.model.named_parameters() if n[:3] not in ("aid", "hea"))
    assert parameters == own


def test_networks_that_cannot_be_exported_are_known_before() -> None:
    check_exportable(build(), 8)

    class Counting(Block):
        def forward(self, x: Tensor) -> Tensor:
            windows = x.unflatten(2, (2, -1)).transpose(1, 2).flatten(0, 1)
            images = int(windows.shape[0] / 2)  # as some attentions in windows have it
            return super().forward(
                windows.reshape(images, 2, *windows.shape[1:]).flatten(1, 2)[:, :8]
            )

    with pytest.raises(ExportError, match=r"rows of .*made cannot be exported: torch.export"):
        check_exportable(build(Counting), 8)


class Doubled(torch.autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def replaced(x: Tensor) -> Tensor:
    y = torch.zeros(len(x), x.shape[1], 8, 8)
    y[:] = x
    return y


@pytest.mark.parametrize(
    ("between", "stackable"), [(F.relu, True), (Doubled.apply, False), (replaced, False)]
)
def test_what_cannot_run_side_by_side_does_so_alone(
    between: Callable[[Tensor], Tensor], stackable: bool
) -> None:
    found = build(lambda: Block(between))
    assert groups(found) == ["blocks.0.one", "blocks.1.one"]
    assert found.stackable == stackable
