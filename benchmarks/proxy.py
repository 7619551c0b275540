"""How many candidates a minute the proxy scores, against the loop as the paper describes it.

python benchmarks/proxy.py [--setting NAME] [--device cpu|cuda] [--quick] [--json FILE]

In one run, on the same data, candidates, initial weights and mini-batches:

naive  one candidate at a time; at every step the images go through the teacher's trunk and blocks
       (Newell et al. 2019, 4.2); the student computes all channels and multiplies by masks.
ours   features from the cache, candidates side by side, channels that are not used left out.

Settings:

quickstart      the six toy tasks, 180 steps of 16.
mini_decathlon  nine small real tasks (--data-root), 900 steps of 16. Teachers are trained for this
                benchmark for 100 steps and the trunk for 400: how good they are takes no time.
paper           nine tasks, four blocks of 256 channels on 8 x 8 maps, 3,000 steps of 4, on random
                images and untrained teachers: for speed only.

A rate is one over the mean seconds of a candidate: by the clock on a GPU; on a CPU, where both run
on one thread, of the processor, so that other programs do not count. Building caches is not
counted, as it happens once per study. Accuracies differ by rounding, which training amplifies:
beside their largest difference stands that of ours between two seeds of mini-batches.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from partitioning import Masks, SharingSpace, SolverConfig, SpaceConfig
from trainers.data import DataConfig, Split, Task, TaskConfig, load_tasks, normalise
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import Whole, to_channels_last
from trainers.networks import BackboneConfig, bound, build_backbone
from trainers.optim import SGDConfig, learning_rate_at
from trainers.proxy import (
    Evaluation,
    FeatureCache,
    Proxy,
    ProxyConfig,
    build_cache,
    compute_features,
)
from trainers.teachers import TeacherConfig, Trained, pretrain_trunk, train_teacher

TOYS = ("digits", "shapes", "gratings", "colours", "counting", "textures")
MINI = (
    "cifar10", "gtsrb", "chars74k36", "sign_digits", "fashion_mnist", "omniglot100", "dtd10",
    "trashnet6", "kannada_mnist",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is scored."""

    backbone: BackboneConfig
    input_size: int
    proxy: ProxyConfig
    precision: str
    candidates: int  # of ours; the naive loop scores the first `naive` of them
    naive: int


def sgd(steps: int, batch_size: int) -> SGDConfig:
    """The paper's: learning rate 1, a tenth of it after two thirds."""
    return SGDConfig(
        steps=steps, batch_size=batch_size, learning_rate=1.0, momentum=0.0, weight_decay=1e-5,
        schedule="step", drops=(2 / 3,),
    )  # fmt: skip


SETTINGS = {
    "quickstart": Setting(
        backbone=BackboneConfig(model="resnet14", args={"width": 16}),
        input_size=16,
        proxy=ProxyConfig(images=512, sgd=sgd(180, 16)),
        precision="fp32",
        candidates=8,
        naive=8,
    ),
    "mini_decathlon": Setting(
        backbone=BackboneConfig(model="resnet26", args={"width": 16}),
        input_size=32,
        proxy=ProxyConfig(images=1024, sgd=sgd(900, 16)),
        precision="bf16",
        candidates=8,
        naive=4,
    ),
    "paper": Setting(
        backbone=BackboneConfig(model="resnet26", args={"width": 64}),
        input_size=32,
        proxy=ProxyConfig(images=1024, sgd=sgd(3000, 4)),
        precision="bf16",
        candidates=1000,
        naive=2,
    ),
}


def load(name: str, setting: Setting, root: str) -> tuple[dict[str, Task], Task | None]:
    """The tasks, and what the trunk is pretrained on."""
    if name == "paper":
        rng = np.random.default_rng(0)
        return {
            f"task{i}": random_task(f"task{i}", setting.input_size, rng) for i in range(9)
        }, None
    names, source = (TOYS, "toy") if name == "quickstart" else (MINI, "parquet")
    trunk = "glyphs" if name == "quickstart" else "tinyimagenet100"

    def config(tasks: tuple[str, ...]) -> DataConfig:
        return DataConfig(
            tasks=tuple(TaskConfig(name=task, source=source) for task in tasks),
            root=root,
            input_size=setting.input_size,
        )

    return load_tasks(config(names)), load_tasks(config((trunk,)))[trunk]


