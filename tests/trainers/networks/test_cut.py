"""Trunk and tail against the network that they are cut from, and rows of the tail."""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from tests.helpers.foreign import NETWORKS, of_timm
from tests.trainers.networks.test_rows import TOLERANCE, difference, divided, draw, tensors
from trainers.networks.blocks import find_blocks
from trainers.networks.cutting import Cut, CutError, cut
from trainers.networks.division import Division, find_division
from trainers.networks.recording import RecordingError
from trainers.networks.row import Row

#: Of networks that have no repeated blocks.
PARTITIONS = {"vgg": ["features.1?"], "simple_convnet": ["blocks.[23]"]}


@cache
def halves(name: str) -> Cut:
    model, images, _ = divided(name)
    return cut(model, images, PARTITIONS.get(name))


def drawn(found: Cut, division: Division, seed: int) -> NDArray[np.bool_]:
    """Random masks of the groups that lie in the tail."""
    kept = draw(division, seed, streams=True)
    own = np.zeros_like(kept)
    for each in found.divisible(division):
        own[each.units] = True
    return kept | ~own


def read_by_head(
    found: Cut, whole: nn.Module, tensors: Mapping[str, Tensor], features: Tensor
) -> Tensor:
    """Logits of feature vectors, by a head that has its own of these tensors."""
    own = {
        n.removeprefix(f"{found.head}."): v for n, v in tensors.items() if n.startswith(found.head)
    }
    logits: Tensor = functional_call(whole.get_submodule(found.head), own, (features,))
    return logits


def seen(module: nn.Module, run: Callable[[], Any]) -> tuple[Tensor, Tensor]:
    """What a module reads and gives when something is run."""
    found: list[Tensor] = []
    with module.register_forward_hook(
        lambda module, args, out: found.extend((args[0].clone(), out.clone()))
    ):
        run()
    return found[0], found[1]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_halves_compute_what_the_network_does(name: str) -> None:
    model, images, _ = divided(name)
    found = halves(name)
    images = torch.cat((images, images + 1, images[:1]))
    boundary = found.trunk(images)
    before = boundary.clone()
    outputs, features = found.tail(boundary)
    assert torch.equal(boundary, before)
    assert torch.equal(model.get_submodule(found.head)(features), model(images))
    for block, output in zip(found.blocks, outputs, strict=True):
        _, made = seen(model.get_submodule(block), lambda: model(images))
        assert torch.equal(output, made)
    read, _ = seen(model.get_submodule(found.head), lambda: model(images))
    assert torch.equal(features, read)
    assert features.shape == (len(images), found.features)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_of_the_tail_computes_what_the_whole_row_does(name: str) -> None:
    model, images, division = divided(name)
    found = halves(name)
    boundary = found.trunk(images).detach()
    changes = []
    for seed in range(2):
        kept = drawn(found, division, seed)
        whole, row = Row(model, division, kept), Row(found.tail, division, kept)
        own = tensors(found.tail)
        logits = whole(whole.gather(tensors(model)), images)
        _, features = row(row.gather(own), boundary)
        of_tail = read_by_head(found, model, whole.gather(tensors(model)), features)
        read, _ = seen(
            whole.module.get_submodule(found.head),
            lambda whole=whole: whole(whole.gather(tensors(model)), images),
        )
        assert difference(features.detach(), read.detach()) < TOLERANCE
        changes.append(difference(logits.detach(), model(images).detach()))

        learned = list(dict(found.tail.named_parameters()).values())
        gradients, wanted = (
            torch.autograd.grad(out.square().sum(), learned, allow_unused=True)
            for out in (of_tail, logits)
        )
        for one, other in zip(gradients, wanted, strict=True):
            assert (one is None) == (other is None)
            assert one is None or difference(one, other) < 10 * TOLERANCE
    assert max(changes) > 100 * TOLERANCE, "what was masked must matter"


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_of_the_tail_are_those_that_leave_the_trunk_whole(name: str) -> None:
    _, _, division = divided(name)
    found = halves(name)
    trunk = tensors(found.trunk)
    for each in division.groups:
        kept = np.ones(division.units, dtype=np.bool_)
        kept[each.first] = False
        smaller = Row(found.trunk, division, kept).gather(trunk)
        whole = all(smaller[other].shape == value.shape for other, value in trunk.items())
        assert (each in found.divisible(division)) == whole, each.group.name


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_small_tail_is_exported(name: str) -> None:
    _, images, division = divided(name)
    found = halves(name)
    boundary = found.trunk(images)
    row = Row(found.tail, division, drawn(found, division, 0))
    alone = row.alone(tensors(found.tail))
    exported = torch.export.export(alone, (boundary,)).module()
    wanted = row(row.gather(tensors(found.tail)), boundary)
    for module in (alone, exported):
        outputs, features = module(boundary)
        for one, other in zip((*outputs, features), (*wanted[0], wanted[1]), strict=True):
            assert difference(one, other) < TOLERANCE
    sizes = [sum(value.numel() for value in each.parameters()) for each in (exported, found.tail)]
    assert sizes[0] < sizes[1]


