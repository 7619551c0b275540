"""What virtual networks take for images on a device, from a table of layers measured once.

As hardware-aware searches do (NetAdapt, Yang et al. 2018, section 3.3): each layer is timed alone,
for some shares of its outputs and inputs; equal layers once. The time of a network is affine in the
sum of those of its layers,

    t = c_0 + c_1 sum_l t_l(outputs, inputs),

with coefficients of at least 0 that are fitted to some whole networks, as they are exported (unused
channels removed, norms folded), and held against others.
"""

import functools
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from partitioning import FloatArray, Masks
from trainers.device import ComputeConfig, resolve_device
from trainers.export.compact import row_program
from trainers.export.latency import latencies, processor, torch_threads
from trainers.export.onnx_files import OnnxNetwork, require_onnx, to_onnx
from trainers.networks import (
    LAYERS,
    Backbone,
    BackboneConfig,
    Owner,
    build_backbone,
    used_by,
)

#: Shares of a layer's outputs and inputs that are timed.
SHARES = (0.0625, 0.125, 0.25, 0.5, 0.75, 1.0)
#: Whole networks that coefficients are fitted to, and that they are held against.
FITTED, HELD_OUT = 12, 6


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Times of a backbone's layers, and how those of networks follow from them.

    Attributes:
        device: That they were measured on, as it calls itself.
        batch: Images at a time.
        threads: Of the processor.
        milliseconds: Of each layer, by `SHARES` of outputs (rows), then of inputs; one row, or one
            column, where masks do not divide these.
        coefficients: c_0 in milliseconds, and c_1.
        error: Median relative error on networks that were not fitted.
    """

    device: str
    batch: int
    threads: int
    milliseconds: Mapping[str, tuple[tuple[float, ...], ...]]
    coefficients: tuple[float, float]
    error: float

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """What `content` gave, read back."""
        tables = {n: tuple(map(tuple, t)) for n, t in content["milliseconds"].items()}
        fitted = tuple(content["coefficients"])
        return cls(**{**content, "coefficients": fitted, "milliseconds": tables})

    @property
    def content(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        return asdict(self)

    def of_masks(self, backbone: Backbone, masks: Masks) -> FloatArray:
        """(R,): milliseconds that each virtual network takes for a batch."""
        return self._of(backbone, backbone.kept(masks))

    def relative(self, backbone: Backbone, masks: Masks) -> float:
        """The mean over virtual networks, relative to the network without masks."""
        whole_1U = np.ones((1, backbone.division.units), dtype=np.bool_)
        return float(self.of_masks(backbone, masks).mean() / self._of(backbone, whole_1U)[0])

    def _of(self, backbone: Backbone, kept_RU: NDArray[np.bool_]) -> FloatArray:
        fixed, each = self.coefficients
        return fixed + each * self.sums(backbone, kept_RU)

    def sums(self, backbone: Backbone, kept_RU: NDArray[np.bool_]) -> FloatArray:
        """(R,): the layers' times together, between those that were measured by straight lines."""
        kept_RU = backbone.division.alone(kept_RU)
        sums_R = np.zeros(len(kept_RU))
        for name, table in self.milliseconds.items():
            outs_R, ins_R = (
                np.ones(len(kept_RU)) if owner is None else used_by(owner, kept_RU).mean(axis=1)
                for owner in _divided(backbone, name)
            )
            by_outs_RI = np.stack([_at(outs_R, each) for each in np.array(table).T], axis=1)
            for row in range(len(kept_RU)):
                sums_R[row] += _at(ins_R[row : row + 1], by_outs_RI[row])[0]
        return sums_R


def measure_latency(
    config: BackboneConfig, size: int, batch: int, compute: ComputeConfig, seed: int = 0
) -> LatencyTable:
    """Time layers and some whole networks on the device that computes, in float32.

    Args:
        config: The network.
        size: Height and width of its images, in pixels.
        batch: Images at a time.
        compute: Device and threads.
        seed: Draws the networks.
    """
    backbone, device = build_backbone(config, size), resolve_device(compute.device)
    on_gpu, threads = device.type == "cuda", compute.threads or os.cpu_count() or 1
    images = torch.zeros(batch, 3, size, size, device=device)
    example = torch.zeros(2, *images.shape[1:])
    kept_NU = _drawn(backbone, np.random.default_rng(seed))
    with torch_threads(threads), torch.no_grad():
        table = LatencyTable(
            device=torch.cuda.get_device_name(device) if on_gpu else processor(),
            batch=batch,
            threads=threads,
            milliseconds=_layers(backbone, images),
            coefficients=(0.0, 1.0),
            error=math.nan,
        )
        taken = latencies(
            {
                n: _run(row_program(backbone, kept, example, folded=True).module(), images)
                for n, kept in enumerate(kept_NU)
            }
        )
    taken_N = np.array([taken[n] for n in range(len(kept_NU))])
    sums_N = table.sums(backbone, kept_NU)
    fixed, each = _fit(sums_N[:FITTED], taken_N[:FITTED])
    error_N = np.abs((fixed + each * sums_N) / taken_N - 1)
    return replace(table, coefficients=(fixed, each), error=float(np.median(error_N[FITTED:])))


