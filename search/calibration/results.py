"""A study's calibration, candidate by candidate; every result is kept as soon as it is there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from partitioning import DamagedFileError, Masks, read_json, write_json
from search.calibration.choice import Chosen, choose, trained_twice
from search.calibration.measurement import measure
from search.config import StudyConfig, dump_config
from search.study import (
    Run,
    Say,
    Study,
    build_space,
    data_basis,
    foundations,
    move_aside,
    read_tasks,
    run_here,
)
from trainers.data import Task
from trainers.joint import TrainConfig
from trainers.teachers import fingerprint

#: Sections of the config that decide which candidates a vector and a seed mean.
CHOICE = ("tasks", "backbone", "space", "solver")
#: Sections that decide what is measured of a candidate.
MEASURED = ("input_size", "tasks", "backbone", "trunk", "teachers", "proxy")
#: How candidates are measured, see `measurement`: raised where that changes, so that older results
#: are measured anew. 2 has the proxy and full training measured on different images.
MEASUREMENT = 2


def calibration_folder(study: Study) -> Path:
    """Where a study keeps its calibration."""
    return study.folder / "calibration"


def full_training(config: StudyConfig) -> TrainConfig:
    """How a calibration trains in full."""
    return config.train.seen_once(config.calibration.sgd or config.train.sgd)


def settings_digest(config: StudyConfig) -> str:
    """Hash of the settings that decide what a calibration measures of given masks."""
    parts = {name: dump_config(config)[name] for name in MEASURED}
    if config.foundations != "shared":  # which is left out, as calibrations older than it are
        parts["foundations"] = config.foundations
    return fingerprint(
        kind="calibration",
        version=MEASUREMENT,
        training=full_training(config),
        multiples=config.calibration.multiples,
        precision=config.compute.precision,
        **parts,
    )


def measure_calibration(
    study: Study, *, say: Say = print, run: Run = run_here
) -> list[dict[str, Any]]:
    """Measure a study's calibration; what was measured with the same settings is not repeated.

    Args:
        study: Its record gives the candidates; where it has too few, others are drawn.
        say: Called with one line per thing that was done.
        run: Where candidates are scored and trained.

    Returns:
        One result per candidate and seed, in this order, as JSON: index, seed, candidate (its name
        in the record, or None), vector, use (mean), masks, and costs, proxy and full as `measure`
        gives them, or an error.
    """
    config, folder = study.config, calibration_folder(study)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = _kept_choice(study, folder / "candidates.json", say)
    digests = _digests(chosen, config)
    found = {pair: _read(result_path(folder, *pair), digests[pair], say) for pair in digests}
    if None in found.values():
        tasks = read_tasks(config, say)
        data = fingerprint(**data_basis(tasks))
        # What was measured of other data under the same path is measured anew.
        found = {
            p: kept if kept and kept.get("data") == data else None for p, kept in found.items()
        }
        missing = {result_path(folder, *pair).stem: pair for pair in found if found[pair] is None}
        steps = full_training(config).sgd.steps
        say(f"calibration: {len(missing)} of {len(found)} trainings of {steps} steps to do")
        jobs = _jobs(missing, chosen, study, tasks, run, say)
        for done, (key, measured) in enumerate(run(measure, jobs), start=1):
            index, seed = pair = missing[key]
            result = {
                "index": index,
                "seed": seed,
                "candidate": chosen[index].candidate,
                "vector": list(chosen[index].vector),
                "use": chosen[index].masks.mean_use(),
                "masks": chosen[index].masks.to_dict(),
                **measured,
                "digest": digests[pair],
                "data": data,
            }
            write_json(result_path(folder, index, seed), result, sealed=True)
            found[pair] = result
            say(f"calibration {done}/{len(missing)}: {_line(result)}")
    return [result for result in found.values() if result is not None]


def _digests(chosen: Sequence[Chosen], config: StudyConfig) -> dict[tuple[int, int], str]:
    """By candidate and seed, in the order of the results, what a measurement depends on."""
    use_N = np.array([entry.masks.mean_use() for entry in chosen])
    twice = trained_twice(use_N, config.calibration.trained_twice)
    pairs = [(index, 0) for index in range(len(chosen))]
    pairs += [(index, 1) for index in sorted(set(twice))]
    settings = [settings_digest(config.of_seed(_seed(entry, config))) for entry in chosen]
    return {
        (index, seed): fingerprint(
            settings=settings[index], masks=chosen[index].masks.digest(), seed=seed
        )
        for index, seed in pairs
    }


def _seed(chosen: Chosen, config: StudyConfig) -> int:
    """The seed whose foundation a candidate is measured on: its arm's, if these have their own.

    A candidate that was drawn has no arm; it is measured on that of the study's lowest seed.
    """
    if chosen.candidate is None or config.foundations == "shared":
        return min(config.seeds)
    return int(chosen.candidate.rsplit("-", 2)[1])


def _jobs(
    missing: Mapping[str, tuple[int, int]],
    chosen: Sequence[Chosen],
    study: Study,
    tasks: Mapping[str, Task],
    run: Run,
    say: Say,
) -> dict[str, dict[str, Any]]:
    """Arguments of `measure` for every measurement that is missing."""
    config = study.config
    seeds = {index: _seed(chosen[index], config) for index, _ in missing.values()}
    found = foundations(config, sorted(set(seeds.values())), run, say, study.check(), tasks)
    given = {
        "backbone": config.backbone,
        "training": full_training(config),
        "multiples": config.calibration.multiples,
        "compute": config.compute,
    }
    return {
        key: {
            "masks": chosen[index].masks,
            "seed": seed,
            "base": found[seeds[index]][0],
            "cache": found[seeds[index]][1],
            "proxy": config.of_seed(seeds[index]).proxy,
            **given,
        }
        for key, (index, seed) in missing.items()
    }


def result_path(folder: Path, index: int, seed: int) -> Path:
    """The file of one candidate and seed."""
    return folder / f"candidate{index:03d}-seed{seed}.json"


def _kept_choice(study: Study, path: Path, say: Say) -> list[Chosen]:
    """The candidates chosen before, or chosen now and kept: a record that grows changes none."""
    config = study.config
    content = dump_config(config)
    key = fingerprint(
        kind="candidates",
        candidates=config.calibration.candidates,
        seed=config.calibration.seed,
        **{name: content[name] for name in CHOICE},
    )
    kept = _kept(path, say)
    if kept.get("digest") != key:
        chosen = choose(study.candidates(), build_space(config), config.calibration)
        entries = [
            {"candidate": c.candidate, "vector": list(c.vector), "masks": c.masks.to_dict()}
            for c in chosen
        ]
        kept = {"digest": key, "candidates": entries}
        write_json(path, kept, sealed=True)
    return [
        Chosen(
            candidate=entry["candidate"],
            vector=tuple(entry["vector"]),
            masks=Masks.from_dict(entry["masks"]),
        )
        for entry in kept["candidates"]
    ]


def _read(path: Path, digest: str, say: Say) -> dict[str, Any] | None:
    """A finished result of these masks and settings; None if there is none."""
    kept = _kept(path, say)
    return kept if kept.get("digest") == digest else None


def _kept(path: Path, say: Say) -> dict[str, Any]:
    """What a file of the calibration holds; nothing where there is none, or a damaged one."""
    try:
        return read_json(path) if path.exists() else {}
    except DamagedFileError as error:
        move_aside(path, error, say)
        return {}


def _line(result: Mapping[str, Any]) -> str:
    name = result["candidate"] or f"candidate {result['index']}"
    name += f", seed {result['seed']}" * bool(result["seed"])
    if "error" in result:
        return f"{name}, left out: {result['error']}"
    proxy, full = (float(np.mean(list(result[k]["accuracy"].values()))) for k in ("proxy", "full"))
    return f"{name}: use {result['use']:.2f}, proxy {proxy:.3f}, full training {full:.3f}"
