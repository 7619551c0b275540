"""`apportion export`: a trained candidate as one small network per task."""

import json
from pathlib import Path

from search.arms import cluster_run
from search.commands.page import refresh_page
from search.commands.report import make_tracker
from search.commands.train import training_settings
from search.commands.watching import Curves
from search.config import ConfigError, StudyConfig
from search.mirror import TrackingError
from search.study import Say, Study, data_basis, export_level, read_tasks, require_place
from trainers.export import ExportConfig, Exported


def export(
    study: Study,
    pick: str,
    out: str | Path,
    *,
    seed: int = 0,
    settings: StudyConfig | None = None,
    files: ExportConfig | None = None,
    register: str | None = None,
    say: Say = print,
) -> Exported:
    """Write one compact network per task, with what has to be trained first trained on the cluster.

    Networks of a search's candidate are logged in MLflow, too, as models with their signatures, in
    the run of their training.

    Args:
        study: With scored candidates.
        pick: "knee" (the front's bend), "best" (the highest quality) or a candidate's name; of a
            study of methods METHOD-SEED-LEVEL.
        out: Folder of the networks, which appears once all of them are written and proven.
        seed: Of the training; of a study of methods its candidate says it.
        settings: How it is trained, as `training_settings` gives it; None for the study's own.
        files: Which are written; None for ONNX, torch and, of what a search has found, one file of
            all networks.
        register: Make each network a version of MLflow's registered model `<register>-<network>`.
        say: Called with one line per thing that was done.

    Returns:
        By network and file: how it compares with the network that it was cut from, and its bytes.

    Raises:
        StudyError: There is no such candidate, or the folder is there or cannot be written.
        ExportError: A compact network does not compute what the trained one does.
        TrackingError: Networks are to be registered, and MLflow cannot be reached.
    """
    if study.config.methods:
        if seed or settings or register is not None:
            raise ConfigError(
                "--seed, --set and --register are for what a search has found; a level of a method "
                "has its seed in its name"
            )
        files = files or ExportConfig(formats=("onnx", "pt2"))
        if "merged" in files.formats:
            raise ConfigError("one file of all networks is for what a search has found")
        exported = _export_level(study, pick, Path(out), files, say)
        refresh_page(study)
        return exported
    files = files or ExportConfig()
    if register is not None and "pt2" not in files.formats:
        raise ConfigError("--register needs the format pt2")
    how = settings or study.config
    curves = Curves(study, say)
    if register is not None:
        if not register.strip() or {"/", ":"} & {*register}:
            raise ConfigError(f"MLflow registers models by names without / and :, got {register!r}")
        if not curves.is_kept:
            raise TrackingError("networks cannot be registered without MLflow's runs of the study")
    run = cluster_run(how)
    try:
        exported = study.export(
            pick, out, seed=seed, settings=settings, files=files, say=say, run=run, watch=curves
        )
    finally:
        curves.finish()
        refresh_page(study)
    if "pt2" not in files.formats:
        return exported
    logged = curves.log_networks(
        study.pick(pick).id, seed, how, [Path(out) / name for name in exported.checks], register
    )
    if register and not logged:
        raise TrackingError("the networks are written, and could not be registered in MLflow")
    return exported


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


def _export_level(study: Study, pick: str, out: Path, files: ExportConfig, say: Say) -> Exported:
    """A level of a method."""
    candidate = study.pick(pick)
    require_place(out)
    check = study.check()
    tasks = read_tasks(study.config, say)
    check(data_basis(tasks))
    return export_level(study, candidate, tasks, out, files, say)
