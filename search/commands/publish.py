"""`apportion export`: a trained candidate as one small network per task."""

from pathlib import Path

from search.arms import cluster_run
from search.config import ConfigError, StudyConfig
from search.study import Say, Study, data_basis, export_level, read_tasks, require_writable
from trainers.export import ExportCheck


def export(
    study: Study,
    pick: str,
    out: str | Path,
    *,
    seed: int = 0,
    settings: StudyConfig | None = None,
    say: Say = print,
) -> dict[str, ExportCheck]:
    """Write one compact network per task, with what has to be trained first trained on the cluster.

    Args:
        study: With scored candidates.
        pick: "knee" (the front's bend), "best" (the highest quality) or a candidate's name; of a
            study of methods METHOD-SEED-LEVEL.
        out: Folder of the networks, made if it is not there.
        seed: Of the training; of a study of methods its candidate says it.
        settings: How it is trained, as `training_settings` gives it; None for the study's own.
        say: Called with one line per thing that was done.

    Returns:
        By network: how it compares with the network that it was cut from.

    Raises:
        StudyError: There is no such candidate, or the folder cannot be written.
        ExportError: A compact network does not compute what the trained one does.
    """
    if not study.config.methods:
        run = cluster_run(settings or study.config)
        return study.export(pick, out, seed=seed, settings=settings, say=say, run=run)
    if seed or settings:
        raise ConfigError(
            "--seed and --set are for what a search has found; a level of a method has its seed in "
            "its name"
        )
    candidate = study.pick(pick)
    require_writable(Path(out))
    check = study.check()
    tasks = read_tasks(study.config, say)
    check(data_basis(tasks))
    return export_level(study, candidate, tasks, Path(out), say)
