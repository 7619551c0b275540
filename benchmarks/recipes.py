"""What each part of a recipe of full training is worth, on masks that share every channel.

    python benchmarks/recipes.py configs/mini_decathlon.yaml --tasks 4 --steps 500 --seeds 2

Every variant differs from the paper's recipe or from the default by what its name says. Seeds are
paired: a variant's difference is that to the paper's recipe with the same seed. Trainings are kept
in the study's folder, and those that are there are not repeated, so it goes on where it was.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from search.arms import cluster_run
from search.commands.calibrate import open_study
from search.commands.train import training_settings
from search.commands.watching import watched
from search.config import load_config
from search.stats import paired_interval
from search.study import TrainedPick, baselines, build_space

#: Changes of the paper's recipe, then of the default.
VARIANTS: Mapping[str, Sequence[str]] = {
    "paper": ["recipe=paper"],
    "paper, heads and norms of teachers": ["recipe=paper", "initial=teachers"],
    "paper, half distilled": ["recipe=paper", "distillation=0.5"],
    "paper, best of 10": ["recipe=paper", "evaluations=10"],
    "default": [],
    "default, last step": ["evaluations=1"],
    "default, .9 distilled": ["distillation=0.9"],
    "default, softness 4": ["softness=4"],
    "default, uniform turns": ["temperature=1e6"],
    "default, one cycle": ["sgd.warmup=0.3"],
    "default, steps": ["sgd.schedule=step"],
    "default, averaged": ["ema=0.99"],
    "default, mixup": ["mixup=0.2"],
    "default, RandAugment": ["randaugment=5"],
    "default, trunk thawed half way": ["thaw=0.5"],
    "default, trunk trained": ["thaw=0"],
}


def main() -> None:
    """Train all variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--tasks", type=int, help="the config's first N alone")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    config = load_config(options.config, [*options.set, f"train.sgd.steps={options.steps}"])
    tasks = config.tasks[: options.tasks]
    study = open_study(replace(config, name=f"recipes_{len(tasks)}", tasks=tasks))
    space = build_space(study.config)
    masks = space.decode(baselines(study.config, space, 0)["share_all"]).masks
    found: dict[str, TrainedPick] = {}
    for name in options.only:
        try:
            steps = [f"train.sgd.steps={options.steps}"]
            settings = training_settings(study, [*(f"train.{c}" for c in VARIANTS[name]), *steps])
            (found[name],) = study.train_all(
                [], others={"share_all": (masks, range(options.seeds))}, settings=settings,
                run=cluster_run(settings),
                watch=lambda running: watched({k: r.progress for k, r in running.items()}, print),
            )  # fmt: skip
        except ValueError as error:
            print(f"{name}: {error}")
    show(found)


def show(found: Mapping[str, TrainedPick]) -> None:
    """Print accuracies, and differences to the paper's recipe in points."""
    print("\n| recipe | validation | difference | test | difference |\n|---|---|---|---|---|")
    base = found.get("paper")
    for name, trained in found.items():
        cells = []
        for split, values in trained.by_split().items():
            std = np.std(values, ddof=1) if len(values) > 1 else np.nan
            cells.append(f"{np.mean(values):.4f} ± {std:.4f}")
            if base is None or trained is base:
                cells.append("")
                continue
            pairs = [100 * np.array(runs) for runs in (values, base.by_split()[split])]
            interval = paired_interval(*pairs)
            shown = f"{interval.value:+.1f}"
            if len(values) > 2:
                shown += f" [{interval.low:+.1f}, {interval.high:+.1f}]"
            cells.append(shown)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
