"""How many candidates train side by side, and which."""

import numpy as np
import pytest
import torch

from partitioning import ChannelGroup, Masks, VirtualNetwork
from tests.helpers.foreign import backbone
from tests.helpers.masks import random_masks
from tests.helpers.small_networks import BUILT, GROUPS, NAMES
from trainers.networks import BackboneConfig, Stack, build_backbone, make_stores
from trainers.proxy.cohort import alike, candidate_bytes, in_chunks, room

CPU = torch.device("cpu")


def test_on_a_cpu_one_student_trains_at_a_time() -> None:
    assert room(CPU, 10**6) == 1


def test_the_estimate_of_memory_grows_with_what_is_trained() -> None:
    size = {"rows": 2, "batch_size": 4, "norm_images": 64}
    small = candidate_bytes(BUILT, **size)
    for name in ("rows", "norm_images"):
        assert candidate_bytes(BUILT, **{**size, name: 2 * size[name]}) > small
    assert candidate_bytes(BUILT, **{**size, "batch_size": 64}) > small  # maps of all blocks
    wide = build_backbone(BackboneConfig(model="resnet14", args={"width": 8}), 8)
    assert candidate_bytes(wide, **size) > 1.9 * small
    large = build_backbone(BackboneConfig(model="resnet14", args={"width": 4}), 16)
    assert candidate_bytes(large, **size) > small


def test_maps_are_counted_as_they_are_made() -> None:
    """In each of two blocks two convolutions and norms, of 16 channels on 2 x 2 pixels."""
    assert BUILT.map_bytes == 4 * 8 * 16 * 2 * 2
    assert BUILT.smallest_map == 4


@pytest.mark.parametrize("name", ["resnet14 with streams", "vit"])
def test_the_estimate_covers_the_weights_that_are_held(name: str) -> None:
    found = backbone(name)
    cohort = [random_masks(found.groups, NAMES, seed) for seed in range(4)]
    kept_KRU = np.stack([found.kept(masks) for masks in cohort])
    state = found.initial(2, 0)
    stores = make_stores(found.tail, found.division, found.divided, state, 4, CPU)
    held = sum(store.data.nbytes for store in stores.values())
    for row in range(len(NAMES)):
        stack = Stack(found.tail, found.division, kept_KRU[:, row], stores, state)
        stack.gather()
        for part in stack.parts.values():
            part.leaf.grad = torch.zeros_like(part.leaf)
        stack.step(0.1, 0.9, 0.0)
        for part in stack.parts.values():
            parts = (part.leaf, part._index, part.momentum)
            held += sum(each.nbytes for each in parts if each is not None)
    each = candidate_bytes(found, rows=2, batch_size=0, norm_images=0)
    assert 0.2 * len(cohort) * each < held < len(cohort) * each


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
    cohort = [random_masks(GROUPS, NAMES, seed) for seed in range(3)]
    cohort.insert(1, other)
    kinds = alike(cohort, padded=True)
    assert sorted(map(sorted, kinds)) == [[0, 2, 3], [1]]
    use = [sum(m.mean() for m in cohort[i].forward.values()) for i in kinds[0]]
    assert use == sorted(use, reverse=True)


def test_where_nothing_can_be_padded_those_stacked_use_as_many_units_of_every_group() -> None:
    groups = (ChannelGroup(name="g", width=4), ChannelGroup(name="h", width=4))

    def masks(*counts: int) -> Masks:
        """So many units of g for two networks, then of h."""
        rows = [np.arange(4) < count for count in counts]
        return Masks(
            networks=tuple(VirtualNetwork(task=name) for name in NAMES),
            groups=groups,
            forward={"g": np.stack(rows[:2]), "h": np.stack(rows[2:])},
        )

    cohort = [masks(2, 3, 1, 4), masks(3, 2, 1, 4), masks(2, 3, 1, 4), masks(2, 3, 4, 1)]
    assert sorted(alike(cohort, padded=False)) == [[0, 2], [1], [3]]
    assert sorted(alike(cohort, padded=True)[0]) == [0, 1, 2, 3]
