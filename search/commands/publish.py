"""`apportion export`: a trained candidate as one small network per task."""

from pathlib import Path

from search.arms import cluster_run
from search.study import Say, Study, data_basis, export_level, read_tasks, require_writable
from trainers.export import ExportCheck


def export(study: Study, pick: str, out: str | Path, *, say: Say = print) -> dict[str, ExportCheck]:
    """Write one compact network per task, with what has to be trained first trained on the cluster.

    Args:
        study: With scored candidates.
        pick: "knee" (the front's bend), "best" (the highest quality) or a candidate's name; of a
            study of methods METHOD-SEED-LEVEL.
        out: Folder of the networks, made if it is not there.
        say: Called with one line per thing that was done.

    Returns:
        By network: how it compares with the network that it was cut from.

    Raises:
        StudyError: There is no such candidate, or the folder cannot be written.
        ExportError: A compact network does not compute what the trained one does.
    """
    if not study.config.methods:
        return study.export(pick, out, say=say, run=cluster_run(study.config))
    candidate = study.pick(pick)
    require_writable(Path(out))
    check = study.check()
    tasks = read_tasks(study.config, say)
    check(data_basis(tasks))
    return export_level(study, candidate, tasks, Path(out), say)
