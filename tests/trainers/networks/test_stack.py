"""Rows of several candidates side by side against each alone, as a network multiplied by masks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.helpers.foreign import BACKBONES, backbone, drawn_state
from tests.helpers.masked import MaskedRow, entries
from trainers.networks import Backbone, Division, Stack, Store, make_stores, own_tensors
from trainers.networks.division import used_by

#: On CPUs, where candidates train one at a time, vmap is slow at what it has no rule for.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")
CPU = torch.device("cpu")
TOLERANCE = 1e-5
ROWS, STEPS, IMAGES = 2, 6, 4
RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.05

Units = NDArray[np.bool_]


def draw(found: Backbone, seed: int, *, equal: bool) -> Units:
    """(ROWS, units): random masks; one row may be without any unit of a group, or have all.

    Args:
        found: The network.
        seed: Of the masks.
        equal: Whether the masks of all seeds are of as many units.
    """
    rng = np.random.default_rng(seed)
    kept_RU = np.ones((ROWS, found.division.units), dtype=bool)
    names = {group.name for group in found.groups}
    groups = [each for each in found.division.groups if each.group.name in names]
    for number, each in enumerate(groups):
        width = each.group.width
        for row in range(ROWS):
            count = (width + 1 + row) // 2 if equal else rng.integers(1, width + 1)
            chosen = rng.permutation(width) < count
            if not equal and number == 0 and row == 0:
                chosen[:] = seed % 2 == 0
            kept_RU[row, each.units] = chosen
    return kept_RU


def allowed(found: Backbone, kept_KRU: Units) -> Units:
    """What rows may change: a part of what they use of the divided groups."""
    free = np.random.default_rng(0).random(kept_KRU.shape) < 0.6
    return np.asarray(kept_KRU & (free | ~found.divided))


def cohort(found: Backbone, candidates: int) -> Units:
    """(K, ROWS, units), of unequal width where that can be padded."""
    return np.stack([draw(found, seed, equal=not found.padded) for seed in range(candidates)])


def batches(found: Backbone) -> list[tuple[Tensor, list[Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(IMAGES, *found.boundary, generator=generator),
            [torch.randn(IMAGES, *o.shape, generator=generator) for o in found.outputs],
        )
        for _ in range(STEPS)
    ]


def states(found: Backbone) -> list[dict[str, Tensor]]:
    """What rows begin with: the weights of the first, norms of their own."""
    return [drawn_state(found, seed) for seed in range(ROWS)]


def imitation(outputs: list[Tensor], found: Backbone, kept: Units, targets: list[Tensor]) -> Tensor:
    """Mean squared error, over the channels that a row uses, summed over blocks."""
    losses = []
    for out, target, output in zip(outputs, targets, found.outputs, strict=True):
        if output.dim is not None and output.owner is not None:
            used = np.flatnonzero(used_by(output.owner, kept))
            target = target.index_select(output.dim, torch.from_numpy(used))
        losses.append((out - target).square().mean() if out.numel() else out.sum())
    return torch.stack(losses).sum()


class Stacked:
    """The rows of a cohort, and what each of its candidates gives."""

    def __init__(self, found: Backbone, kept_KRU: Units, free_KRU: Units | None = None) -> None:
        self.found, self.kept_KRU, own = found, kept_KRU, states(found)
        self.stores = make_stores(
            found.tail, found.division, found.divided, own[0], len(kept_KRU), CPU
        )
        self.rows = [
            Stack(
                found.tail, found.division, kept_KRU[:, row], self.stores, {**own[0], **own[row]},
                free_KU=None if free_KRU is None else free_KRU[:, row],
            )
            for row in range(ROWS)
        ]  # fmt: skip
        for stack in self.rows:
            stack.imitate()
            stack.by_batch(training=True, remembered=True)

    def __call__(self, x: Tensor, row: int) -> list[tuple[list[Tensor], Tensor]]:
        """By candidate: block outputs and features, of the channels that it uses."""
        stack = self.rows[row]
        stack.gather()
        outputs, features = stack(x)
        if stack.candidates == 1:
            outputs, features = [out[None] for out in outputs], features[None]
        results = []
        for k in range(stack.candidates):
            found = []
            for out, output in zip(outputs, self.found.outputs, strict=True):
                own = out[k]
                if output.dim is not None and output.owner is not None:
                    places = stack.places_of(output.owner)
                    real = torch.from_numpy(np.flatnonzero(places.real_KN[k]))
                    padding = torch.from_numpy(np.flatnonzero(~places.real_KN[k]))
                    assert not own.index_select(output.dim, padding).any(), "padding must stay 0"
                    own = own.index_select(output.dim, real)
                found.append(own)
            read = stack._places.get(self.found.of_head[0], {}).get(1)
            real = slice(None) if read is None else torch.from_numpy(read.real_KN[k])
            results.append((found, features[k][:, real]))
        return results

    def whole(self, k: int) -> dict[str, Tensor]:
        """A candidate's shared weights as they are."""
        found = {}
        for name, store in self.stores.items():
            order = [store.order.index(d) for d in range(len(store.order))]
            found[name] = store.data.permute(order)[k].clone()
        return found

    def own(self, row: int, k: int) -> dict[str, Tensor]:
        """A candidate's norms of a row, of the channels that it uses."""
        stack = self.rows[row]
        found = {}
        for name, value in stack.own().items():
            mine = value if stack.candidates == 1 else value[k]
            places = stack._places.get(name, {}).get(0)
            found[name] = mine if places is None else mine[torch.from_numpy(places.real_KN[k])]
        return found

    def gradients(self, row: int, k: int) -> dict[str, Tensor]:
        """By name: a candidate's gradients as whole tensors."""
        stack, found = self.rows[row], {}
        for name, part in stack.parts.items():
            if part.leaf.grad is None:
                continue
            given = part.leaf.grad if stack.candidates > 1 else part.leaf.grad[None]
            value, target = given[k], torch.zeros(self.whole(k)[name].shape)
            places = {d: stack._places.get(name, {}).get(d) for d in range(target.ndim)}
            index = [
                torch.arange(target.shape[d]) if p is None else torch.from_numpy(p.index_KN[k])
                for d, p in places.items()
            ]
            target[torch.meshgrid(*index, indexing="ij")] = value
            real = entries(self.found.division, name, target, self.kept_KRU[k, row])
            found[name] = target * real
        return found


