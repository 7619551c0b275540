"""Seconds that full training takes for a batch, beside a plain PyTorch loop and LibMTL.

python benchmarks/training_speed.py [--device cpu|cuda] [--libmtl FOLDER] [--json FILE] [--quick]

All train the last stage of an undivided ResNet-26 behind a frozen trunk on tasks of random images,
with SGD and momentum. LibMTL's hard sharing (a checkout in FOLDER) takes a batch of every task a
step; its time is divided by their number. All take turns. Shown are the median over turns, of one
thread of the processor, or by the clock where there is a GPU, and the ratio to the plain loop of
the same turn.
"""

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from partitioning import Masks, VirtualNetwork
from trainers.data import Split, Task
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.joint import RECIPES, TrainConfig, train_jointly
from trainers.networks import BackboneConfig, build_backbone, build_model
from trainers.optim import SGDConfig
from trainers.teachers import Trained

#: Seconds of a batch, given how many.
Contender = Callable[[int], float]
CLASSES = 10


def main() -> None:
    """Print the table; `--json` also writes it to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--width", type=int, default=16, help="of the network's first stage")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="of each in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--libmtl", type=Path, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="a turn of a tiny network")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.width, options.size, options.batch, options.steps = 4, 16, 8, 4
        options.rounds = 1
    torch.set_num_threads(1)
    device = resolve_device(options.device)
    tasks = {f"task{n}": random_task(f"task{n}", options) for n in range(options.tasks)}
    contenders = {
        "plain loop": plain_loop(tasks, options, device),
        "paper, all channels": apportion(tasks, options, device, "paper", 1.0),
        "paper, half the channels": apportion(tasks, options, device, "paper", 0.5),
        "default, all channels": apportion(tasks, options, device, "distilled", 1.0),
        "default, half the channels": apportion(tasks, options, device, "distilled", 0.5),
    }
    if options.libmtl:
        contenders["LibMTL, hard sharing"] = libmtl(tasks, options, device)
    rows = show(take_turns(contenders, options.steps, options.rounds))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


def clock(device: torch.device) -> float:
    """Seconds: of this process's work, or where a GPU works, once it has done all, by the clock."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def take_turns(
    contenders: Mapping[str, Contender], steps: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of a batch by contender, one for every round; a first one is to get warm."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    rng = np.random.default_rng(0)
    for turn in range(rounds + 1):
        for name in rng.permutation(list(contenders)):
            taken = contenders[name](steps if turn else 2)
            if turn:
                found[name].append(taken)
    return found