def test_blocks() -> None:
    found = {name: find_blocks(*divided(name)[:2]) for name in NETWORKS}
    layers = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert found["resnet18"] == tuple(layers)
    assert halves("resnet18").blocks == ("layer4.0", "layer4.1")
    assert found["vit"] == ("blocks.0", "blocks.1", "blocks.2")
    assert halves("vit").blocks == ("blocks.2",)
    assert halves("vit").boundary == "blocks.1"
    assert found["mobilenet"][:2] == ("blocks.0.0", "blocks.1.0")  # of two classes
    assert found["convnext"][-1] == "stages.3.blocks.1"
    assert found["transformers_resnet"][0] == "model.resnet.encoder.stages.0.layers.0"
    assert found["vgg"] == ()


def test_wildcards_name_blocks_or_else_the_outermost_modules() -> None:
    model, images, _ = divided("convnext")
    found = cut(model, images, ["stages.3.*"])  # beside its blocks there is a downsampling
    assert found.blocks == ("stages.3.blocks.0", "stages.3.blocks.1")
    model, images = Attending(again=False).eval(), torch.randn(2, 3, 8, 8)
    assert cut(model, images, ["bloc*"]).blocks == ("block",)


def test_what_tensors_cross_within_is_no_block() -> None:
    model = of_timm("densenet121").eval()
    images = torch.randn(2, 3, 64, 64)
    assert find_blocks(model, images) == tuple(f"features.denseblock{i}" for i in range(1, 5))
    with pytest.raises(CutError, match=r"got 2: .*transition3 \(2, 512, 2, 2\), .*denselayer1 \(2"):
        cut(model, images, ["features.denseblock4.denselayer2"])


class Between(nn.Module):
    """Does much between its blocks: reads sizes, drops out, writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(8, 16), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 8)
            )
            for _ in range(3)
        )
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.fc = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        count, width, height, _ = x.shape
        x = x.flatten(2)[:, :, : height * height].transpose(1, 2)
        for block in self.blocks:
            x = x + F.dropout(block(x), 0.2, training=self.training)
            x.relu_()
        x = torch.cat((self.token.expand(count, -1, -1), x), dim=1)
        y: Tensor = self.fc(x[:, : 1 + height * height].sum(1).view(count, width))
        return y


def between() -> tuple[Between, Tensor]:
    torch.manual_seed(0)
    return Between().eval(), torch.randn(4, 3, 8, 8)


def test_what_is_done_between_modules_holds_for_other_batches() -> None:
    model, images = between()
    found = cut(model, images)
    images = torch.cat((images, images[:3] + 1))
    assert torch.equal(model.fc(found.tail(found.trunk(images))[1]), model(images))


def test_the_halves_are_trained_and_evaluated_as_the_network_is() -> None:
    model, images = between()
    found = cut(model, images)
    whole = copy.deepcopy(model)
    before = model.fc(found.tail(found.trunk(images))[1])
    for training in (True, False, True, False):
        for module in (whole, found.trunk, found.tail):
            module.train(training)
        torch.manual_seed(1)
        wanted = whole(images)
        torch.manual_seed(1)
        assert torch.equal(model.fc(found.tail(found.trunk(images))[1]), wanted)
    assert not torch.equal(wanted, before), "statistics must have moved"


def test_cutting_leaves_the_network_as_it_was() -> None:
    model, images = between()
    model.train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    for partition in (None, ["nothing"]):
        with contextlib.suppress(CutError):
            found = cut(model, images, partition)
            assert found.tail.training
        assert [module.training for module in model.modules()] == modes
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("partition", "head", "message"),
    [
        (["block.2"], None, r"no module that runs matches 'block.2'; near it: blocks.2,"),
        (["blocks.2.*", "x"], None, r"no module that runs matches 'x'$"),
        (["blocks.1.3"], None, r"got 2: .*relu_ \(4, 9, 8\), blocks.1.2 \(4, 9, 16\)"),
        (None, "fcs", r"the head must be a module that runs, got 'fcs'; near it: fc"),
        (None, "blocks.0", r"must be behind the divided blocks, got blocks.0"),
        (["blocks.2"], "blocks.2.4", r"outside the divided blocks, got blocks.2.4"),
        (["fc"], None, r"outside the divided blocks, got fc"),
        (["blocks.0"], "blocks.2", r"a vector for each image, blocks.2 reads relu__1 \(4, 9, 8\)"),
    ],
)
def test_a_cut_that_cannot_be(
    partition: Sequence[str] | None, head: str | None, message: str
) -> None:
    model, images = between()
    with pytest.raises(CutError, match=message):
        cut(model, images, partition, head=head)


class Around(nn.Module):
    """Two blocks with a head, and something done to what they give."""

    def __init__(self, step: Callable[[Tensor], Tensor], head: Callable[..., Tensor]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)) for _ in range(2)
        )
        self.twice = nn.Linear(6, 6)
        self.one, self.other = nn.Linear(6, 10), nn.Linear(6, 10)
        self.step, self.head = step, head

    def forward(self, images: Tensor) -> Tensor:
        x = images.mean((1, 3))
        for block in self.blocks:
            x = self.step(block(x))
        return self.head(self.one, self.other, self.twice(self.twice(x)))


def around(
    step: Callable[[Tensor], Tensor] = torch.relu,
    head: Callable[..., Tensor] = lambda one, other, x: one(x),
) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Around(step, head).eval(), torch.randn(2, 3, 6, 5)


def two_heads() -> nn.Module:
    """A network whose logits are the mean of two layers'."""
    return around(head=lambda one, other, x: (one(x) + other(x)) / 2)[0]


