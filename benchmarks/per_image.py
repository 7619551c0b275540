"""How fast batches are in which every image has its own network, beside the undivided network.

python benchmarks/per_image.py [--batch N] [--rounds N] [--json FILE] [--quick]

A WRN-32-1 and a ResNet-14 of width 32 at 32 pixels with three parts in each block, on one thread:
every image with the whole network, with a level of each block drawn at random, or with the levels
that a selector begins with (tau .75), run together block by block as in training and evaluation;
image by image; and the undivided network with every block's hidden maps multiplied by masks of each
image's channels, whose norms all levels share. The undivided network is the reference, in
evaluation and for a step (forward and backward). All take turns, in an order drawn anew every
round; what images' networks have of its multiply-accumulates stands beside it.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from partitioning import Masks
from trainers import policy
from trainers.methods import METHODS, ElasticNetworks, Problem
from trainers.networks import BackboneConfig, build_backbone

#: By name: arguments of the networks.
NETWORKS: dict[str, dict[str, Any]] = {
    "wrn32": {"widen": 1, "stem_stride": 2},
    "resnet14": {"width": 32, "stem_stride": 2},
}
SIZE, CLASSES = 32, 10


def main() -> None:
    """Print a line per network and way; `--json` also writes them to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images (64)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="turns of each (20)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="two turns of a small batch")
    options = parser.parse_args()
    batch, rounds = (4, 2) if options.quick else (options.batch, options.rounds)
    torch.set_num_threads(1)
    rows = [row for model in NETWORKS for row in measure(model, batch, rounds)]
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


def networks_of(model: str) -> ElasticNetworks:
    """One task's networks, as training begins with them."""
    config = BackboneConfig(model=model, args=NETWORKS[model], partition=("stage*",), trunk="train")
    backbone = build_backbone(config, SIZE)
    problem = Problem(tasks=("task",), backbone=backbone, seed=0, masks=Masks.load)
    plan = METHODS["den"].build(problem, METHODS["den"].settings())
    part = plan.parts["all"]
    rows = len(part.masks.networks)
    found = part.networks(
        backbone, [CLASSES] * rows, state=backbone.initial(2, 0), sizes=[SIZE] * rows, seed=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert isinstance(found, ElasticNetworks)
    return found


def measure(model: str, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Time all ways of a network, and print a line for each."""
    part = networks_of(model)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, SIZE, SIZE, generator=generator)
    shape = batch, len(part.blocks)
    highest = part.part.levels - 1
    drawn = torch.rand(shape, generator=generator)
    begun = policy.initial(0.75, part.part.levels).expand(*shape, -1)
    levels = {
        "whole": torch.full(shape, highest),
        "as it begins": policy.draw(begun, drawn),
        "at random": policy.draw_any(drawn, part.part.levels),
    }
    row = part.row_of("task", highest)
    module = part.rows[row].row.module

    def undivided(training: bool) -> Tensor:
        module.train(training)
        return part(images, row)

    def one_by_one() -> Tensor:
        own = levels["at random"]
        return torch.cat(
            [part.chosen(images[at : at + 1], "task", own[at : at + 1]) for at in range(batch)]
        )

    ways: dict[str, Callable[[bool], Tensor]] = {"undivided": undivided}
    for name, own in levels.items():
        ways[name] = lambda training, own=own: part.chosen(  # type: ignore[misc]
            images, "task", own, training=training
        )
    masked = masked_norms(part, module, levels["at random"])

    def by_masks(training: bool) -> Tensor:
        hooks = [
            norm.register_forward_hook(lambda _, args, out, mask=mask: out * mask)
            for norm, mask in masked
        ]
        try:
            return undivided(training)
        finally:
            for hook in hooks:
                hook.remove()

    ways["at random, by masks"] = by_masks
    ways["at random, one by one"] = lambda training: one_by_one()
    macs = {name: _macs(part, own) for name, own in levels.items()}
    macs |= {"undivided": macs["whole"]}
    macs |= {f"at random, {how}": macs["at random"] for how in ("by masks", "one by one")}
    timed = [(name, training) for name in ways for training in (False, True)]
    timed.remove(("at random, one by one", True))
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in timed}
    rng = np.random.default_rng(0)
    for turn in range(rounds + 1):
        for number in rng.permutation(len(timed)):
            name, training = timed[number]
            started = time.process_time()
            with torch.set_grad_enabled(training):
                found = ways[name](training)
                if training:
                    found.square().mean().backward()
            if turn:  # the first is to get warm
                times[timed[number]].append(time.process_time() - started)
    rows = []
    for name, training in timed:
        ratio = np.array(times[name, training]) / np.array(times["undivided", training])
        low, middle, high = np.quantile(ratio, (0.25, 0.5, 0.75))
        what = "a step" if training else "evaluation"
        rows.append(
            {
                "model": model, "way": name, "what": what, "ratio": float(middle),
                "quartiles": [float(low), float(high)], "macs": macs[name] / macs["whole"],
                "ms": 1e3 * float(np.median(times[name, training])) / batch,
            }
        )  # fmt: skip
        print(
            f"{model}, {what}, {name}: {middle:.2f} ({low:.2f} to {high:.2f}) of the undivided "
            f"network, {rows[-1]['ms']:.2f} ms; {rows[-1]['macs']:.2f} of its MACs"
        )
    return rows


def masked_norms(
    part: ElasticNetworks, module: nn.Module, levels_Bn: Tensor
) -> list[tuple[nn.Module, Tensor]]:
    """Norms of hidden maps, with masks (B, C, 1, 1) of what each image has of their channels."""
    kept_BU = part.kept_by("task", levels_Bn.numpy())
    units = {each.group.name: each.units for each in part.backbone.division.groups}
    found = []
    for block in part.blocks:
        norms = [
            m for m in module.get_submodule(block.name).modules() if isinstance(m, nn.BatchNorm2d)
        ]
        for name in block.groups:
            mask_BC = torch.from_numpy(kept_BU[:, units[name]]).float()
            norm = next(norm for norm in norms if norm.num_features == mask_BC.shape[1])
            found.append((norm, mask_BC[:, :, None, None]))
    return found


def _macs(part: ElasticNetworks, levels_Bn: Tensor) -> float:
    kept = part.kept_by("task", levels_Bn.numpy())
    return float(part.backbone.counter.count(kept).macs.mean())


if __name__ == "__main__":
    main()
