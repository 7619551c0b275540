"""Students side by side against the same students one at a time, as modules with masks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from partitioning import ChannelGroup, Masks, VirtualNetwork
from trainers.backbones import BACKBONES, BackboneConfig, channel_groups
from trainers.network import load_norms, load_weights
from trainers.optim import RowSGD, SGDConfig, norm_parameters
from trainers.proxy.cohort import alike, candidate_bytes, fastest_convolution, in_chunks, room
from trainers.proxy.stacked import StackedTail, convolve_groups, convolve_matrices

CPU = torch.device("cpu")
BACKBONE = BackboneConfig(family="resnet14", width=4, partition_from=2)
NAMES = ("a", "b")
SGD = SGDConfig(
    steps=8, learning_rate=0.05, momentum=0.9, weight_decay=1e-2, schedule="step", drops=(0.5,)
)
STEPS = 8


def random_masks(seed: int, *, stream: bool = False, backward: bool = False) -> Masks:
    rng = np.random.default_rng(seed)
    groups = channel_groups(BACKBONE, stream=stream)
    forward = {}
    for group in groups:
        forward[group.name] = rng.random((len(NAMES), group.width)) < rng.uniform(0.2, 0.9)
        if group.kind == "stream":
            forward[group.name][:, 0] = True
    # One task without any channel of a group, and one candidate with all of them.
    forward[groups[0].name][0] = seed % 2 == 0
    return Masks(
        networks=tuple(VirtualNetwork(task=name) for name in NAMES),
        groups=groups,
        forward=forward,
        backward={n: f & (rng.random(f.shape) < 0.6) for n, f in forward.items()}
        if backward
        else None,
    )


def state() -> dict[str, Tensor]:
    """A network's tail with norms that are not as they are initialised."""
    generator = torch.Generator().manual_seed(0)
    full = Masks(
        networks=(VirtualNetwork(task="a"),),
        groups=channel_groups(BACKBONE),
        forward={g.name: np.ones((1, g.width), dtype=bool) for g in channel_groups(BACKBONE)},
    )
    tail = BACKBONES[BACKBONE.family].tail(BACKBONE, full, generator=generator)
    values = {f"tail.{name}": tensor.clone() for name, tensor in tail.state_dict().items()}
    for name, tensor in values.items():
        if "bn" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return values


