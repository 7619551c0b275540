"""What the scores of a study's candidates depend on, as digests by what they are of.

The record keeps them. Where one of them is another now, scores, trainings and exports would mix
what does not belong together.
"""

from collections.abc import Callable, Mapping

from search.config import StudyConfig, decisive
from trainers.data import Task
from trainers.joint import TRAINING_VERSION
from trainers.proxy import SCORING_VERSION, FeatureCache
from trainers.teachers import Trained, fingerprint

#: Digests, shortened, by what they are of.
Basis = Mapping[str, str]
#: Called with digests as soon as they are known, before anything is computed from what they are of;
#: raises where they are not the ones that scores were made with.
Check = Callable[[Basis], None]


def accept(found: Basis) -> None:
    """The check of who has no scores yet."""


def changed(before: Basis, now: Basis) -> list[str]:
    """What differs, of what both know."""
    return [what for what, digest in now.items() if before.get(what, digest) != digest]


def program_basis(config: StudyConfig) -> dict[str, str]:
    """Of the program that scores, and trains where a short training is the score."""
    version = str(SCORING_VERSION)
    if config.evaluator == "proxy" and config.ladder[-1].fidelity == "full":
        version += f".{TRAINING_VERSION}"
    return {"the program's SCORING_VERSION": version}


def settings_basis(config: StudyConfig) -> dict[str, str]:
    """Of all settings that decide proposals or scores, but for the study's name."""
    return {
        f"the setting {key}": _short(fingerprint(value=value))
        for key, value in decisive(config).items()
        if key != "name"
    }


def data_basis(tasks: Mapping[str, Task], whose: str = "task") -> dict[str, str]:
    """Of the images and labels of every task."""
    found: dict[str, str] = {}
    for name, task in tasks.items():
        for split, data in task.splits.items():
            for part, digest in data.digests().items():
                found[f"the {split} {part} of {whose} {name}"] = _short(digest)
        found[f"the classes of {whose} {name}"] = _short(fingerprint(classes=task.classes))
    return found


def origin(what: str, digest: str) -> dict[str, str]:
    """Of all that determines what is about to be made or read."""
    return {f"how {what} is made": _short(digest)}


def weights_basis(what: str, trained: Trained) -> dict[str, str]:
    """Of weights themselves: made again, on another device say, they can be others."""
    return {f"the weights of {what}": _short(trained.content)}


def foundation_basis(
    tasks: Mapping[str, Task], trunk: Trained, teachers: Mapping[str, Trained], seed: int
) -> dict[str, str]:
    """Of tasks, trunk and teachers of a seed, as a record keeps them once it scores with them."""
    found = {**data_basis(tasks), **weights_basis(trunk_of(seed), trunk)}
    for name, teacher in teachers.items():
        found |= weights_basis(teacher_of(name, seed), teacher)
    return found


def trunk_of(seed: int) -> str:
    """What a trunk is called."""
    return f"the trunk of seed {seed}"


def teacher_of(task: str, seed: int) -> str:
    """What a teacher is called."""
    return f"the teacher of {task} of seed {seed}"


def training_basis(basis: Basis, seed: int) -> Basis:
    """What full training depends on: the tasks' data, and the weights of a seed."""
    return {
        what: digest
        for what, digest in basis.items()
        if " of task " in what
        or (what.startswith("the weights of") and what.endswith(f" of seed {seed}"))
    }


def features_basis(cache: FeatureCache, seed: int) -> dict[str, str]:
    """Of the features themselves; the seed is that of the proxy."""
    return {
        f"the features of {name} of seed {seed}": _short(features.content)
        for name, features in cache.tasks.items()
    }


def _short(digest: str) -> str:
    return digest[:20]
