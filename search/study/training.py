"""Full training of candidates, and the compact networks of a trained one."""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from partitioning import Masks, appears_whole
from search.config import StudyConfig
from search.report import write_card
from search.study.attempts import Failure, TrainingsError, attempt
from search.study.basis import Basis, Check, accept, data_basis, foundation_basis
from search.study.foundation import Foundation, Run, build_foundation, read_tasks
from search.study.shelf import Say
from search.study.training_files import (
    Kept,
    TrainedPick,
    decided_by,
    finished,
    keep,
    picked,
    say_settings,
    settings_folder,
)
from trainers.export import PROGRAM, ExportConfig, Exported, checked_split, export_networks
from trainers.joint import (
    TRAINING_VERSION,
    Underway,
    require_library,
    train_jointly,
    trained_network,
)
from trainers.teachers import fingerprint, load, measure_teacher


@dataclass(frozen=True, kw_only=True, eq=False)
class ToTrain:
    """A candidate that is to be trained.

    Attributes:
        candidate: Its name.
        masks: What it was scored with.
        config: The study, that of the candidate's seed.
        how: The same with how it is to be trained.
        seeds: Of its trainings.
        base: Its tasks, trunk and teachers; None has them made or loaded where a training is
            missing, and the data alone read where none is.
    """

    candidate: str
    masks: Masks
    config: StudyConfig
    how: StudyConfig
    seeds: Sequence[int]
    base: Foundation | None = None


@dataclass(frozen=True, kw_only=True)
class Running:
    """A training that is run.

    Attributes:
        candidate: Its name.
        seed: Of the training.
        config: How it is trained.
        progress: The file in which it says how far it is.
    """

    candidate: str
    seed: int
    config: StudyConfig
    progress: Path

    @property
    def name(self) -> str:
        """What it is called on the screen."""
        return f"{self.candidate}, seed {self.seed}"


#: Within it trainings, by what they are called, are looked at as they run.
Watch = Callable[[Mapping[str, Running]], AbstractContextManager[object]]