def difference(one: Tensor, other: Tensor) -> float:
    """The largest, relative to the largest number."""
    assert one.shape == other.shape
    if not one.numel():
        return 0.0
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


def close(one: Tensor, other: Tensor) -> bool:
    return difference(one.detach(), other.detach()) < TOLERANCE


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("candidates", [1, 3])
def test_candidates_side_by_side_are_trained_as_each_alone_under_masks(
    name: str, backward: bool, candidates: int
) -> None:
    found = backbone(name)
    kept_KRU = cohort(found, 3)[3 - candidates :]
    free_KRU = None
    if backward:
        free_KRU = allowed(found, kept_KRU)
    together = Stacked(found, kept_KRU, free_KRU)
    alone = []
    for k, kept_RU in enumerate(kept_KRU):
        own = states(found)
        shared = {name: own[0][name].clone() for name in together.stores}
        alone.append(
            [
                MaskedRow(
                    found, kept_RU[row], shared, own[row],
                    None if free_KRU is None else free_KRU[k, row],
                )
                for row in range(ROWS)
            ]
        )  # fmt: skip
    for step, (x, targets) in enumerate(batches(found)):
        row = step % ROWS
        got = together(x, row)
        losses = []
        for k, rows in enumerate(alone):
            wanted = rows[row](x)
            for one, other in zip((*got[k][0], got[k][1]), (*wanted[0], wanted[1]), strict=True):
                assert close(one, other), (step, k, difference(one.detach(), other.detach()))
            imitation(wanted[0], found, kept_KRU[k, row], targets).backward()
            losses.append(imitation(got[k][0], found, kept_KRU[k, row], targets))
        torch.stack(losses).sum().backward()
        for k, rows in enumerate(alone):
            for each, gradient in together.gradients(row, k).items():
                wanted = rows[row].shared[each].grad
                assert wanted is not None
                real = entries(found.division, each, wanted, kept_KRU[k, row])
                assert close(gradient, wanted * real), (step, k, each)
            rows[row].step(RATE, MOMENTUM, DECAY)
        together.rows[row].step(RATE, MOMENTUM, DECAY)
    for k, rows in enumerate(alone):
        for each, value in together.whole(k).items():
            assert close(value, rows[0].shared[each].detach()), (k, each)
        for row in range(ROWS):
            for each, value in together.own(row, k).items():
                if value.is_floating_point():
                    whole = rows[row].own[each].detach()
                    real = entries(found.division, each, whole, kept_KRU[k, row])
                    assert close(value, whole[real]), (k, row, each)
    if candidates > 1:  # they are not all the same, so that the comparison says something
        one, other = together.whole(0), together.whole(1)
        assert any(float((one[n] - other[n]).abs().max()) > 1e-3 for n in one)