def show(times: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Print medians and ratios to the first, and return them."""
    base = np.array(next(iter(times.values())))
    rows = []
    print("| | ms a batch | times the plain loop |\n|---|---|---|")
    for name, taken in times.items():
        ratios = np.array(taken) / base
        low, middle, high = (float(q) for q in np.quantile(ratios, (0, 0.5, 1)))
        rows.append({"name": name, "ms": 1000 * float(np.median(taken)), "ratio": middle})
        print(f"| {name} | {rows[-1]['ms']:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    return rows


def random_task(name: str, options: argparse.Namespace) -> Task:
    """Noise with labels."""
    rng = np.random.default_rng(0)
    shape = (3, options.size, options.size)
    splits = {
        split: Split(
            images=torch.from_numpy(rng.integers(0, 256, (count, *shape), dtype=np.uint8)),
            labels=torch.from_numpy(rng.integers(0, CLASSES, count)),
        )
        for split, count in (("train", 8 * options.batch), ("validation", 8))
    }
    half = torch.full((3,), 0.5)
    classes = tuple(map(str, range(CLASSES)))
    return Task(name=name, classes=classes, splits=splits, mean=half, std=half)


def apportion(
    tasks: Mapping[str, Task],
    options: argparse.Namespace,
    device: torch.device,
    recipe: str,
    share: float,
) -> Contender:
    """Full training of masks with the first channels of every group."""
    backbone = BackboneConfig(args={"width": options.width}, partition=("stage3.*",))
    built = build_backbone(backbone, options.size)
    forward = {
        group.name: np.tile(np.arange(group.width) < share * group.width, (len(tasks), 1))
        for group in built.groups
    }
    networks = tuple(VirtualNetwork(task=name) for name in tasks)
    masks = Masks(networks=networks, groups=built.groups, forward=forward)
    trained = Trained(state=built.initial(CLASSES, 0), accuracy=0.0, digest="")
    compute = ComputeConfig(device=options.device, precision=options.precision, threads=1)
    config = TrainConfig(**{**RECIPES[recipe], "evaluations": 1})

    def run(steps: int) -> float:
        sgd = SGDConfig(steps=steps, batch_size=options.batch, learning_rate=0.01)
        begun = clock(device)
        train_jointly(
            masks, tasks, trained, dict.fromkeys(tasks, trained), replace(config, sgd=sgd),
            backbone=backbone, seed=0, compute=compute,
        )  # fmt: skip
        return clock(device) - begun

    def without_the_rest(steps: int) -> float:
        around = run(1)
        return (run(steps + 1) - around) / steps

    return without_the_rest


class Tail(nn.Module):
    """The features of a network whose last stage alone is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        network = build_model("resnet26", {"width": width, "classes": CLASSES})
        self.trunk = nn.Sequential(
            network.conv, network.bn, nn.ReLU(), network.stage1, network.stage2
        )
        self.trunk.requires_grad_(False)
        self.stage3 = network.stage3

    def train(self, mode: bool = True) -> "Tail":
        """Keep the trunk's norms as they are."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to features (B, 4 width)."""
        with torch.no_grad():
            maps = self.trunk(images)
        features: Tensor = self.stage3(maps).mean(dim=(2, 3))
        return features


def plain_loop(
    tasks: Mapping[str, Task], options: argparse.Namespace, device: torch.device
) -> Contender:
    """What one writes without a library: a head for each task, and a task drawn every step."""
    features = Tail(options.width).to(device, memory_format=torch.channels_last)
    heads = nn.ModuleDict({name: nn.Linear(4 * options.width, CLASSES) for name in tasks})
    heads.to(device)
    learnt = [p for part in (features, heads) for p in part.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learnt, lr=0.01, momentum=0.9)
    data = {name: task.splits["train"] for name, task in tasks.items()}
    data = {n: (split.images.to(device), split.labels.to(device)) for n, split in data.items()}
    rng = np.random.default_rng(0)
    half = torch.full((1, 3, 1, 1), 0.5, device=device)

    def run(steps: int) -> float:
        features.train()
        begun = clock(device)
        for _ in range(steps):
            name = list(tasks)[rng.integers(len(tasks))]
            images, labels = data[name]
            taken = torch.randint(len(labels), (options.batch,), device=device)
            batch = (images[taken].float() / 255 - half) / half
            batch = batch.contiguous(memory_format=torch.channels_last)
            with autocast(device, options.precision):
                logits = heads[name](features(batch))
            loss = F.cross_entropy(logits.float(), labels[taken])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if not loss.item() < float("inf"):
                raise FloatingPointError("the loss is not finite")
        return (clock(device) - begun) / steps

    return run


def libmtl(
    tasks: Mapping[str, Task], options: argparse.Namespace, device: torch.device
) -> Contender:
    """LibMTL's trainer with hard sharing and equal weights, on images that it normalised before."""
    sys.path.insert(0, str(options.libmtl))
    from LibMTL import Trainer
    from LibMTL.loss import CELoss
    from LibMTL.metrics import AccMetric

    class OnDevice(Trainer):  # type: ignore[misc]
        """One that is not bound to the first GPU."""

        device = property(lambda self: device, lambda self, value: None)

    def loader(task: Task, count: int) -> DataLoader[Any]:
        split = task.splits["train"]
        images = (split.images[:count].float() / 255 - 0.5) / 0.5
        return DataLoader(TensorDataset(images, split.labels[:count]), options.batch, shuffle=True)

    known = {
        name: {"metrics": ["Acc"], "metrics_fn": AccMetric(), "loss_fn": CELoss(), "weight": [1]}
        for name in tasks
    }
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = OnDevice(
            known, "EW", "HPS", lambda: Tail(options.width),
            nn.ModuleDict({name: nn.Linear(4 * options.width, CLASSES) for name in tasks}),
            rep_grad=False, multi_input=True, scheduler_param=None,
            optim_param={"optim": "sgd", "lr": 0.01, "momentum": 0.9},
            weight_args={}, arch_args={},
        )  # fmt: skip
    few = {name: loader(task, 1) for name, task in tasks.items()}
    batches = 8
    every = {name: loader(task, batches * options.batch) for name, task in tasks.items()}

    def run(steps: int) -> float:
        epochs = max(1, steps // (batches * len(tasks)))
        begun = clock(device)
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train(every, few, epochs)
        return (clock(device) - begun) / (epochs * batches * len(tasks))

    return run


if __name__ == "__main__":
    main()
