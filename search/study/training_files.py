"""What is kept of full trainings.

A training is two files in the study's `trained/<candidate>/<settings>/`: `seed<N>.safetensors`, and
`seed<N>.json`, which is written last and says that the training is whole. Settings have a folder
each, named after their hash, with `train.yaml`, which says what they are.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from partitioning import TRAINING, DamagedFileError, Masks, read_json, write_atomically, write_json
from search.config import ConfigError, StudyConfig, dump_config, read_yaml_file, yaml_text
from search.study.basis import Basis, training_basis
from search.study.shelf import Say, move_aside
from trainers.joint import Point, TrainResult, points_of
from trainers.teachers import Trained, fingerprint, load, store


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
        made_of = decided_by(config.of_seed(seed), own_masks, scored_on)
        names = (path.stem.removeprefix("seed") for path in own.glob("seed*.json"))
        seeds = sorted(int(name) for name in names if name.isdecimal())
        kept = {seed: finished(own, seed, made_of, say, weights=False) for seed in seeds}
        known = {seed: runs for seed, runs in kept.items() if runs is not None}
        if known:
            found.append(picked(candidate, own, known))
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


def decided_by(config: StudyConfig, masks: Masks, scored_on: Basis) -> dict[str, str]:
    """Digests of all that decides a training but its seed."""
    basis = training_basis(scored_on, config.pretraining.seed)
    return {
        "masks": masks.digest(),
        "settings": _settings(config),
        "basis": fingerprint(**basis),
    }


@dataclass(frozen=True)
class Kept:
    """What is kept of a finished training."""

    accuracy: Mapping[str, Mapping[str, float]]
    points: tuple[Point, ...]


def picked(candidate: str, folder: Path, kept: Mapping[int, Kept]) -> TrainedPick:
    """A candidate with what a folder keeps of it, by seed."""
    return TrainedPick(
        candidate=candidate,
        folder=folder,
        accuracy={seed: one.accuracy for seed, one in kept.items()},
        points={seed: one.points for seed, one in kept.items()},
    )


def finished(
    folder: Path, seed: int, made_of: Mapping[str, str], say: Say, *, weights: bool = True
) -> Kept | None:
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
        return Kept(saved["accuracy"], points_of(saved["points"]))
    except DamagedFileError as error:
        for part in (path, _weights(folder, seed)):
            move_aside(part, error, say)
        return None
    except (KeyError, FileNotFoundError):
        return None


def keep(result: TrainResult, folder: Path, seed: int, about: Mapping[str, Any]) -> float:
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