def random_task(name: str, size: int, rng: np.random.Generator) -> Task:
    """Noise with labels, as many images as the paper's smallest tasks have."""
    splits = {}
    for split, count in (("train", 1024), ("validation", 512)):
        images = rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
        splits[split] = Split(
            images=torch.from_numpy(images), labels=torch.from_numpy(rng.integers(0, 10, count))
        )
    classes = tuple(map(str, range(10)))
    return Task(
        name=name, splits=splits, classes=classes, mean=torch.full((3,), 0.5), std=torch.ones(3)
    )


def untrained(config: BackboneConfig, task: Task) -> Trained:
    """A network as it is initialised."""
    state = build_backbone(config, task.size).initial(task.num_classes, 0)
    return Trained(state=state, accuracy=0.0, digest=task.name)


def prepare(
    tasks: Mapping[str, Task], source: Task | None, setting: Setting, compute: ComputeConfig
) -> tuple[Trained, dict[str, Trained], FeatureCache]:
    """Trunk, teachers and cached features."""
    backbone, proxy = setting.backbone, setting.proxy
    if source is None:
        teachers = {name: untrained(backbone, task) for name, task in tasks.items()}
        trunk = teachers[next(iter(teachers))]
    else:
        short = SGDConfig(steps=400, batch_size=64, learning_rate=0.1, warmup=0.1)
        trunk = pretrain_trunk(backbone, source, short, seed=0, compute=compute)
        teacher = TeacherConfig(sgd=replace(short, steps=100))
        teachers = {
            name: train_teacher(backbone, trunk, task, teacher, seed=0, compute=compute)
            for name, task in tasks.items()
        }
    features = {
        name: compute_features(
            backbone, teachers[name], task, images=proxy.images, seed=proxy.seed, compute=compute
        )
        for name, task in tasks.items()
    }
    cache = build_cache(backbone, trunk, features, input_size=setting.input_size)
    return trunk, teachers, cache


def candidates(setting: Setting, tasks: Mapping[str, Task], count: int) -> list[Masks]:
    """Random candidates as a search proposes them first."""
    space = SharingSpace(
        tasks=tuple(tasks),
        groups=build_backbone(setting.backbone, setting.input_size).groups,
        config=SpaceConfig(),
        solver=SolverConfig(gap=0.02),
    )
    rng = np.random.default_rng(0)
    return [space.decode(rng.random(space.dim)).masks for _ in range(count)]


