"""Full training of a candidate, and the compact networks of a trained one.

A training is two files in the study's `trained/<candidate>/`: `seed<N>.safetensors`, and
`seed<N>.json`, which is written last and says that the training is whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from partitioning import TRAINING, DamagedFileError, Masks, read_json, write_json
from search.config import StudyConfig
from search.study.basis import Basis, Check, accept, data_basis, training_basis
from search.study.foundation import Foundation, Run, build_foundation, read_tasks
from search.study.shelf import Say, move_aside
from trainers.export import ExportCheck, export_networks
from trainers.joint import TrainResult, train_jointly, trained_network
from trainers.teachers import Trained, fingerprint, load, store


@dataclass(frozen=True, kw_only=True)
class TrainedPick:
    """A fully trained candidate.

    Attributes:
        candidate: Its name.
        folder: Where its files are.
        accuracy: By seed, then split, then virtual network.
        mean: By split: mean accuracy over networks and seeds.
        std: By split: standard deviation over seeds of the mean over networks (ddof 1; NaN
            for one seed).
    """

    candidate: str
    folder: Path
    accuracy: Mapping[int, Mapping[str, Mapping[str, float]]]

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


def train_candidate(
    config: StudyConfig,
    candidate: str,
    masks: Masks,
    folder: Path,
    *,
    seeds: int,
    say: Say,
    run: Run,
    base: Foundation | None,
    scored_on: Basis = MappingProxyType({}),
    check: Check = accept,
) -> TrainedPick:
    """Train masks in full, once per seed; trainings made of the same are not repeated.

    Those that are damaged are moved aside and repeated.

    Args:
        config: The study.
        candidate: Its name.
        masks: What it was scored with.
        folder: Where its trainings are kept; made if missing.
        seeds: Number of trainings, with seeds 0 to seeds - 1.
        say: Called with one line per thing that was done.
        run: Where training runs.
        base: Tasks, trunk and teachers; None has them made or loaded where a training is missing,
            and the data alone read where none is.
        scored_on: Digests of what the candidate was scored on, as the record keeps them.
        check: Refuses a foundation that is another now.

    Raises:
        FormatError: A training that is there was written by an Apportion of another version.
    """
    made_of = _made_of(config, masks, scored_on)
    done = {seed: _finished(folder, seed, made_of, say) for seed in range(seeds)}
    missing = [seed for seed, accuracy in done.items() if accuracy is None]
    if not missing and base is None:  # it would check this
        check(data_basis(read_tasks(config, say)))
    if missing:
        base = base or build_foundation(config, run, say, check=check)
        folder.mkdir(parents=True, exist_ok=True)
        masks.save(folder / "masks.json")
        say(f"training {candidate} for {config.train.sgd.steps} steps")
        jobs = {str(seed): _job(config, masks, base, seed) for seed in missing}
        for key, result in run(train_jointly, jobs):
            mean = _keep(result, folder, int(key), {"candidate": candidate, **made_of})
            done[int(key)] = result.accuracy
            say(f"trained {candidate}, seed {key}: {mean:.3f} mean validation accuracy")
    accuracy = {seed: found for seed, found in done.items() if found is not None}
    return TrainedPick(candidate=candidate, folder=folder, accuracy=accuracy)


def read_trained(
    config: StudyConfig, folder: Path, masks: Mapping[str, Masks], scored_on: Basis, say: Say
) -> list[TrainedPick]:
    """All candidates that were trained with the study's settings, with all their seeds.

    Args:
        config: The study.
        folder: Of the trainings, with a folder for every candidate.
        masks: Of the study's candidates, by name.
        scored_on: Digests of what they were scored on.
        say: Called with a line for each training that is damaged, which is left out.

    Raises:
        FormatError: A training was written by an Apportion of another version.
    """
    found = []
    for own in sorted(folder.glob("*/")):
        if own.name not in masks:
            continue
        made_of = _made_of(config, masks[own.name], scored_on)
        names = (path.stem.removeprefix("seed") for path in own.glob("seed*.json"))
        seeds = sorted(int(name) for name in names if name.isdecimal())
        kept = {seed: _finished(own, seed, made_of, say, weights=False) for seed in seeds}
        accuracy = {seed: runs for seed, runs in kept.items() if runs is not None}
        if accuracy:
            found.append(TrainedPick(candidate=own.name, folder=own, accuracy=accuracy))
    return found


def export_trained(
    config: StudyConfig,
    trained: TrainedPick,
    masks: Masks,
    base: Foundation,
    out: Path,
    *,
    say: Say,
) -> dict[str, ExportCheck]:
    """Write one compact network per virtual network of a training, its first seed's.

    Args:
        config: The study.
        trained: With seed 0.
        masks: What it was trained with.
        base: The tasks that every network is checked on.
        out: Folder of the networks.
        say: Called with one line per network.

    Raises:
        ExportError: A compact network does not compute what the masked one does.
    """
    network = trained_network(
        load(trained.weights(0)).state,
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


def _made_of(config: StudyConfig, masks: Masks, scored_on: Basis) -> dict[str, str]:
    """Digests of all that decides a training but its seed."""
    basis = training_basis(scored_on, config.pretraining.seed)
    return {
        "masks": masks.digest(),
        "settings": fingerprint(train=config.train),
        "basis": fingerprint(**basis),
    }


def _finished(
    folder: Path, seed: int, made_of: Mapping[str, str], say: Say, *, weights: bool = True
) -> Mapping[str, Mapping[str, float]] | None:
    """Accuracies of a finished training that was made of this; None if there is none.

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
        accuracy: Mapping[str, Mapping[str, float]] = saved["accuracy"]
    except DamagedFileError as error:
        for part in (path, _weights(folder, seed)):
            move_aside(part, error, say)
        return None
    except (KeyError, FileNotFoundError):
        return None
    return accuracy


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
        "seconds": result.seconds,
    }
    write_json(folder / f"seed{seed}.json", saved, sealed=True)
    return mean