def measure_rows(
    backbone: Backbone,
    kept_RU: NDArray[np.bool_],
    size: int,
    batches: Sequence[int],
    *,
    threads: int = 1,
) -> FloatArray:
    """Time rows in ONNX Runtime as they are exported, without heads, all in turns.

    Args:
        backbone: The network.
        kept_RU: The units of each row.
        size: Height and width of images, in pixels.
        batches: Images at a time.
        threads: Of the processor.

    Returns:
        (R, B): milliseconds. Rows with as many units of every group are timed once.

    Raises:
        MissingLibraryError: ONNX Runtime is not installed.
    """
    require_onnx()
    groups = [each.units for each in backbone.division.groups]
    sizes_RG = np.stack([kept_RU[:, units].sum(axis=1) for units in groups], axis=1)
    _, first_N, of_R = np.unique(sizes_RG, axis=0, return_index=True, return_inverse=True)
    images = torch.zeros(2, 3, size, size)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for row in first_N:
            path = Path(folder) / "network.onnx"
            path.write_bytes(
                to_onnx(
                    row_program(backbone, kept_RU[row], images, folded=True), {}
                ).SerializeToString()
            )
            runs.append(OnnxNetwork(path, threads))
    found = []
    for batch in batches:
        given = torch.zeros(batch, *images.shape[1:])
        taken = latencies({n: functools.partial(run, given) for n, run in enumerate(runs)})
        found.append([taken[n] for n in of_R.reshape(-1).tolist()])
    return np.array(found).T


def _layers(backbone: Backbone, images: Tensor) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Times of every layer, by shares of its outputs and inputs."""
    layers = {n: m for n, m in backbone.model.named_modules() if isinstance(m, LAYERS)}
    shapes: dict[str, torch.Size] = {}

    def note(name: str, given: Tensor) -> None:
        shapes[name] = given.shape[1:]

    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0]))
        for name, layer in layers.items()
    ]
    try:
        backbone.tail(backbone.trunk(torch.zeros_like(images[:2], device="cpu")))
    finally:
        for hook in hooks:
            hook.remove()
    runs: dict[str, Callable[[], object]] = {}
    keys: dict[str, list[list[str]]] = {}
    for name, shape in shapes.items():
        outs, ins = ((1.0,) if owner is None else SHARES for owner in _divided(backbone, name))
        keys[name] = [[""] * len(ins) for _ in outs]
        for o, i in np.ndindex(len(outs), len(ins)):
            layer, taken = _smaller(layers[name], outs[o], ins[i])
            own = (*shape[:-1], taken) if isinstance(layer, nn.Linear) else (taken, *shape[1:])
            keys[name][o][i] = key = f"{layer} of {own}"
            if key not in runs:
                given = torch.zeros(len(images), *own, device=images.device)
                runs[key] = _run(layer, given)
    taken_by = latencies(runs)
    return {
        name: tuple(tuple(taken_by[key] for key in row) for row in rows)
        for name, rows in keys.items()
    }


@functools.lru_cache(maxsize=1024)
def _divided(backbone: Backbone, layer: str) -> tuple[Owner | None, Owner | None]:
    """The units of a layer's outputs and of its inputs, where masks divide them."""
    nothing = {group.name: np.zeros(group.width, dtype=np.bool_) for group in backbone.groups}
    left_U = backbone.division.kept(nothing)
    axes = backbone.division.axes.get(f"{layer}.weight", {})
    outs, ins = (
        axes[dim] if dim in axes and not used_by(axes[dim], left_U).all() else None
        for dim in (0, 1)
    )
    return outs, ins


def _smaller(layer: nn.Module, outs: float, ins: float) -> tuple[nn.Module, int]:
    """A layer with shares of its outputs and inputs, and how many inputs it has."""
    if isinstance(layer, nn.Linear):
        taken = _part(layer.in_features, ins)
        bias = layer.bias is not None
        return nn.Linear(taken, _part(layer.out_features, outs), bias), taken
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    taken, given = _part(layer.in_channels, ins), _part(layer.out_channels, outs)
    groups = 1 if layer.groups == 1 else _part(layer.groups, outs)
    if layer.groups > 1:
        taken, given = (n // layer.groups * groups for n in (layer.in_channels, layer.out_channels))
    kind: Any = type(layer)
    return kind(
        taken, given, layer.kernel_size, layer.stride, layer.padding, layer.dilation, groups,
        layer.bias is not None, layer.padding_mode,
    ), taken  # fmt: skip


def _part(whole: int, share: float) -> int:
    return max(1, round(share * whole))


def _run(network: nn.Module, images: Tensor) -> Callable[[], object]:
    """What runs a network once, and waits for the device."""
    network.to(images.device)
    if images.device.type != "cuda":
        return functools.partial(network, images)

    def run() -> None:
        network(images)
        torch.cuda.synchronize(images.device)

    return run


def _drawn(backbone: Backbone, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N, units): networks of all uses, each group more or less of it; the first is whole."""
    found = [np.ones(backbone.division.units, dtype=np.bool_)]
    for use in rng.permuted(np.linspace(0.03, 1.0, FITTED + HELD_OUT - 1)):
        shares = {g: min(1.0, use * rng.uniform(0.5, 1.5)) for g in backbone.groups}
        forward = {
            g.name: rng.permutation(g.width) < _part(g.width, own) for g, own in shares.items()
        }
        found.append(backbone.division.kept(forward))
    return np.stack(found)


def _at(shares_N: FloatArray, values: FloatArray) -> FloatArray:
    """(N,): what lies between values at `SHARES`, or the one that there is."""
    many = len(values) > 1
    return np.interp(shares_N, SHARES, values) if many else np.full(len(shares_N), values[0])


def _fit(sums_N: FloatArray, taken_N: FloatArray) -> tuple[float, float]:
    """Coefficients of at least 0 with the least squares of relative errors."""
    own_N2 = np.stack([1 / taken_N, sums_N / taken_N], axis=1)
    (fixed, each), *_ = np.linalg.lstsq(own_N2, np.ones(len(taken_N)))
    if fixed < 0:
        return 0.0, float(own_N2[:, 1].sum() / (own_N2[:, 1] ** 2).sum())
    if each < 0:
        return float(own_N2[:, 0].sum() / (own_N2[:, 0] ** 2).sum()), 0.0
    return float(fixed), float(each)
