"""`apportion export`: a trained candidate as one small network per task."""

import json
from pathlib import Path

from search.arms import cluster_run
from search.commands.report import make_tracker
from search.commands.train import training_settings
from search.commands.watching import Curves
from search.config import ConfigError, StudyConfig
from search.mirror import TrackingError
from search.study import Say, Study, data_basis, export_level, read_tasks, require_writable
from trainers.export import ExportCheck


def export(
    study: Study,
    pick: str,
    out: str | Path,
    *,
    seed: int = 0,
    settings: StudyConfig | None = None,
    register: str | None = None,
    say: Say = print,
) -> dict[str, ExportCheck]:
    """Write one compact network per task, with what has to be trained first trained on the cluster.

    Networks of a search's candidate are logged in MLflow, too, as models with their signatures, in
    the run of their training.

    Args:
        study: With scored candidates.
        pick: "knee" (the front's bend), "best" (the highest quality) or a candidate's name; of a
            study of methods METHOD-SEED-LEVEL.
        out: Folder of the networks, made if it is not there.
        seed: Of the training; of a study of methods its candidate says it.
        settings: How it is trained, as `training_settings` gives it; None for the study's own.
        register: Make each network a version of MLflow's registered model `<register>-<network>`.
        say: Called with one line per thing that was done.

    Returns:
        By network: how it compares with the network that it was cut from.

    Raises:
        StudyError: There is no such candidate, or the folder cannot be written.
        ExportError: A compact network does not compute what the trained one does.
        TrackingError: Networks are to be registered, and MLflow cannot be reached.
    """
    if study.config.methods:
        if seed or settings or register:
            raise ConfigError(
                "--seed, --set and --register are for what a search has found; a level of a method "
                "has its seed in its name"
            )
        return _export_level(study, pick, Path(out), say)
    how = settings or study.config
    curves = Curves(study, say)
    run = cluster_run(how)
    checks = study.export(pick, out, seed=seed, settings=settings, say=say, run=run, watch=curves)
    curves.finish()
    logged = curves.log_networks(
        study.pick(pick).id, seed, how, [Path(out) / name for name in checks], register
    )
    if register and not logged:
        raise TrackingError("the networks are written, and could not be registered in MLflow")
    return checks


def training_of(study: Study, run_id: str) -> tuple[str, int, StudyConfig]:
    """Candidate, seed and settings of a training, by its run in MLflow.

    Args:
        study: The study.
        run_id: MLflow's id of the run.

    Raises:
        ConfigError: The study has no such training.
        TrackingError: MLflow cannot be reached.
    """
    tracker = make_tracker(study)()
    found = tracker.training(run_id) if tracker.attach() else None
    if found is None:
        raise ConfigError(
            f"{study.store_uri} has no run {run_id} of a training of {study.folder}: give the id "
            "that MLflow shows for a run whose name ends in its seed and settings"
        )
    candidate, seed, described = found
    changed = [f"train={json.dumps(described['train'])}"]
    changed += [f"compute.precision={described['precision']}"]
    return candidate, seed, training_settings(study, changed)


def _export_level(study: Study, pick: str, out: Path, say: Say) -> dict[str, ExportCheck]:
    """A level of a method."""
    candidate = study.pick(pick)
    require_writable(out)
    check = study.check()
    tasks = read_tasks(study.config, say)
    check(data_basis(tasks))
    return export_level(study, candidate, tasks, out, say)
