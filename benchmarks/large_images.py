"""Memory and time of a large network on large images, from building it to an export.

python benchmarks/large_images.py [--size PIXELS] [--images N] [--device cpu|cuda] [--quick]

A ResNet-50 with random weights, its last third divided between two tasks of random images. Measured
are what is done before a search (finding out what can be divided, features), a candidate's steps
with all channels and with half of them, and what follows (an export). Seconds are those of the
clock, on `--threads` of a CPU; memory is the process's own at its highest, or a GPU's.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partitioning import Masks, VirtualNetwork
from trainers.data import Split, Task
from trainers.device import ComputeConfig, resolve_device
from trainers.export import export_networks
from trainers.network import Network
from trainers.networks import Backbone, BackboneConfig, build_backbone
from trainers.optim import SGDConfig
from trainers.proxy import Proxy, ProxyConfig, build_cache, compute_features, feature_bytes
from trainers.teachers import Trained

TASKS = ("a", "b")


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != 4 * width:
            conv = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


def resnet50() -> nn.Module:
    """ResNet-50 (He et al. 2016)."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(Bottleneck(inputs, 64 * 2**stage, stride))
            inputs = 4 * 64 * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


def random_task(name: str, size: int, images: int) -> Task:
    """Noise with labels."""
    rng = np.random.default_rng(0)
    splits = {
        split: Split(
            images=torch.from_numpy(rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8)),
            labels=torch.from_numpy(rng.integers(0, 10, count)),
        )
        for split, count in (("train", images), ("validation", images // 2))
    }
    classes = tuple(map(str, range(10)))
    return Task(
        name=name, classes=classes, splits=splits, mean=torch.full((3,), 0.5), std=torch.ones(3)
    )


def masks(backbone: Backbone, share: float) -> Masks:
    """Both tasks use the first channels of every group."""
    forward = {
        group.name: np.tile(np.arange(group.width) < share * group.width, (len(TASKS), 1))
        for group in backbone.groups
    }
    networks = tuple(VirtualNetwork(task=name) for name in TASKS)
    return Masks(networks=networks, groups=backbone.groups, forward=forward)


def seconds(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Time of a call by the clock, and what it returned."""
    started = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result


def main() -> None:
    """Print the result; `--json` also writes it to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=256, help="training images of each task")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="32 images of 64 pixels, 4 steps")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.size, options.images, options.steps = 64, 32, 4
    torch.set_num_threads(options.threads)
    compute = ComputeConfig(
        device=options.device, precision=options.precision, threads=options.threads
    )
    device = resolve_device(compute.device)
    config = BackboneConfig(model=f"{__name__}:resnet50")

    built_s, backbone = seconds(lambda: build_backbone(config, options.size), device)
    tasks = {name: random_task(name, options.size, options.images) for name in TASKS}
    trained = Trained(state=backbone.initial(10, 0), accuracy=0.0, digest="")
    features_s, features = seconds(
        lambda: {
            name: compute_features(
                config, trained, task, images=options.images, seed=0, compute=compute
            )
            for name, task in tasks.items()
        },
        device,
    )
    cache = build_cache(config, trained, features, input_size=options.size)
    sgd = SGDConfig(steps=options.steps, batch_size=16, learning_rate=0.1, momentum=0.0)
    proxy = Proxy(cache, ProxyConfig(images=options.images, sgd=sgd), compute)
    few = ProxyConfig(images=options.images, sgd=SGDConfig(steps=2, batch_size=16))
    step_ms = {}
    for share in (1.0, 0.5):
        cohort = [masks(backbone, share)]
        proxy.score(cohort, few)  # the first time chooses algorithms
        around, _ = seconds(lambda cohort=cohort: proxy.score(cohort, few), device)
        taken, _ = seconds(lambda cohort=cohort: proxy.score(cohort), device)
        step_ms[f"{share:g}"] = 1000 * (taken - around) / (options.steps - 2)
    network = Network(
        backbone,
        masks(backbone, 0.5),
        [10, 10],
        shared=trained.state,
        norms=[trained.state] * 2,
        seed=0,
        device=torch.device("cpu"),
    )
    with tempfile.TemporaryDirectory() as folder:
        export_s, _ = seconds(lambda: export_networks(network, tasks, Path(folder)), device)
        size = sum(path.stat().st_size for path in Path(folder).glob("a/network.pt2"))
    images = sum(len(split) for task in tasks.values() for split in task.splits.values())
    each = feature_bytes(backbone, train_images=1, validation_images=0)
    peak = (
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "size": options.size,
        "precision": options.precision,
        "build_s": built_s,
        "features_ms_per_image": 1000 * features_s / images,
        "features_kib_per_training_image": each / 1024,
        "step_ms_by_use": step_ms,
        "export_s_per_network": export_s / len(TASKS),
        "exported_mib_at_half": size / 2**20,
        "peak_memory_gib": peak / 2**30,
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
