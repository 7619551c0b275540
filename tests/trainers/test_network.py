"""All rows of a network trained together, from images to logits, against masked modules."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from partitioning import Masks
from tests.helpers.foreign import BACKBONES, backbone, drawn_state
from tests.helpers.masked import MaskedRow, entries
from tests.helpers.masks import random_masks
from tests.helpers.small_networks import NAMES
from trainers.network import Network, Whole
from trainers.networks import BATCH_NORMS, Backbone, own_tensors
from trainers.networks.division import used_by

CPU = torch.device("cpu")
CLASSES = (3, 5)
STEPS, RATE, MOMENTUM, DECAY = 6, 0.05, 0.9, 0.05


def network(found: Backbone, masks: Masks, seed: int = 0) -> Network:
    """With weights of one network, and trunks' norms of two others."""
    return Network(
        found, masks, CLASSES, shared=drawn_state(found, 0),
        norms=[drawn_state(found, 1 + row) for row in range(len(CLASSES))],
        seed=seed, device=CPU,
    )  # fmt: skip


def images(name: str) -> Tensor:
    size = BACKBONES[name][1]
    return torch.randn(STEPS, 4, 3, size, size, generator=torch.Generator().manual_seed(0))


class Head:
    """A linear layer in numbers alone, with SGD written out."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = (t.detach().clone().requires_grad_() for t in (weight, bias))
        self.momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias

    @torch.no_grad()
    def step(self) -> None:
        for number, value in enumerate((self.weight, self.bias)):
            assert value.grad is not None
            gradient = value.grad + DECAY * value * (number == 0)
            self.momentum[number] = MOMENTUM * self.momentum[number] + gradient
            value -= RATE * (gradient + MOMENTUM * self.momentum[number])
            value.grad = None


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("backward", [False, True])
def test_rows_are_trained_as_masked_networks_are(name: str, backward: bool) -> None:
    found = backbone(name)
    masks = random_masks(found.groups, NAMES, 0, use=0.6, backward=backward)
    kept_RU, free_RU = found.kept(masks), found.kept(masks, "backward")
    got = network(found, masks)
    state = drawn_state(found, 0)
    learned = {n for n, _ in found.tail.named_parameters()} - own_tensors(found.tail)
    shared = {n: state[n].clone() for n in learned}
    rows, heads, trunks = [], [], []
    for row in range(len(CLASSES)):
        rows.append(MaskedRow(found, kept_RU[row], shared, state, free_RU[row]))
        for module in rows[row].module.modules():
            if isinstance(module, BATCH_NORMS):
                module.momentum = 0.1
        own = drawn_state(found, 1 + row)
        trunk = {n: own[n] if n in found.own else v for n, v in state.items()}
        trunks.append(Whole(found, trunk, CPU).eval().trunk)
        heads.append(Head(got.heads[row].weight, got.heads[row].bias))
    for step, x in enumerate(images(name)):
        row = step % len(CLASSES)
        labels = torch.arange(len(x)) % CLASSES[row]
        got.train(row)
        rows[row].by_batch(training=True)
        logits = got(x, row)
        with torch.no_grad():
            boundary = trunks[row](x)
        wanted = heads[row](rows[row](boundary)[1])
        torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
        F.cross_entropy(logits, labels).backward()
        F.cross_entropy(wanted, labels).backward()
        got.step(row, RATE, MOMENTUM, DECAY)
        rows[row].step(RATE, MOMENTUM, DECAY)
        heads[row].step()
    for each, store in got.stores.items():
        torch.testing.assert_close(store.whole(), shared[each].detach(), rtol=1e-5, atol=1e-5)
    for row in range(len(CLASSES)):
        for each, value in got.stacks[row].own().items():
            whole = rows[row].own[each].detach()
            real = entries(found.division, each, whole, kept_RU[row])
            places = got.stacks[row]._places.get(each, {}).get(0)
            mine = value if places is None else value[torch.from_numpy(places.real_KN[0])]
            if value.is_floating_point():
                torch.testing.assert_close(mine, whole[real], rtol=1e-4, atol=1e-5)
    got.eval()
    for row in range(len(CLASSES)):
        rows[row].by_batch(training=False)
        x = images(name)[0]
        with torch.no_grad():
            wanted = heads[row](rows[row](trunks[row](x))[1])
            torch.testing.assert_close(got(x, row), wanted, rtol=1e-4, atol=1e-5)
            trunk, tail, head = got.row(row)
            torch.testing.assert_close(head(tail(trunk(x))[1]), wanted, rtol=1e-4, atol=1e-5)
            read = found.division.axes.get(found.of_head[0], {}).get(1)
            width = found.features if read is None else used_by(read, kept_RU[row]).sum()
            assert head.weight.shape == (CLASSES[row], max(1, int(width)))


def test_a_row_leaves_the_others_alone_but_for_what_they_share() -> None:
    """Norms of trunks never move; those of a tail and its head with their row alone."""
    found = backbone("resnet14 with streams")
    masks = random_masks(found.groups, NAMES, 0, use=0.6)
    got = network(found, masks)
    before = {n: v.clone() for n, v in got.state().items()}
    got.train(0)
    got(images("resnet14 with streams")[0], 0).square().mean().backward()
    got.step(0, RATE, MOMENTUM, DECAY)
    after = got.state()
    moved = {n for n, v in after.items() if not torch.equal(v, before[n])}
    trunk = set(found.trunk.state_dict())
    assert {n for n in moved if not n.startswith("shared.")} == {
        n for n in after if n.startswith("row0.") and n.split(".", 1)[1] not in trunk
    }
    assert {n for n in moved if n.startswith("shared.")} == {f"shared.{n}" for n in got.stores}


def test_without_a_unit_of_anything_a_row_still_trains() -> None:
    found = backbone("resnet14")
    got = network(found, random_masks(found.groups, NAMES, 0, use=0.0))
    before = {n: store.whole().clone() for n, store in got.stores.items()}
    got.train(0)
    got(images("resnet14")[0], 0).sum().backward()
    got.step(0, RATE, MOMENTUM, DECAY)
    got.eval()
    logits = got(images("resnet14")[0], 0)
    assert logits.shape == (4, 3)
    assert logits.isfinite().all()
    assert all(torch.equal(store.whole(), before[n]) for n, store in got.stores.items())


@pytest.mark.parametrize("name", ["resnet14 with streams", "vit"])
def test_a_network_takes_what_another_was(name: str) -> None:
    found = backbone(name)
    masks = random_masks(found.groups, NAMES, 0, use=0.6)
    first, second = network(found, masks), network(found, masks, seed=1)
    x = images(name)
    for row in range(len(CLASSES)):
        first.train(row)
        first(x[row], row).square().mean().backward()
        first.step(row, RATE, MOMENTUM, DECAY)
    first.eval()
    second.eval()
    with torch.no_grad():
        assert not torch.equal(first(x[0], 0), second(x[0], 0))
        second.load(first.state())
        for row in range(len(CLASSES)):
            assert torch.equal(first(x[0], row), second(x[0], row))
    for each, value in second.state().items():
        assert torch.equal(value, first.state()[each]), each


def test_backward_masks_leave_the_forward_pass_alone() -> None:
    found = backbone("resnet14 with streams")
    masks = random_masks(found.groups, NAMES, 0, backward=True)
    plain = Masks(networks=masks.networks, groups=masks.groups, forward=masks.forward)
    one, other = network(found, masks), network(found, plain)
    for row in range(len(CLASSES)):
        x = images("resnet14 with streams")[0]
        assert torch.equal(one(x, row), other(x, row))


def test_heads_depend_on_the_seed_and_the_row() -> None:
    found = backbone("resnet14")
    masks = random_masks(found.groups, NAMES, 0)
    same, again, other = (network(found, masks, seed) for seed in (0, 0, 1))
    assert torch.equal(same.heads[0].weight, again.heads[0].weight)
    assert not torch.equal(same.heads[0].weight, other.heads[0].weight)
    assert not torch.equal(same.heads[0].weight, same.heads[1].weight[:3])
    assert np.isclose(float(same.heads[0].weight.detach().std()), 0.01, rtol=0.4)
