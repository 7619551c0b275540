"""`apportion train --table`: picks beside everything that they should be held against."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from partitioning import Masks, VirtualNetwork, write_atomically
from search.arms import cluster_run
from search.candidates import Candidate, scored
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
    say_settings,
    settings_name,
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
        As `search.report.standing` says. It is written to the study's `table/<settings>`, too, as
        table.csv, table.md and table.png.

    Raises:
        ConfigError: The study has levels or methods, its scores are simulated, or its picks stand
            on several foundations.
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
    ground = _ground(study, chosen)
    own = config.of_seed(ground)
    base = build_foundation(own, run, say, check=study.check())
    known, others = _masks(study, chosen, ground, seeds)
    curves = Curves(study, say)
    try:
        trained = study.train_all(
            [candidate.id for candidate in known.values()],
            seeds=seeds, settings=how, others=others, ground=ground, say=say, run=run, base=base,
            watch=curves,
        )  # fmt: skip
    finally:
        curves.finish()
    by_name = {one.candidate: one for one in trained}
    singles = {
        seed: single_networks(own, base, own.pretraining.seed + seed, run, say)
        for seed in range(seeds)
    }
    whole = _whole(how)
    rows = [_single(how, base, whole, singles, run)]
    for name in FIXED:
        if name in known:
            rows.append(_row(name, how, base, study.masks(known[name]), by_name[known[name].id]))
        elif name in others:
            rows.append(_row(name, how, base, others[name][0], by_name[name]))
    rows += [_merged(name, how, base, whole, singles, run) for name in MERGERS]
    for candidate in chosen:
        if candidate.label in FIXED:
            say(f"{candidate.id} is the row {candidate.label}")
        else:
            drawn = [_random(candidate, seed) for seed in range(seeds)]
            each = [_row(name, how, base, others[name][0], by_name[name]) for name in drawn]
            rows.append(_gathered(f"random like {candidate.id}", each))
            masks = study.masks(candidate)
            rows.append(_row(candidate.id, how, base, masks, by_name[candidate.id]))
    table = standing(rows)
    _write(table_folder(study, how), how, table)
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


def _ground(study: Study, chosen: Sequence[Candidate]) -> int:
    """Seed of the foundation that all rows stand on.

    Raises:
        ConfigError: Picks stand on several.
    """
    found = {study.foundation_of(candidate): candidate.seed for candidate in chosen}
    if len(found) > 1:
        raise ConfigError(
            "the rows of a table stand on one trunk and its teachers, and these picks are of arms "
            f"of several (foundations: per_seed): {', '.join(c.id for c in chosen)}"
        )
    return next(iter(found.values()), study.config.seeds[0])


def _masks(
    study: Study, chosen: Sequence[Candidate], ground: int, seeds: int
) -> tuple[dict[str, Candidate], dict[str, tuple[Masks, Sequence[int]]]]:
    """What is trained: candidates by the row's name, and masks that are none, with their seeds."""
    scored_here = [
        candidate
        for candidate in (*chosen, *scored(study.candidates()))
        if study.config.foundations == "shared" or candidate.seed == ground
    ]
    labelled = {str(c.label): c for c in reversed(scored_here) if c.label in FIXED}
    known = labelled | {c.id: c for c in chosen if c.label not in FIXED}
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


def _row(
    name: str, config: StudyConfig, base: Foundation, masks: Masks, trained: TrainedPick
) -> Row:
    """A row of trainings. Their validation accuracies are those of the last step.

    What was kept did best of several looks there, which other rows have not had.
    """
    accuracy = {
        seed: {**runs, "validation": dict(trained.points[seed][-1].accuracy)}
        for seed, runs in trained.accuracy.items()
    }
    return _costed(name, config, base, masks, accuracy)


def _costed(
    name: str,
    config: StudyConfig,
    base: Foundation,
    masks: Masks,
    accuracy: Mapping[int, Mapping[str, Mapping[str, float]]],
) -> Row:
    """A row with what its masks cost."""
    classes = [base.tasks[network.task].num_classes for network in masks.networks]
    found = costs(config.network, masks, classes)
    return Row(
        name=name,
        accuracy=accuracy,
        use=found.mean_use,
        parameters=float(np.mean(list(found.parameters.values()))),
        macs=float(np.mean(list(found.macs.values()))),
        stored=found.union_parameters,
    )


def _gathered(name: str, rows: Sequence[Row]) -> Row:
    """A row of rows, one for every seed: with their mean costs."""
    merged = {seed: runs for row in rows for seed, runs in row.accuracy.items()}
    means = {
        cost: float(np.mean([getattr(row, cost) for row in rows]))
        for cost in ("use", "parameters", "macs", "stored")
    }
    return Row(name=name, accuracy=merged, **means)


def _whole(config: StudyConfig) -> Masks:
    """All channels for every task."""
    networks = tuple(VirtualNetwork(task=task.name) for task in config.tasks)
    groups = config.network.groups
    forward = {g.name: np.ones((len(networks), g.width), dtype=np.bool_) for g in groups}
    return Masks(networks=networks, groups=groups, forward=forward)


def _single(
    config: StudyConfig,
    base: Foundation,
    whole: Masks,
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
    measured = dict(run(measure_teacher, jobs))
    for key in jobs:  # whichever was done first
        seed, _, task = key.partition(" ")
        for split, value in measured[key].items():
            accuracy[int(seed)].setdefault(split, {})[task] = value
    row, network = _costed(SINGLE, config, base, whole, accuracy), config.network
    frozen = [p.numel() for n, p in network.trunk.named_parameters() if n not in network.own]
    # A frozen trunk's weights are the same in all of them.
    stored = len(base.tasks) * row.parameters - (len(base.tasks) - 1) * sum(frozen)
    return replace(row, stored=stored)


def _merged(
    merger: str,
    config: StudyConfig,
    base: Foundation,
    whole: Masks,
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
    measured = dict(run(measure_merged, jobs))
    accuracy = {int(seed): measured[seed] for seed in jobs}
    return _costed(merger, config, base, whole, accuracy)


def table_folder(study: Study, config: StudyConfig) -> Path:
    """Where the table of rows that were trained so is kept."""
    return study.folder / "table" / settings_name(config)


def _write(folder: Path, config: StudyConfig, table: "pd.DataFrame") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    say_settings(folder, config)
    with write_atomically(folder / "table.csv") as partial:
        table.to_csv(partial, index=False)
    with write_atomically(folder / "table.md") as partial:
        partial.write_text(standing_markdown(table))
    with write_atomically(folder / "table.png") as partial:
        standing_figure(table, partial)
