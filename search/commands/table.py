"""`apportion train --table`: picks beside everything that they should be held against."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from partitioning import Masks, write_atomically
from search.arms import cluster_run
from search.candidates import Candidate
from search.commands.watching import Curves
from search.config import ConfigError, StudyConfig
from search.report import Row, standing, standing_figure, standing_markdown
from search.study import (
    Foundation,
    Run,
    Say,
    Study,
    TrainedPick,
    baselines,
    build_foundation,
    build_space,
    single_networks,
)
from trainers.cost import costs
from trainers.merging import MERGERS, measure_merged
from trainers.teachers import Trained, measure_teacher

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd

#: Fixed baselines of the table, in order.
FIXED = ("share_all", "independent", "share_half")
SINGLE = "single-task"


def train_table(
    study: Study,
    picks: Sequence[str] = (),
    *,
    seeds: int = 3,
    settings: StudyConfig | None = None,
    say: Say = print,
) -> "pd.DataFrame":
    """Train picks and what they are held against with the same recipe, and table what they reach.

    Rows: single-task networks; every channel shared (Universal Representations' form where teachers
    are imitated: Li and Bilen 2023); independent networks and half of the channels shared (the
    paper's table 2); single-task networks merged without training; random masks of as much use as
    each pick, drawn anew for every seed; and the picks. What is trained already is not repeated.

    Args:
        study: With or, for its baselines alone, without scored candidates.
        picks: "knee", "best" or candidates' names.
        seeds: Number of trainings of each row.
        settings: How rows are trained, as `training_settings` gives it; None for the study's own.
        say: Called with one line per thing that was done.

    Returns:
        As `search.report.standing` says. It is written to the study's folder `table`, too, as
        table.csv, table.md and table.png.

    Raises:
        ConfigError: The study has levels or methods, or scores are simulated.
        StudyError: There is no such candidate.
        FloatingPointError: A training diverged; the others have ended.
        TrainingsError: One was cut short: of memory, a device or a disk; likewise.
    """
    config, how = study.config, settings or study.config
    if len(config.space.levels) > 1 or config.methods:
        raise ConfigError("--table is for studies of one network a task, without levels or methods")
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}")
    run = cluster_run(how)
    chosen = study.picks(picks)
    own = config.of_seed(config.seeds[0])
    base = build_foundation(own, run, say, check=study.check())
    known, others = _masks(study, chosen, seeds)
    curves = Curves(study, say)
    try:
        trained = study.train_all(
            [candidate.id for candidate in known.values()],
            seeds=seeds, settings=how, others=others, say=say, run=run, watch=curves,
            base=base if config.foundations == "shared" else None,
        )  # fmt: skip
    finally:
        curves.finish()
    by_name = {one.candidate: one for one in trained}
    masks = {name: study.masks(candidate) for name, candidate in known.items()}
    masks |= {name: found for name, (found, _) in others.items()}
    ids = {name: candidate.id for name, candidate in known.items()}
    singles = {
        seed: single_networks(own, base, own.pretraining.seed + seed, run, say)
        for seed in range(seeds)
    }
    rows = [
        _single(how, base, singles, run),
        *(_trained(name, how, base, masks[name], by_name[ids.get(name, name)]) for name in FIXED
          if name in masks),
        *(_merged(name, how, base, singles, run) for name in MERGERS),
    ]  # fmt: skip
    for candidate in chosen:
        if candidate.label in FIXED:
            continue
        names = [_random(candidate, seed) for seed in range(seeds)]
        rows.append(_gathered(how, base, candidate, [by_name[name] for name in names]))
        name = candidate.id
        rows.append(_trained(name, how, base, masks[name], by_name[name]))
    table = standing(rows)
    _write(study, table)
    return table


def random_masks_like(masks: Masks, seed: int) -> Masks:
    """Masks in which every task has as many channels of each group, drawn uniformly."""
    rng = np.random.default_rng(seed)
    forward = {
        name: np.stack([rng.permutation(row) for row in mask])
        for name, mask in masks.forward.items()
    }
    return Masks(networks=masks.networks, groups=masks.groups, forward=forward)


def _random(candidate: Candidate, seed: int) -> str:
    return f"random_like_{candidate.id}_{seed}"


def _masks(
    study: Study, chosen: Sequence[Candidate], seeds: int
) -> tuple[dict[str, Candidate], dict[str, tuple[Masks, Sequence[int]]]]:
    """What is trained: candidates by the row's name, and masks that are none, with their seeds."""
    known = {c.id: c for c in chosen if c.label not in FIXED}
    labelled = {c.label: c for c in study.candidates() if c.label in FIXED and not c.failed}
    known |= {str(label): candidate for label, candidate in labelled.items()}
    others: dict[str, tuple[Masks, Sequence[int]]] = {}
    space = build_space(study.config)
    vectors = baselines(study.config, space, study.config.seeds[0])
    for name in FIXED:
        if name not in known and name in vectors:
            others[name] = space.decode(vectors[name]).masks, range(seeds)
    for candidate in chosen:
        if candidate.label not in FIXED:
            for seed in range(seeds):
                drawn = random_masks_like(study.masks(candidate), seed)
                others[_random(candidate, seed)] = drawn, [seed]
    return known, others


def _trained(
    name: str, config: StudyConfig, base: Foundation, masks: Masks, trained: TrainedPick
) -> Row:
    classes = [base.tasks[network.task].num_classes for network in masks.networks]
    found = costs(config.network, masks, classes)
    return Row(
        name=name,
        accuracy=trained.accuracy,
        use=found.mean_use,
        parameters=float(np.mean(list(found.parameters.values()))),
        macs=float(np.mean(list(found.macs.values()))),
        stored=found.union_parameters,
    )


def _gathered(
    config: StudyConfig, base: Foundation, like: Candidate, trained: Sequence[TrainedPick]
) -> Row:
    """A row of masks that are others for every seed; they cost what the first does."""
    first = random_masks_like(like.masks, 0)
    merged = {seed: runs for one in trained for seed, runs in one.accuracy.items()}
    one = TrainedPick(candidate="", folder=trained[0].folder, accuracy=merged)
    return _trained(f"random like {like.id}", config, base, first, one)


def _whole(config: StudyConfig, base: Foundation) -> Masks:
    """All channels for every task."""
    space = build_space(config)
    vector = np.ones(space.dim)
    like = space.decode(vector).masks
    forward = {name: np.ones_like(mask) for name, mask in like.forward.items()}
    return Masks(networks=like.networks, groups=like.groups, forward=forward)


def _single(
    config: StudyConfig,
    base: Foundation,
    singles: Mapping[int, Mapping[str, Trained]],
    run: Run,
) -> Row:
    jobs = {
        f"{seed} {task}": {
            "config": config.backbone,
            "teacher": teacher,
            "task": base.tasks[task],
            "compute": config.compute,
        }
        for seed, own in singles.items()
        for task, teacher in own.items()
    }
    accuracy: dict[int, dict[str, dict[str, float]]] = {seed: {} for seed in singles}
    for key, by_split in run(measure_teacher, jobs):
        seed, _, task = key.partition(" ")
        for split, value in by_split.items():
            accuracy[int(seed)].setdefault(split, {})[task] = value
    classes = [task.num_classes for task in base.tasks.values()]
    found = costs(config.network, _whole(config, base), classes)
    network = config.network
    shared = sum(
        p.numel() for n, p in network.trunk.named_parameters() if n not in network.own
    )  # of a frozen trunk, which all of them have
    counts = list(found.parameters.values())
    return Row(
        name=SINGLE,
        accuracy=accuracy,
        use=1.0,
        parameters=float(np.mean(counts)),
        macs=float(np.mean(list(found.macs.values()))),
        stored=sum(counts) - (len(counts) - 1) * shared,
    )


def _merged(
    merger: str,
    config: StudyConfig,
    base: Foundation,
    singles: Mapping[int, Mapping[str, Trained]],
    run: Run,
) -> Row:
    jobs = {
        str(seed): {
            "merger": merger,
            "trunk": base.trunk,
            "networks": own,
            "tasks": base.tasks,
            "backbone": config.backbone,
            "seed": seed,
            "compute": config.compute,
        }
        for seed, own in singles.items()
    }
    accuracy = {int(seed): found for seed, found in run(measure_merged, jobs)}
    masks = _whole(config, base)
    one = TrainedPick(candidate=merger, folder=config.folder, accuracy=accuracy)
    return _trained(merger, config, base, masks, one)


def _write(study: Study, table: "pd.DataFrame") -> None:
    folder = study.folder / "table"
    folder.mkdir(exist_ok=True)
    with write_atomically(folder / "table.csv") as partial:
        table.to_csv(partial, index=False)
    with write_atomically(folder / "table.md") as partial:
        partial.write_text(standing_markdown(table))
    with write_atomically(folder / "table.png") as partial:
        standing_figure(table, partial)
