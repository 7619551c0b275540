"""Full training of candidates, and the compact networks of a trained one.

A training is two files in the study's `trained/<candidate>/<settings>/`: `seed<N>.safetensors`, and
`seed<N>.json`, which is written last and says that the training is whole. Settings have a folder
each, named after their hash, with `train.yaml`, which says what they are.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from partitioning import TRAINING, DamagedFileError, Masks, read_json, write_atomically, write_json
from search.config import ConfigError, StudyConfig, dump_config, read_yaml_file, yaml_text
from search.study.attempts import Failure, TrainingsError, attempt
from search.study.basis import (
    Basis,
    Check,
    accept,
    data_basis,
    foundation_basis,
    training_basis,
)
from search.study.foundation import Foundation, Run, build_foundation, read_tasks
from search.study.shelf import Say, move_aside
from trainers.export import ExportCheck, export_networks
from trainers.joint import (
    TRAINING_VERSION,
    Point,
    TrainResult,
    Underway,
    points_of,
    require_library,
    train_jointly,
    trained_network,
)
from trainers.teachers import Trained, fingerprint, load, store


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


@dataclass(frozen=True, kw_only=True)
class TrainedPick:
    """A fully trained candidate.

    Attributes:
        candidate: Its name.
        folder: Where its files are.
        accuracy: By seed, then split, then virtual network.
        points: By seed: of its curve.
        mean: By split: mean accuracy over networks and seeds.
        std: By split: standard deviation over seeds of the mean over networks (ddof 1; NaN
            for one seed).
    """

    candidate: str
    folder: Path
    accuracy: Mapping[int, Mapping[str, Mapping[str, float]]]
    points: Mapping[int, tuple[Point, ...]] = field(default_factory=dict)

    @property
    def mean(self) -> dict[str, float]:
        """By split: the mean over seeds of the mean accuracy over networks."""
        return {split: float(np.mean(values)) for split, values in self.by_split().items()}

    @property
    def std(self) -> dict[str, float]:
        """By split: the standard deviation over seeds (ddof 1); NaN for one seed."""
        return {
            split: float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            for split, values in self.by_split().items()
        }

    def weights(self, seed: int) -> Path:
        """The file of the weights that a seed ended with."""
        return _weights(self.folder, seed)

    def by_split(self) -> dict[str, list[float]]:
        """By split: the mean accuracy over networks of every seed."""
        runs = list(self.accuracy.values())
        return {split: [float(np.mean(list(r[split].values()))) for r in runs] for split in runs[0]}


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
    known: dict[str, dict[int, _Kept]] = {}
    jobs: dict[str, dict[str, Any]] = {}
    running: dict[str, Running] = {}
    bases: dict[int, Foundation] = {}
    about: dict[str, dict[str, Any]] = {}
    for one in wanted:
        own = settings_folder(folder, one.candidate, one.how)
        ground = one.config.pretraining.seed
        if not scored_on:  # nothing says what the study's candidates stand on
            base = one.base or bases.get(ground) or build_foundation(one.config, run, say)
            bases[ground] = base
            made_of = _made_of(one.how, one.masks, foundation_basis(*base.parts, ground))
        else:
            made_of = _made_of(one.how, one.masks, scored_on)
        found = {seed: _finished(own, seed, made_of, say) for seed in one.seeds}
        known[one.candidate] = {seed: kept for seed, kept in found.items() if kept is not None}
        missing = [seed for seed in one.seeds if seed not in known[one.candidate]]
        if not missing:
            if scored_on and one.base is None:  # it would check this
                check(data_basis(read_tasks(one.config, say)))
            continue
        require_library(one.how.train)
        if ground not in bases:
            bases[ground] = one.base or build_foundation(one.config, run, say, check=check)
        own.mkdir(parents=True, exist_ok=True)
        one.masks.save(own.parent / "masks.json")
        say_settings(own, one.how)
        say(f"training {one.candidate} for {one.how.train.sgd.steps} steps")
        for seed in missing:
            at = Running(
                candidate=one.candidate, seed=seed, config=one.how,
                progress=own.absolute() / f"seed{seed}.progress.json",
            )  # fmt: skip
            about[at.name] = {"candidate": one.candidate, **made_of}
            where = Underway(
                path=own.absolute() / f"seed{seed}.underway",
                digest=fingerprint(version=TRAINING_VERSION, seed=seed, **about[at.name]),
                progress=at.progress,
            )
            at.progress.unlink(missing_ok=True)  # of another attempt
            running[at.name] = at
            jobs[at.name] = _job(one.how, one.masks, bases[ground], seed) | {"underway": where}
    failures: dict[str, Failure] = {}
    with watch(running):
        for name, result in run(functools.partial(attempt, train_jointly), jobs):
            if isinstance(result, Failure):
                failures[name] = result
                say(f"{name}, failed: {result.reason}")
                continue
            at = running[name]
            try:
                mean = _keep(result, at.progress.parent, at.seed, about[name])
            except OSError as error:
                failures[name] = Failure(reason=f"{type(error).__name__}: {error}", final=False)
                say(f"{name}, is not kept: {error}")
                continue
            known[at.candidate][at.seed] = _Kept(result.accuracy, result.points)
            say(f"trained {name}: {mean:.3f} mean validation accuracy")
    for name, failure in failures.items():
        if failure.final:
            raise FloatingPointError(f"{name}: {failure.reason}")
        raise TrainingsError(f"{name}: {failure.reason} (run it again to go on)")
    return [
        _pick(one.candidate, settings_folder(folder, one.candidate, one.how),
              {seed: known[one.candidate][seed] for seed in one.seeds})
        for one in wanted
    ]  # fmt: skip


def read_trained(
    config: StudyConfig,
    folder: Path,
    masks: Mapping[str, tuple[Masks, int]],
    scored_on: Basis,
    say: Say,
) -> list[TrainedPick]:
    """All candidates that were trained with a study's settings, with all their seeds.

    Args:
        config: The study, with how they were trained.
        folder: Of the trainings, with a folder for every candidate.
        masks: Of the study's candidates, with the seeds of their arms, by name.
        scored_on: Digests of what they were scored on.
        say: Called with a line for each training that is damaged, which is left out.

    Raises:
        FormatError: A training was written by an Apportion of another version.
    """
    found = []
    for candidate in sorted(path.name for path in folder.glob("*/")):
        if candidate not in masks:
            continue
        own = settings_folder(folder, candidate, config)
        own_masks, seed = masks[candidate]
        made_of = _made_of(config.of_seed(seed), own_masks, scored_on)
        names = (path.stem.removeprefix("seed") for path in own.glob("seed*.json"))
        seeds = sorted(int(name) for name in names if name.isdecimal())
        kept = {seed: _finished(own, seed, made_of, say, weights=False) for seed in seeds}
        known = {seed: runs for seed, runs in kept.items() if runs is not None}
        if known:
            found.append(_pick(candidate, own, known))
    return found


@dataclass(frozen=True, kw_only=True)
class KeptTraining:
    """A finished training as it lies in a study's folder.

    Attributes:
        candidate: Its name.
        seed: Of the training.
        settings: Short name of how it was trained.
        described: The same in full, as `train.yaml` has it.
        accuracy: By split, then virtual network.
        points: Of its curve.
    """

    candidate: str
    seed: int
    settings: str
    described: Mapping[str, Any]
    accuracy: Mapping[str, Mapping[str, float]]
    points: tuple[Point, ...]


def kept_trainings(folder: Path) -> list[KeptTraining]:
    """All finished trainings, whatever their settings; those that are damaged are left out.

    Args:
        folder: Of a study's trainings.
    """
    found = []
    for path in sorted(folder.glob("*/*/seed*.json")):
        with suppress(DamagedFileError, KeyError, OSError, ConfigError):
            saved = read_json(path)
            found.append(
                KeptTraining(
                    candidate=saved["candidate"],
                    seed=saved["seed"],
                    settings=path.parent.name,
                    described=read_yaml_file(path.parent / "train.yaml"),
                    accuracy=saved["accuracy"],
                    points=points_of(saved["points"]),
                )
            )
    return found


def settings_name(config: StudyConfig) -> str:
    """What a study's folders call how it trains in full."""
    return _settings(config)[:8]