def trained(found: Backbone, kept_KRU: Units) -> tuple[Stacked, list[list[Tensor]]]:
    """A cohort after training, and by candidate and row the features of the last batch."""
    stacked = Stacked(found, kept_KRU)
    for step, (x, targets) in enumerate(batches(found)):
        row = step % ROWS
        got = stacked(x, row)
        losses = [
            imitation(outputs, found, kept_KRU[k, row], targets)
            for k, (outputs, _) in enumerate(got)
        ]
        torch.stack(losses).sum().backward()
        stacked.rows[row].step(RATE, MOMENTUM, DECAY)
    x = batches(found)[-1][0]
    features = [[each[1].detach() for each in stacked(x, row)] for row in range(ROWS)]
    return stacked, [list(each) for each in zip(*features, strict=True)]


def test_a_candidate_alone_is_as_among_fifteen_others() -> None:
    found = backbone("resnet14 with streams")
    kept_KRU = cohort(found, 16)
    stacked, together = trained(found, kept_KRU)
    for k in (0, 7, 15):
        single, (alone,) = trained(found, kept_KRU[k : k + 1])
        assert all(close(one, other) for one, other in zip(alone, together[k], strict=True))
        assert all(close(single.whole(0)[n], v) for n, v in stacked.whole(k).items())


@pytest.mark.parametrize("name", ["resnet14 with streams", "vit"])
@pytest.mark.parametrize("backward", [False, True])
def test_a_step_changes_what_the_row_may_change_and_nothing_else(name: str, backward: bool) -> None:
    """Bit by bit, with momentum and decay of both rows, and padding that is others' weights."""
    found = backbone(name)
    kept_KRU = cohort(found, 3)
    free_KRU = allowed(found, kept_KRU)
    stacked = Stacked(found, kept_KRU, free_KRU if backward else None)
    changed = free_KRU if backward else kept_KRU
    for step, (x, targets) in enumerate(batches(found)):
        row = step % ROWS
        before = [stacked.whole(k) for k in range(3)]
        norms = [stacked.own(other, k) for other in range(ROWS) for k in range(3)]
        norms = [{n: v.clone() for n, v in each.items()} for each in norms]
        got = stacked(x, row)
        torch.stack(
            [imitation(o, found, kept_KRU[k, row], targets) for k, (o, _) in enumerate(got)]
        ).sum().backward()
        stacked.rows[row].step(RATE, MOMENTUM, DECAY)
        moved, all_free = 0, 0
        for k in range(3):
            for each, value in stacked.whole(k).items():
                free = entries(found.division, each, value, changed[k, row])
                differs = value != before[k][each]
                assert not (differs & ~free).any(), (step, k, each)
                moved, all_free = moved + int(differs.sum()), all_free + int(free.sum())
            other = 1 - row
            for each, value in stacked.own(other, k).items():
                assert torch.equal(value, norms[other * 3 + k][each]), each
        assert moved > 0.95 * all_free


def small() -> tuple[nn.Module, Division]:
    return nn.Sequential(nn.Conv2d(1, 1, 3)), Division(groups=(), axes={}, refused={})


def test_momentum_is_kept_apart() -> None:
    """Two rows that share one weight: each must see only its own gradients' history."""
    model, division = small()
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    stores = make_stores(model, division, np.zeros(0, dtype=bool), state, 1, CPU)
    rows = [Stack(model, division, np.ones((1, 0), dtype=bool), stores, {}) for _ in range(2)]

    def step(row: int, gradient: float) -> float:
        before = stores["0.weight"].whole().clone()
        rows[row].gather()
        leaf = rows[row].parts["0.weight"].leaf
        leaf.grad = torch.full_like(leaf, gradient)
        rows[row].step(1.0, 0.5, 0.0)
        return float((stores["0.weight"].whole() - before).mean())

    # Nesterov: the first move is -(g + m g), with the buffer g.
    assert step(0, 1.0) == pytest.approx(-1.5)
    assert step(1, 0.0) == pytest.approx(0.0)  # with shared momentum it would go on moving
    assert step(0, 0.0) == pytest.approx(-0.25)


@pytest.mark.parametrize("name", ["resnet14 with streams", "vit"])
def test_weight_decay_pulls_on_what_layers_multiply_by_and_no_more(name: str) -> None:
    found = backbone(name)
    kept_KRU = cohort(found, 2)
    free_KRU = allowed(found, kept_KRU)
    stacked = Stacked(found, kept_KRU, free_KRU)
    before = [stacked.whole(k) for k in range(2)]
    row, stack = 1, stacked.rows[1]
    stack.gather()
    for parameter in (*(part.leaf for part in stack.parts.values()), *stack.alone.values()):
        parameter.grad = torch.zeros_like(parameter)
    norms = {name: value.clone() for name, value in stack.own().items()}
    stack.step(0.5, 0.0, 0.1)
    for k in range(2):
        for each, value in stacked.whole(k).items():
            layer, _, kind = each.rpartition(".")
            pulled = kind == "weight" and isinstance(
                found.model.get_submodule(layer), nn.Conv2d | nn.Linear
            )
            free = entries(found.division, each, value, free_KRU[k, row])
            wanted = before[k][each] * (1 - 0.05 * pulled * free)
            torch.testing.assert_close(value, wanted)
    assert all(torch.equal(stack.own()[name], value) for name, value in norms.items())