def train_candidates(
    wanted: Sequence[ToTrain],
    folder: Path,
    *,
    say: Say,
    run: Run,
    scored_on: Basis = MappingProxyType({}),
    check: Check = accept,
    watch: Watch = lambda running: nullcontext(),
) -> list[TrainedPick]:
    """Train candidates in full, once per seed, all side by side.

    Trainings made of the same are not repeated, those that were cut off go on where they were, and
    those that are damaged are moved aside and repeated. Where some fail the others end first.

    Args:
        wanted: Which.
        folder: Where a study's trainings are kept; made if missing.
        say: Called with one line per thing that was done.
        run: Where training runs.
        scored_on: Digests of what the candidates were scored on, as the record keeps them.
        check: Refuses a foundation that is another now.
        watch: Looks at trainings as they run.

    Raises:
        FormatError: A training that is there was written by an Apportion of another version.
        FloatingPointError: A training diverged.
        TrainingsError: One was cut short: of memory, a device or a disk.
        MissingLibraryError: The settings need a library that is not installed.
    """
    known: dict[str, dict[int, Kept]] = {one.candidate: {} for one in wanted}
    queue: dict[str, _Queued] = {}
    bases: dict[int, Foundation] = {}
    for one in wanted:
        own = settings_folder(folder, one.candidate, one.how)
        ground = one.config.pretraining.seed
        stands_on = scored_on
        if not scored_on:  # nothing says what the study's candidates stand on
            bases[ground] = one.base or bases.get(ground) or build_foundation(one.config, run, say)
            stands_on = foundation_basis(*bases[ground].parts, ground)
        made_of = decided_by(one.how, one.masks, stands_on)
        for seed in one.seeds:
            if (kept := finished(own, seed, made_of, say)) is not None:
                known[one.candidate][seed] = kept
        missing = [seed for seed in one.seeds if seed not in known[one.candidate]]
        if missing:
            require_library(one.how.train)
            if ground not in bases:
                bases[ground] = one.base or build_foundation(one.config, run, say, check=check)
            say(f"training {one.candidate} for {one.how.train.sgd.steps} steps")
            queue |= _queued(one, own, made_of, bases[ground], missing)
        elif scored_on and one.base is None:  # making a foundation would check this
            check(data_basis(read_tasks(one.config, say)))
    failures: dict[str, Failure] = {}
    with watch({name: queued.running for name, queued in queue.items()}):
        jobs = {name: queued.job for name, queued in queue.items()}
        for name, result in run(functools.partial(attempt, train_jointly), jobs):
            at = queue[name].running
            if isinstance(result, Failure):
                failures[name] = result
                say(f"{name}, failed: {result.reason}")
                continue
            try:
                mean = keep(result, at.progress.parent, at.seed, queue[name].about)
            except OSError as error:
                failures[name] = Failure(reason=f"{type(error).__name__}: {error}", final=False)
                say(f"{name}, is not kept: {error}")
                continue
            known[at.candidate][at.seed] = Kept(result.accuracy, result.points)
            say(f"trained {name}: {mean:.3f} mean validation accuracy")
    for name, failure in failures.items():
        if failure.final:
            raise FloatingPointError(f"{name}: {failure.reason}")
        raise TrainingsError(f"{name}: {failure.reason} (run it again to go on)")
    return [
        picked(one.candidate, settings_folder(folder, one.candidate, one.how),
               {seed: known[one.candidate][seed] for seed in one.seeds})
        for one in wanted
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class _Queued:
    """A training that waits: how it is looked at, what decides it, and its arguments."""

    running: Running
    about: Mapping[str, str]
    job: Mapping[str, Any]


def _queued(
    one: ToTrain, own: Path, made_of: Mapping[str, str], base: Foundation, seeds: Sequence[int]
) -> dict[str, _Queued]:
    """Trainings of a candidate by what they are called; its folder, masks and settings written."""
    own.mkdir(parents=True, exist_ok=True)
    one.masks.save(own.parent / "masks.json")
    say_settings(own, one.how)
    about = {"candidate": one.candidate, **made_of}
    found = {}
    for seed in seeds:
        progress = own.absolute() / f"seed{seed}.progress.json"
        progress.unlink(missing_ok=True)  # of another attempt
        running = Running(candidate=one.candidate, seed=seed, config=one.how, progress=progress)
        job = {
            "masks": one.masks,
            "tasks": base.tasks,
            "trunk": base.trunk,
            "teachers": base.teachers,
            "config": one.how.train,
            "backbone": one.how.backbone,
            "seed": seed,
            "compute": one.how.compute,
            "underway": Underway(
                path=own.absolute() / f"seed{seed}.underway",
                digest=fingerprint(version=TRAINING_VERSION, seed=seed, **about),
                progress=progress,
            ),
        }
        found[running.name] = _Queued(running=running, about=about, job=job)
    return found


def export_trained(
    config: StudyConfig,
    trained: TrainedPick,
    masks: Masks,
    base: Foundation,
    out: Path,
    *,
    seed: int,
    files: ExportConfig,
    beside: Mapping[str, Mapping[str, float]],
    replace: bool,
    say: Say,
) -> Exported:
    """Write one compact network per virtual network of a training, all or none.

    Args:
        config: The study.
        trained: With the seed.
        masks: What it was trained with.
        base: The tasks that every network is checked on.
        out: Folder of the networks.
        seed: Of the training.
        files: Which are written.
        beside: Accuracies of others on the same images, by what has them, then virtual network.
        replace: Take the place of a folder that is there.
        say: Called with one line per network.

    Raises:
        ExportError: A compact network does not compute what the masked one does.
    """
    network = trained_network(
        load(trained.weights(seed)).state,
        masks,
        base.tasks,
        base.trunk,
        base.teachers,
        config.network,
    )
    here = replace_fields(config.compute, device="cpu")
    teachers = {
        name: measure_teacher(config.backbone, base.teachers[name], base.tasks[name], here)
        for name in masks.tasks
    }
    known = {str(n): teachers[n.task][checked_split(base.tasks[n.task])] for n in masks.networks}
    with appears_whole(out, replace=replace) as folder:
        exported = export_networks(
            network, base.tasks, folder, files, beside={"teacher": known, **beside}
        )
        masks.save(folder / "masks.json")
        made_of = {"study": config.name, "candidate": trained.candidate, "seed": seed}
        write_card(folder, f"{config.name}, {trained.candidate}", made_of)
    say_exported(out, exported, say)
    return exported


def say_exported(out: Path, exported: Exported, say: Say) -> None:
    """Say what was written, a line for each network, and one for that of all.

    Accuracies are of the images that networks are checked on; those of others, such as the teacher,
    stand beside them where they are known.
    """
    for name, checks in exported.checks.items():
        if not checks:
            say(f"exported {out / name}")
            continue
        first, about = next(iter(checks.values())), exported.networks.get(name, {})
        small = [
            f"{file} {check.accuracy:.3f}" for file, check in checks.items() if file.count(".") > 1
        ]
        more = f" ({', '.join(small)})" if small else ""
        split = f"{about['split']} " if "split" in about else ""
        said = f"{first.accuracy:.3f} on {first.images} {split}images{more}"
        others = [f"{what} {value:.3f}" for what, value in about.get("beside", {}).items()]
        say(f"exported {out / name}: {'; '.join([said, ', '.join(others)] if others else [said])}")
    if exported.merged_bytes is not None:
        size, apart = exported.merged_bytes, exported.bytes_of(PROGRAM)
        beside = f", apart {apart / 1e6:.1f} MB" if apart else ""
        say(f"exported {out / 'merged.pt'}: all of them in {size / 1e6:.1f} MB{beside}")