def settings_folder(folder: Path, candidate: str, config: StudyConfig) -> Path:
    """Where a candidate's trainings with these settings are kept."""
    return folder / candidate / settings_name(config)


def export_trained(
    config: StudyConfig,
    trained: TrainedPick,
    masks: Masks,
    base: Foundation,
    out: Path,
    *,
    seed: int,
    say: Say,
) -> dict[str, ExportCheck]:
    """Write one compact network per virtual network of a training.

    Args:
        config: The study.
        trained: With the seed.
        masks: What it was trained with.
        base: The tasks that every network is checked on.
        out: Folder of the networks.
        seed: Of the training.
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
    checks = export_networks(network, base.tasks, out)
    masks.save(out / "masks.json")
    for name, result in checks.items():
        say(f"exported {out / name}: {result.accuracy:.3f} on {result.images} images")
    return checks


def _weights(folder: Path, seed: int) -> Path:
    return folder / f"seed{seed}.safetensors"


def _settings(config: StudyConfig) -> str:
    """Hash of how a study trains in full."""
    return fingerprint(train=config.train, precision=config.compute.precision)


def settings_in_full(config: StudyConfig) -> dict[str, Any]:
    """How a study trains in full, as YAML has it."""
    return {"train": dump_config(config)["train"], "precision": config.compute.precision}


def say_settings(folder: Path, config: StudyConfig) -> None:
    """Keep for people what a folder's name means."""
    with write_atomically(folder / "train.yaml") as partial:
        partial.write_text(yaml_text(settings_in_full(config)))