def test_what_a_row_alone_learns_beside_its_model_is_updated_with_it() -> None:
    found = backbone("resnet14")
    stack = Stacked(found, cohort(found, 1)).rows[0]
    weight, bias = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    stack.learn([weight], decays=True)
    stack.learn([bias], decays=False)
    for parameter in (weight, bias):
        parameter.grad = torch.zeros(2)
    stack.step(0.5, 0.0, 0.1)
    assert weight.tolist() == pytest.approx([0.95, 0.95])
    assert bias.tolist() == [1.0, 1.0]
    assert weight.grad is None


@torch.no_grad()
def in_both_precisions(name: str, candidates: int, device: torch.device) -> list[Tensor]:
    """Features of a row in single precision and as bf16 trainings have them."""
    found = backbone(name)
    kept_KU, (state, _) = cohort(found, candidates)[:, 0], states(found)
    stores = make_stores(found.tail, found.division, found.divided, state, candidates, device)
    x = batches(found)[0][0].to(device)
    results = []
    for kind in (torch.float32, torch.bfloat16):
        stack = Stack(found.tail, found.division, kept_KU, stores, state, kind=kind)
        stack.imitate()
        stack.gather()
        with torch.autocast(device.type, torch.bfloat16, enabled=kind == torch.bfloat16):
            results.append(stack(x.to(kind))[1].float())
    return results


def assert_near(half: Tensor, full: Tensor) -> None:
    scale = float(full.abs().max())
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.05 * scale)
    assert not torch.equal(half, full)


@pytest.mark.parametrize("name", BACKBONES)
def test_bf16_is_close_to_fp32(name: str) -> None:
    full, half = in_both_precisions(name, 1, CPU)
    assert_near(half, full)


@pytest.mark.gpu
@pytest.mark.parametrize("name", BACKBONES)
def test_bf16_side_by_side_is_close_to_fp32(name: str) -> None:
    full, half = in_both_precisions(name, 3, torch.device("cuda"))
    assert_near(half, full)


def test_a_store_gives_back_what_it_was_made_of() -> None:
    tensor = torch.randn(4, 3, 2, 5)
    for dims in ([], [0], [1], [0, 1]):
        store = Store(tensor, dims, 3, CPU)
        assert torch.equal(store.whole(), tensor)
        assert store.data.shape[: 1 + len(dims)] == (3, *(tensor.shape[d] for d in dims))
    store.data += 1
    assert not torch.equal(store.whole(), tensor), "a copy"


def test_stores_are_of_what_rows_share() -> None:
    found = backbone("resnet14 with streams")
    state = drawn_state(found)
    stores = make_stores(found.tail, found.division, found.divided, state, 1, CPU)
    names = {name for name, _ in found.tail.named_parameters()}
    assert stores.keys() == names - own_tensors(found.tail)
    assert all(torch.equal(store.whole(), state[name]) for name, store in stores.items())
    assert stores["stage2.0.conv1.weight"].dims == (0,)  # it reads what the trunk gives
    assert stores["stage3.0.conv1.weight"].dims == (0, 1)


def test_rows_are_gathered_as_others_have_left_them() -> None:
    found = backbone("resnet14")
    stacked = Stacked(found, cohort(found, 2))
    name = "stage2.0.conv2.weight"

    def seen(row: int) -> Tensor:
        stacked.rows[row].gather()
        return stacked.rows[row].parts[name].leaf.detach().clone()

    before = seen(1)
    stacked.stores[name].data.mul_(2)
    assert torch.equal(seen(1), 2 * before)


@pytest.mark.parametrize("mode", [nn.Module.train, nn.Module.eval])
def test_a_single_row_trains_as_its_module_does(mode: Callable[[nn.Module], nn.Module]) -> None:
    """Running statistics are the row's own, and go by its batches."""
    found = backbone("resnet14")
    stacks = Stacked(found, cohort(found, 1)).rows
    for stack in stacks:
        for norm in stack._norms:
            norm.momentum = 0.1
    name = "stage2.0.bn1.running_mean"
    before = [stack.own()[name].clone() for stack in stacks]
    mode(stacks[0].module)
    stacks[0].gather()
    stacks[0](batches(found)[0][0])
    moved = not torch.equal(stacks[0].own()[name], before[0])
    assert moved == (mode is nn.Module.train)
    assert torch.equal(stacks[1].own()[name], before[1])
