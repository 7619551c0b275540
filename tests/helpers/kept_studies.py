"""Small studies of images from files, searched in this process: no Ray, seconds."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from search.candidates import Candidate
from search.config import StudyConfig, parse_config
from search.record import Record
from search.study import Study, build_space, run_here, supplies_by_seed
from tests.helpers.studies import TINY
from trainers.proxy import DivergedError, distill

#: What nothing of is to be made any more.
FOUNDATION = ("trunk-*", "teacher-*", "features-*", "similarity-*")


def write_data(folder: Path, shift: int = 0) -> None:
    """A task of two classes, dark and bright images; `shift` rotates the labels of training."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "validation", "test"):
        labels = np.arange(40) % 2
        noise = rng.integers(0, 100, (40, 8, 8, 3))
        arrays[f"{split}_images"] = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = np.roll(labels, shift if split == "train" else 0)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "parts.npz", **arrays)


def config(folder: Path, **changed: Any) -> StudyConfig:
    """Of a study below `folder`, of a task in `data/parts.npz` and a drawn one."""
    tasks = [
        {"name": "parts", "source": "npz", "path": "data/parts.npz"},
        {"name": "digits", "source": "toy", "limit": 60},
    ]
    own = {"name": "t", "output": str(folder / "studies"), "tasks": tasks, "candidates": 2}
    return parse_config(TINY | own | {"strategies": {"random": {}}} | changed)


def silent(line: str) -> None:
    """Says nothing."""


def no_jobs(function: Any, jobs: Any) -> Iterator[tuple[str, Any]]:
    """Runs nothing, and fails where something is to be made."""
    assert not jobs, f"{list(jobs)} are made again"
    return iter(())


def searched(config: StudyConfig, *, run: Any = run_here, say: Any = silent) -> Study:
    """Searches a study, or goes on with it, as `apportion search` does."""
    study = Study.create(config, resume=(config.folder / "config.yaml").is_file())
    scored_on = dict(study.basis)
    supplies = supplies_by_seed(study.config, run, say, study.check(scored_on))
    study.keep_facts(supplies[0].knowledge)
    features, space = supplies[0].cache, build_space(config)
    assert features is not None
    rng = np.random.default_rng(0)
    with Record(study.record_path, study.name) as record:
        record.begin("random", 0, scored_on)
        known = {candidate.index for candidate in record.candidates()}
        for index in range(config.candidates):
            vector = rng.random(space.dim)
            masks = space.decode(vector).masks
            if index in known:
                continue
            (score,) = distill([masks], features, config.proxy, config.compute)
            assert not isinstance(score, DivergedError)
            record.add(candidate(index, vector, masks, score))
    return study


def candidate(index: int, vector: Any, masks: Any, score: Any) -> Candidate:
    """A scored candidate of the random strategy."""
    from search.candidates import Decoding, Measurement

    return Candidate(
        strategy="random", seed=0, index=index, vector=tuple(map(float, vector)),
        names=tuple(f"entry[{i}]" for i in range(len(vector))),
        quality=score.quality, cost=score.costs.mean_use, costs=score.costs,
        decoding=Decoding.of(masks),
        rungs=(Measurement(steps=1, quality=score.quality, accuracy=dict(score.accuracy)),),
    )  # fmt: skip


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, by path, with a hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