def _made_of(config: StudyConfig, masks: Masks, scored_on: Basis) -> dict[str, str]:
    """Digests of all that decides a training but its seed."""
    basis = training_basis(scored_on, config.pretraining.seed)
    return {
        "masks": masks.digest(),
        "settings": _settings(config),
        "basis": fingerprint(**basis),
    }


@dataclass(frozen=True)
class _Kept:
    """What is kept of a finished training."""

    accuracy: Mapping[str, Mapping[str, float]]
    points: tuple[Point, ...]


def _pick(candidate: str, folder: Path, kept: Mapping[int, _Kept]) -> TrainedPick:
    return TrainedPick(
        candidate=candidate,
        folder=folder,
        accuracy={seed: one.accuracy for seed, one in kept.items()},
        points={seed: one.points for seed, one in kept.items()},
    )


def _finished(
    folder: Path, seed: int, made_of: Mapping[str, str], say: Say, *, weights: bool = True
) -> _Kept | None:
    """A finished training that was made of this; None if there is none.

    One that is damaged is moved aside. Its weights are looked at where they are asked for.

    Raises:
        FormatError: It was written by an Apportion of another version.
    """
    path = folder / f"seed{seed}.json"
    if not path.exists():
        return None
    try:
        saved = read_json(path)
        TRAINING.check(saved.get("version"), path)
        if any(saved[what] != digest for what, digest in made_of.items()):
            return None
        if weights:
            load(_weights(folder, seed), digest=saved["weights"])
        return _Kept(saved["accuracy"], points_of(saved["points"]))
    except DamagedFileError as error:
        for part in (path, _weights(folder, seed)):
            move_aside(part, error, say)
        return None
    except (KeyError, FileNotFoundError):
        return None


def _job(config: StudyConfig, masks: Masks, base: Foundation, seed: int) -> dict[str, Any]:
    return {
        "masks": masks,
        "tasks": base.tasks,
        "trunk": base.trunk,
        "teachers": base.teachers,
        "config": config.train,
        "backbone": config.backbone,
        "seed": seed,
        "compute": config.compute,
    }


def _keep(result: TrainResult, folder: Path, seed: int, about: Mapping[str, Any]) -> float:
    """Write a finished training; returns its mean validation accuracy over networks."""
    mean = float(np.mean(list(result.accuracy["validation"].values())))
    digest = fingerprint(seed=seed, **about)
    store(Trained(state=result.state, accuracy=mean, digest=digest), _weights(folder, seed))
    saved = {
        **TRAINING.header,
        **about,
        "weights": digest,
        "seed": seed,
        "accuracy": result.accuracy,
        "drawn": result.drawn,
        "steps": result.steps,
        "best_step": result.best_step,
        "seconds": result.seconds,
        "points": [asdict(point) for point in result.points],
    }
    write_json(folder / f"seed{seed}.json", saved, sealed=True)
    for left in ("underway", "progress.json"):
        (folder / f"seed{seed}.{left}").unlink(missing_ok=True)
    return mean
