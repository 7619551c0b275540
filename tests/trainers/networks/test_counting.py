"""What rows cost against what torch counts of them, each as a network of its own."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.foreign import NETWORKS
from tests.trainers.networks.test_rows import divided, draw, tensors
from trainers.networks.counting import Counter
from trainers.networks.division import NORMS
from trainers.networks.row import Row


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_parameters_and_macs_are_those_of_the_row_alone(name: str) -> None:
    model, images, division = divided(name)
    counter = Counter(model, division, images)
    kept_RU = np.stack([draw(division, seed, streams=seed > 1) for seed in range(4)])
    counts = counter.count(kept_RU)
    for row, kept in enumerate(kept_RU):
        alone = Row(model, division, kept).alone(tensors(model))
        assert counts.parameters[row] == sum(value.numel() for value in alone.parameters())
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
            alone(images)
        assert counts.macs[row] == counted.get_total_flops() // 2 // len(images)


@pytest.mark.parametrize("name", ["resnet18", "vit", "residual"])
def test_the_union_is_what_any_row_reads(name: str) -> None:
    model, images, division = divided(name)
    counter = Counter(model, division, images)
    kept_RU = np.stack([draw(division, seed, streams=True) for seed in range(3)])
    read = {n: torch.zeros(v.shape, dtype=torch.bool) for n, v in model.named_parameters()}
    norms = 0
    modules = [n for n, module in model.named_modules() if isinstance(module, NORMS)]
    own = {f"{n}.{tensor}" for n in modules for tensor in ("weight", "bias")}
    for kept in kept_RU:
        positions = {n: torch.arange(value.numel()).view(value.shape) for n, value in read.items()}
        for each, found in Row(model, division, kept).gather(positions).items():
            read[each].view(-1)[found.flatten()] = True
            norms += found.numel() * (each in own)
    shared = sum(int(value.sum()) for each, value in read.items() if each not in own)
    assert counter.count(kept_RU).union == shared + norms
