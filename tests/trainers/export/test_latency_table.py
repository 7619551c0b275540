"""What networks take, by a table of layers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.masks import random_masks
from tests.helpers.small_networks import BACKBONE, BUILT, COMPUTE
from trainers.export import LatencyTable, measure_latency, measure_rows
from trainers.export.latency_table import FITTED, HELD_OUT, SHARES, _divided, _drawn, _fit, _smaller
from trainers.networks import LAYERS, Backbone, BackboneConfig, Row, build_backbone, used_by

NETWORKS = {
    "residual": BACKBONE,
    "streams": BackboneConfig(model="resnet14", args={"width": 8}, stream=True),
    "groups": BackboneConfig(
        model="resnext29", args={"groups": 4, "width": 4}, partition=("stage*",)
    ),
    "others": BackboneConfig(model="tests.helpers.foreign:Residual", partition=("blocks.*",)),
    "linear": BackboneConfig(
        model="simple_convnet", args={"size": 16, "width": 8}, partition=("blocks.*",), stream=True
    ),
}


def measured_as(backbone: Backbone, price: float = 1.0) -> LatencyTable:
    """A table in which a layer takes what its outputs times its inputs cost."""
    layers = [n for n, m in backbone.model.named_modules() if isinstance(m, LAYERS)]
    milliseconds = {}
    for name in layers:
        outs, ins = (SHARES if owner is not None else (1.0,) for owner in _divided(backbone, name))
        milliseconds[name] = tuple(tuple(price * o * i for i in ins) for o in outs)
    return LatencyTable(
        device="", batch=1, threads=1, milliseconds=milliseconds, coefficients=(2.0, 3.0), error=0
    )


def half_of_all(backbone: Backbone) -> NDArray[np.bool_]:
    kept = np.ones(backbone.division.units, dtype=np.bool_)
    for each in backbone.division.groups:
        if each.group.name in {group.name for group in backbone.groups}:
            kept[each.units] = np.arange(each.group.width) < each.group.width // 2
    return kept


def shares_of(backbone: Backbone, layer: str, kept: NDArray[np.bool_]) -> list[float]:
    """Of a layer's outputs and inputs; all of those that masks do not divide."""
    owners = _divided(backbone, layer)
    return [1.0 if o is None else float(used_by(o, kept).mean()) for o in owners]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_timed_is_as_large_as_the_layers_of_exports(name: str) -> None:
    backbone = build_backbone(NETWORKS[name], 16)
    kept = half_of_all(backbone)
    row = Row(backbone.model, backbone.division, kept).module
    smaller = 0
    for layer, module in backbone.model.named_modules():
        if not isinstance(module, LAYERS) or layer in backbone.of_head[0]:
            continue
        shares = shares_of(backbone, layer, kept)
        made, taken = _smaller(module, *shares)
        real = row.get_submodule(layer)
        for size in ("in_features", "out_features", "in_channels", "out_channels", "groups"):
            if hasattr(real, size):
                assert getattr(made, size) == getattr(real, size), (layer, size)
        assert taken == getattr(made, "in_features", None) or taken == made.in_channels
        smaller += min(shares) < 1
    assert smaller


def test_times_of_rows_follow_the_table() -> None:
    backbone = build_backbone(NETWORKS["streams"], 16)
    table = measured_as(backbone)
    whole_1U = np.ones((1, backbone.division.units), dtype=np.bool_)
    assert table.sums(backbone, whole_1U) == pytest.approx([len(table.milliseconds)])
    half = half_of_all(backbone)
    # Between what was timed on straight lines; here exact, as products are straight each way.
    other = _drawn(backbone, np.random.default_rng(0))[1]
    expected = []
    for kept in (half, whole_1U[0], other):
        shares = [shares_of(backbone, layer, kept) for layer in table.milliseconds]
        assert np.min(shares) >= SHARES[0]
        expected.append(sum(outs * ins for outs, ins in shares))
    assert table.sums(backbone, np.stack([half, whole_1U[0], other])) == pytest.approx(expected)


def test_latency_of_masks_is_relative_to_the_whole_network() -> None:
    table = measured_as(BUILT)
    masks = random_masks(BUILT.groups, ("a", "b"), 0, use=0.4)
    sums_R = table.sums(BUILT, BUILT.kept(masks))
    assert table.of_masks(BUILT, masks) == pytest.approx(2 + 3 * sums_R)
    whole = 2 + 3 * len(table.milliseconds)
    assert table.relative(BUILT, masks) == pytest.approx(np.mean(2 + 3 * sums_R) / whole)
    everything = random_masks(BUILT.groups, ("a", "b"), 0, use=1.0)
    assert table.relative(BUILT, everything) == pytest.approx(1.0)


def test_coefficients() -> None:
    sums = np.linspace(1, 9, 12)
    assert _fit(sums, 0.5 + 2 * sums) == pytest.approx((0.5, 2))
    assert _fit(sums, 2 * sums - 0.5)[0] == 0
    fixed, each = _fit(sums, 20 - sums)
    assert fixed > 10
    assert each == 0


def test_measured_here() -> None:
    table = measure_latency(BACKBONE, 8, 2, COMPUTE)
    layers = {n for n, m in BUILT.model.named_modules() if isinstance(m, LAYERS)}
    assert set(table.milliseconds) == layers - {"head"}
    assert all(ms > 0 for rows in table.milliseconds.values() for row in rows for ms in row)
    twins = [table.milliseconds[f"stage1.{block}.conv1"] for block in (0, 1)]
    assert twins[0] == twins[1]  # equal layers, timed once
    assert min(table.coefficients) >= 0
    assert max(table.coefficients) > 0
    assert 0 <= table.error < 10
    assert (table.batch, table.threads) == (2, COMPUTE.threads or table.threads)
    assert LatencyTable.of(table.content) == table


def test_networks_that_are_tried_have_all_uses() -> None:
    kept_NU = _drawn(BUILT, np.random.default_rng(0))
    assert len(kept_NU) == FITTED + HELD_OUT
    assert kept_NU[0].all()
    masked = {group.name for group in BUILT.groups}
    uses = [
        kept_NU[:, each.units].mean(axis=1) for each in BUILT.divisible if each.group.name in masked
    ]
    use_N = np.mean(uses, axis=0)
    assert use_N.min() < 0.2
    assert np.sort(use_N)[-2] > 0.7


def test_rows_are_timed_once_for_each_size() -> None:
    pytest.importorskip("onnxruntime")
    half = half_of_all(BUILT)
    other = half.copy()
    for each in BUILT.divisible:
        other[each.units] = half[each.units][::-1]
    whole = np.ones_like(half)
    assert (other != half).any()
    ms_RB = measure_rows(BUILT, np.stack([half, whole, other]), 8, [1, 4])
    assert ms_RB.shape == (3, 2)
    assert (ms_RB > 0).all()
    assert ms_RB[0].tolist() == ms_RB[2].tolist()
    assert ms_RB[0].tolist() != ms_RB[1].tolist()