def batches() -> list[tuple[Tensor, list[Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    plan = BACKBONES[BACKBONE.family].plan(BACKBONE)
    made = []
    for _ in range(STEPS):
        size, targets = 7, []
        for block in plan:
            size = -(-size // block.stride)
            targets.append(torch.randn(6, block.widths[2], size, size, generator=generator))
        made.append((torch.randn(6, plan[0].widths[0], 7, 7, generator=generator), targets))
    return made


def one_at_a_time(masks: Masks) -> list[Tensor]:
    """Every row's features of the last batch after training, spread over all channels."""
    tail = BACKBONES[BACKBONE.family].tail(BACKBONE, masks, generator=torch.Generator())
    load_weights(tail, state(), "tail.")
    for row in range(len(NAMES)):
        load_norms(tail, row, state(), "tail.")
    tail.train()
    own = [norm_parameters(tail, row) for row in range(len(NAMES))]
    optimizer = RowSGD(tail, own, SGD)
    used = [
        [masks.forward.get(p.outputs, np.ones((2, p.widths[2]), bool))[row] for row in range(2)]
        for p in BACKBONES[BACKBONE.family].plan(BACKBONE)
    ]
    for step, (x, targets) in enumerate(batches()):
        row = step % len(NAMES)
        losses = [
            F.mse_loss(f, t[:, torch.tensor(mask[row])])
            for f, t, mask in zip(tail(x, row), targets, used, strict=True)
        ]
        torch.stack(losses).sum().backward()
        optimizer.step(row, step)
    widened = []
    for row in range(len(NAMES)):
        features = tail(batches()[-1][0], row)[-1].detach()
        full = torch.zeros(features.shape[0], len(used[-1][row]), *features.shape[2:])
        full[:, torch.tensor(used[-1][row])] = features
        widened.append(full)
    return widened


def side_by_side(cohort: list[Masks], convolve: Callable[..., Tensor]) -> list[list[Tensor]]:
    """The same of all candidates: by candidate, then row."""
    tail = StackedTail(BACKBONE, cohort, CPU, convolve, "fp32")
    tail.load(state(), [state()] * len(NAMES))
    for step, (x, targets) in enumerate(batches()):
        row = step % len(NAMES)
        parts = tail.parts(row)
        for part in parts:
            part.gather()
        loss = torch.zeros(())
        for features, target, used in zip(
            tail.forward(x, row), targets, tail.outputs(row), strict=True
        ):
            errors = (
                features.unflatten(1, used.index_KN.shape)
                - F.pad(target, (0, 0, 0, 0, 0, 1))[:, used.index_KN]
            )
            squares_K = errors.square().mean(dim=(0, 3, 4)).sum(dim=1)
            loss = loss + (squares_K / used.real_KN.sum(dim=1)).sum()
        loss.backward()
        rate = SGD.learning_rate * (0.1 if step >= STEPS / 2 else 1.0)
        for part in parts:
            part.step(rate, SGD.momentum, SGD.weight_decay)
    widened: list[list[Tensor]] = [[] for _ in cohort]
    for row in range(len(NAMES)):
        for part in tail.parts(row):
            part.gather()
        used = tail.outputs(row)[-1]
        features = tail.forward(batches()[-1][0], row)[-1].detach()
        stacked = features.unflatten(1, used.index_KN.shape)
        for k in range(len(cohort)):
            width = BACKBONES[BACKBONE.family].plan(BACKBONE)[-1].widths[2]
            full = torch.zeros(stacked.shape[0], width + 1, *stacked.shape[3:])
            full[:, used.index_KN[k]] = stacked[:, k]
            assert not full[:, width].any(), "padding must stay 0"
            widened[k].append(full[:, :width])
    return widened


@pytest.mark.parametrize("convolve", [convolve_groups, convolve_matrices])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_candidates_side_by_side_are_trained_as_each_alone(
    convolve: Callable[..., Tensor], stream: bool, backward: bool
) -> None:
    cohort = [random_masks(seed, stream=stream, backward=backward) for seed in range(4)]
    together = side_by_side(cohort, convolve)
    for masks, got in zip(cohort, together, strict=True):
        for row, expected in enumerate(one_at_a_time(masks)):
            assert torch.allclose(got[row], expected, atol=2e-4), (got[row] - expected).abs().max()
    # They are not all the same, so that the comparison says something.
    assert not torch.allclose(together[0][0], together[1][0], atol=1e-2)


def test_a_candidate_alone_is_as_among_fifteen_others() -> None:
    cohort = [random_masks(seed) for seed in range(16)]
    together = side_by_side(cohort, convolve_groups)
    for k in (0, 7, 15):
        (alone,) = side_by_side([cohort[k]], convolve_groups)
        for row in range(len(NAMES)):
            assert torch.allclose(alone[row], together[k][row], atol=1e-4)


def test_both_convolutions_are_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 5, 4, 3, 3, generator=generator)
    for stride, channels in ((1, 12), (2, 12), (1, 4), (2, 4)):
        x = torch.randn(2, channels, 7, 5, generator=generator)
        got = convolve_matrices(x, weight, stride)
        assert torch.allclose(convolve_groups(x, weight, stride), got, atol=1e-4)


def test_on_a_cpu_one_student_at_a_time_trains_by_grouped_convolutions() -> None:
    assert fastest_convolution(BACKBONE, CPU, "fp32", 4) is convolve_groups
    assert room(CPU, 10**6) == 1


def test_the_estimate_of_memory_grows_with_what_is_trained() -> None:
    size = {"rows": 2, "batch_size": 4, "norm_images": 64, "map_size": 8}
    small = candidate_bytes(BACKBONE, **size)
    for name in ("rows", "norm_images", "map_size"):
        assert candidate_bytes(BACKBONE, **{**size, name: 2 * size[name]}) > small
    assert candidate_bytes(BACKBONE, **{**size, "batch_size": 64}) > small  # maps of all blocks
    wide = BackboneConfig(family="resnet14", width=8, partition_from=2)
    assert candidate_bytes(wide, **size) > 1.9 * small


def test_the_estimate_covers_the_weights_that_are_held() -> None:
    cohort = [random_masks(seed) for seed in range(4)]
    tail = StackedTail(BACKBONE, cohort, CPU, convolve_groups, "fp32")
    parts = [part for row in range(len(NAMES)) for part in tail.parts(row)]
    values = sum(part.value.numel() for part in parts if part.value.ndim == 5)
    held = 4 * 2 * values + 8 * values / 9  # with momentum and positions
    each = candidate_bytes(BACKBONE, rows=2, batch_size=0, norm_images=0, map_size=8)
    assert held < len(cohort) * each


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_chunks_that_do_not_fit_are_halved_and_none_is_lost(error: Exception) -> None:
    sizes = []

    def run(chunk: list[int]) -> list[int]:
        sizes.append(len(chunk))
        if len(chunk) > 3:
            raise error
        return [10 * item for item in chunk]

    done = dict(in_chunks(list(range(9)), lambda: 8, run))
    assert done == {item: 10 * item for item in range(9)}
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


def test_the_size_of_a_chunk_is_asked_for_every_time() -> None:
    sizes, room_left = [], iter([4, 2, 3])

    def run(chunk: list[int]) -> list[int]:
        sizes.append(len(chunk))
        return list(chunk)

    assert dict(in_chunks(list(range(9)), lambda: next(room_left), run)) == {i: i for i in range(9)}
    assert sizes == [4, 2, 3]


def test_what_never_fits_is_said_so() -> None:
    def run(chunk: list[int]) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match="one candidate alone does not fit into memory"):
        list(in_chunks([1, 2], lambda: 2, run))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def run(chunk: list[int]) -> list[int]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(in_chunks([1, 2], lambda: 2, run))


def test_only_candidates_of_the_same_networks_are_stacked_and_sorted_by_use() -> None:
    other = Masks(
        networks=(VirtualNetwork(task="a"),),
        groups=(ChannelGroup(name="g", width=4),),
        forward={"g": np.ones((1, 4), dtype=bool)},
    )
    cohort = [random_masks(0), other, random_masks(1), random_masks(2)]
    kinds = alike(cohort)
    assert sorted(map(sorted, kinds)) == [[0, 2, 3], [1]]
    use = [sum(m.mean() for m in cohort[i].forward.values()) for i in kinds[0]]
    assert use == sorted(use, reverse=True)