class Naive:
    """The loop as the paper describes it."""

    def __init__(
        self,
        tasks: Mapping[str, Task],
        trunk: Trained,
        teachers: Mapping[str, Trained],
        setting: Setting,
        compute: ComputeConfig,
    ) -> None:
        self.backbone = build_backbone(setting.backbone, setting.input_size)
        self.trunk, self.precision = trunk, compute.precision
        self.device = resolve_device(compute.device)
        self.tasks = {name: task.to(self.device) for name, task in tasks.items()}
        self.teachers, self.chosen = {}, {}
        for name, task in self.tasks.items():
            self.teachers[name] = Whole(self.backbone, teachers[name].state, self.device).eval()
            # The images that the cache has, in its order.
            proxy = setting.proxy
            count = len(task.splits["train"])
            order = np.random.default_rng(proxy.seed).permutation(count)[: proxy.images]
            self.chosen[name] = torch.from_numpy(np.sort(order)).to(self.device)

    def score(self, masks: Masks, config: ProxyConfig) -> dict[str, float]:
        """Validation accuracy by task."""
        names = [network.task for network in masks.networks]
        own = self.backbone.own
        shared = Whole(self.backbone, self.trunk.state, self.device).tail
        weights = {n: p for n, p in shared.named_parameters() if n not in own}
        self.tails = []
        for row, name in enumerate(names):
            norms = Whole(self.backbone, self.teachers[name].state(), self.device).tail
            norms = {n: t for n, t in norms.state_dict(keep_vars=True).items() if n in own}
            tail = bound(self.backbone.tail, {**weights, **norms})
            for group in masks.groups:
                # What the convolution behind reads is multiplied by the mask.
                mask_C = torch.tensor(masks.forward[group.name][row], dtype=torch.float32)
                mask_C11 = mask_C.to(self.device)[:, None, None]
                tail.get_submodule(group.name.replace("conv1", "conv2")).register_forward_pre_hook(
                    lambda _, args, mask_C11=mask_C11: args[0] * mask_C11
                )
            self.tails.append(tail)
        every = {id(p): p for tail in self.tails for p in tail.parameters()}
        optimizer = torch.optim.SGD(
            list(every.values()), lr=1.0, weight_decay=config.sgd.weight_decay
        )
        rng = np.random.default_rng(config.seed)
        for tail in self.tails:
            tail.train()
        for step in range(config.sgd.steps):
            row = step % len(names)
            count = len(self.chosen[names[row]])
            index = torch.from_numpy(rng.integers(count, size=config.sgd.batch_size))
            x, targets = self.teach(
                names[row], "train", self.chosen[names[row]][index.to(self.device)]
            )
            with autocast(self.device, self.precision):
                features, _ = self.tails[row](x)
            loss = sum(
                F.mse_loss(f.float(), t.float()) for f, t in zip(features, targets, strict=True)
            )
            assert isinstance(loss, Tensor)
            optimizer.param_groups[0]["lr"] = learning_rate_at(config.sgd, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return {name: self.accuracy(row, name, config) for row, name in enumerate(names)}

    @torch.no_grad()
    def teach(self, name: str, split: str, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the teacher's trunk and blocks make of images."""
        images, _ = self.tasks[name].splits[split].take(index)
        with autocast(self.device, self.precision):
            x = self.teachers[name].trunk(to_channels_last(normalise(images, self.tasks[name])))
            return x, self.teachers[name].tail(x)[0]

    @torch.no_grad()
    def accuracy(self, row: int, name: str, config: ProxyConfig) -> float:
        """Accuracy of the teacher's head on the student, whose norms are measured first."""
        tail = self.tails[row]
        for child in tail.modules():
            if isinstance(child, torch.nn.BatchNorm2d):
                child.momentum = 1.0
        tail.train()
        count = len(self.chosen[name])
        evenly = np.linspace(0, count - 1, min(count, config.norm_images)).astype(int)
        with autocast(self.device, self.precision):
            tail(self.teach(name, "train", self.chosen[name][torch.from_numpy(evenly)])[0])
        tail.eval()
        labels = self.tasks[name].splits["validation"].labels
        correct, batch = 0, self.backbone.batch
        for start in range(0, len(labels), batch):
            part = torch.arange(start, min(start + batch, len(labels)))
            with autocast(self.device, self.precision):
                _, features = tail(self.teach(name, "validation", part)[0])
            logits = self.teachers[name].head(features.float())
            correct += int((logits.argmax(dim=1) == labels[part]).sum())
        return correct / len(labels)


def tail_flops(setting: Setting, masks: Masks, config: ProxyConfig, evaluated: int) -> float:
    """Arithmetic that a candidate needs: of used channels, three passes a step and one to test."""
    backbone = build_backbone(setting.backbone, setting.input_size)
    none = np.zeros((1, backbone.division.units), dtype=np.bool_)
    least = none | ~backbone.divided
    rows = backbone.counter.count(np.concatenate([backbone.kept(masks), least])).macs
    per_image = 2 * float(rows[:-1].mean() - rows[-1])
    return per_image * (3 * config.sgd.steps * config.sgd.batch_size + evaluated)


def seconds(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Time of a call: of the processor, or by the clock for work that is done on a GPU."""
    if device.type == "cpu":
        started = time.process_time()
        result = run()
        return time.process_time() - started, result
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    result = run()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started, result


def main() -> None:
    """Print the result; `--json` also writes it to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setting", choices=SETTINGS, default="quickstart")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--candidates", type=int, metavar="N", help="how many to score")
    parser.add_argument("--quick", action="store_true", help="two candidates, a tenth of the steps")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    setting = SETTINGS[options.setting]
    config, count, naive_count = setting.proxy, setting.candidates, setting.naive
    if options.quick:
        config = replace(config, sgd=replace(config.sgd, steps=config.sgd.steps // 10))
        count = naive_count = 2
    count = options.candidates or count
    naive_count = min(count, naive_count)
    compute = ComputeConfig(device=options.device, precision=setting.precision)
    device = resolve_device(compute.device)
    torch.set_num_threads(compute.threads)

    tasks, source = load(options.setting, setting, options.data_root)
    trunk, teachers, cache = prepare(tasks, source, setting, compute)
    cohort = candidates(setting, tasks, count)
    naive = Naive(tasks, trunk, teachers, setting, compute)
    proxy = Proxy(cache, config, compute)
    warm = replace(config, sgd=replace(config.sgd, steps=2 * len(tasks)), norm_images=16)
    naive.score(cohort[0], warm)
    Proxy(cache, warm, compute).score(cohort[:8])

    naive_s = ours_s = 0.0
    expected, scored = [], []
    # Turn and turn about, so that what else the machine does falls on both; a GPU takes all in one.
    turns = naive_count if device.type == "cpu" else 1
    for turn in range(turns):
        for masks in cohort[turn:naive_count:turns]:
            taken, accuracy = seconds(lambda masks=masks: naive.score(masks, config), device)
            naive_s += taken
            expected.append(accuracy)
        part = cohort[turn::turns]
        taken, results = seconds(lambda part=part: proxy.score(part), device)
        ours_s += taken
        scored += results
    order = [i for turn in range(turns) for i in range(turn, count, turns)]
    scored = [scored[order.index(i)] for i in range(count)]
    order = [i for turn in range(turns) for i in range(turn, naive_count, turns)]
    expected = [expected[order.index(i)] for i in range(naive_count)]
    largest_cohort, peak = proxy.largest_cohort, proxy.peak_bytes
    other = proxy.score(cohort[:naive_count], replace(config, seed=config.seed + 1))
    got = [e.accuracy for e in scored if isinstance(e, Evaluation)]
    seeds = [e.accuracy for e in other if isinstance(e, Evaluation)]

    def largest(a: list[Mapping[str, float]], b: list[Mapping[str, float]]) -> float:
        pairs = zip(a, b, strict=False)
        return max((abs(x[name] - y[name]) for x, y in pairs for name in x), default=float("nan"))

    evaluated = sum(len(task.splits["validation"]) for task in tasks.values()) / len(tasks)
    flops = sum(tail_flops(setting, masks, config, int(evaluated)) for masks in cohort)
    if device.type == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "setting": options.setting,
        "naive_candidates_per_min": 60 * naive_count / naive_s,
        "ours_candidates_per_min": 60 * count / ours_s,
        "ratio": (naive_s / naive_count) / (ours_s / count),
        "max_abs_accuracy_difference": largest(expected, got),
        "max_abs_difference_of_seeds": largest(got, seeds),
        "mean_accuracy_difference": float(
            np.mean(
                [
                    np.mean(list(g.values())) - np.mean(list(e.values()))
                    for g, e in zip(got, expected, strict=False)
                ]
            )
        ),
        "cohort": largest_cohort,
        "achieved_tflops": flops / ours_s / 1e12,
        "peak_memory_gib": peak / 2**30,
        "steps": config.sgd.steps,
        "n": [naive_count, count],
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