def assigned(x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x


UNSEEN = torch.ones(6)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda x: x if x.sum() > 0 else -x, r"must not depend on values, .* __bool__ of gt"),
        (lambda x: x * x.max().item(), r"item of max"),
        (assigned, r"__setitem__ of blocks.0 \(2, 6\)"),
        (lambda x: x * UNSEEN, r"a Tensor is used between modules that is neither computed"),
    ],
)
def test_what_cannot_be_recorded(step: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        cut(*around(step))


def test_what_is_recorded_wrongly_is_noticed() -> None:
    with pytest.raises(CutError, match="do not compute what the network does"):
        cut(*around(lambda x: x * (x.numel() / 12)))
    with pytest.raises(CutError, match="do not run on 3 images"):
        cut(*around(lambda x: x.view(x.numel() // 6, 6)))


def test_a_head_that_is_not_the_last_layer() -> None:
    model, images = around(head=lambda one, other, x: (one(x) + other(x)) / 2)
    with pytest.raises(CutError, match="name the module whose input is the feature vector"):
        cut(model, images)
    found = cut(model, images, head="one")
    _, features = found.tail(found.trunk(images))
    read, _ = seen(model.one, lambda: model(images))
    assert torch.equal(features, read)
    assert (found.features, found.blocks, found.boundary) == (6, ("blocks.1",), "relu")


def test_a_divided_block_runs_once() -> None:
    with pytest.raises(CutError, match="must run once and give one tensor, twice does not"):
        cut(*around(), ["twice"])


class Attention(nn.Module):
    """Two heads, of which each attends to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 2
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        count, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(count, length, 3, self.num_heads, 4).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count, length, -1)
        y: Tensor = self.proj(x)
        return y


class Attending(nn.Module):
    """An attention behind layers that may run again after it."""

    def __init__(self, *, again: bool) -> None:
        super().__init__()
        self.again = again
        self.stem = nn.Conv2d(3, 8, 3)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.attn = Attention()
        self.block = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12))
        self.fc = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.attn(self.mlp(self.stem(images).flatten(2).transpose(1, 2)))
        y: Tensor = self.fc(self.block(self.mlp(x) if self.again else x).mean(1))
        return y


def test_what_runs_on_both_sides_of_the_cut_is_refused() -> None:
    model, images = Attending(again=True).eval(), torch.randn(2, 3, 8, 8)
    with pytest.raises(CutError, match="mlp must not run both before the cut and behind it"):
        cut(model, images, ["attn.proj"])
    assert cut(model, images, ["attn.proj"], whole=True).boundary == "images"


def test_heads_of_an_attention_that_is_cut_open_are_not_divided() -> None:
    model, images = Attending(again=False).eval(), torch.randn(2, 3, 8, 8)
    division = find_division(model, images)
    for partition, whole in (["attn"], True), (["attn.qkv", "attn.proj"], False):
        found = cut(model, images, partition).divisible(division)
        assert ("attn.qkv" in {each.group.name for each in found}) == whole
        assert "block.0" in {each.group.name for each in found}
