"""Features where a device has them: batches in order, read ahead or not."""

import numpy as np
import pytest
import torch

from tests.helpers.small_networks import NAMES
from trainers.proxy import FeatureCache
from trainers.proxy.placement import PlacedFeatures


def test_batches_are_streamed_in_order_whether_ahead_or_not(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = PlacedFeatures(cache, torch.device("cpu"), "fp32")
    assert not placed.on_device
    draws = [(name, np.array([i, 3])) for i in range(3) for name in NAMES]
    direct = list(placed.stream(draws))
    monkeypatch.setattr(placed, "_ahead", True)
    ahead = list(placed.stream(draws))
    assert len(direct) == len(ahead) == len(draws)
    for (name, index), (x, targets), (x_ahead, targets_ahead) in zip(
        draws, direct, ahead, strict=True
    ):
        assert np.array_equal(x.numpy(), cache.tasks[name].inputs[index].astype(np.float32))
        assert torch.equal(x, x_ahead)
        for k, (target, other) in enumerate(zip(targets, targets_ahead, strict=True)):
            expected = cache.tasks[name].targets[k][index].astype(np.float32)
            assert np.array_equal(target.numpy(), expected)
            assert torch.equal(target, other)


def test_an_error_while_reading_ahead_is_raised(cache: FeatureCache) -> None:
    placed = PlacedFeatures(cache, torch.device("cpu"), "fp32")
    placed._ahead = True
    with pytest.raises(IndexError):
        list(placed.stream([("a", np.array([10**6]))]))
