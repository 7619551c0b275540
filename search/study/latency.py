"""The table that latencies follow from: measured once, then kept with the study."""

from contextlib import suppress
from pathlib import Path

from partitioning import DamagedFileError, read_json, write_json
from search.config import StudyConfig
from search.study.basis import Check, accept, origin
from search.study.foundation import Run, run_here
from search.study.shelf import Say, Shelf, own_folder
from trainers.export import LatencyTable, measure_latency
from trainers.teachers import fingerprint


def latency_table(
    config: StudyConfig, run: Run = run_here, say: Say = print, check: Check = accept
) -> LatencyTable:
    """Measure or read how long the layers of a study's network take.

    Other studies do not use it: they may be on other machines.

    Args:
        config: The study.
        run: Where they are timed.
        say: Called with one line per thing that was done.
        check: Called with a digest of it.
    """
    own = own_folder(config.folder)
    shelf, batch = Shelf(own=own, shared=own), config.objective.latency_batch
    size = config.size
    digest = fingerprint(backbone=config.backbone, size=size, batch=batch, compute=config.compute)
    name = f"latency-{digest[:20]}.json"
    table = shelf.find(name, _read, say)
    if table is None:
        say("latency: the network's layers are timed alone, then some whole networks")
        job = {"config": config.backbone, "size": size, "batch": batch, "compute": config.compute}
        ((_, table),) = run(measure_latency, {"latency": job})
        shelf.keep(name, lambda path: write_json(path, table.content, sealed=True))
    check(origin("the table of latencies", fingerprint(table=table)))
    say(
        f"latency: of {table.batch} image{'s' * (table.batch > 1)} at a time on {table.device}, "
        f"{table.threads} thread{'s' * (table.threads > 1)}; networks that were timed to try the "
        f"table differ from it by {table.error:.0%} (median)"
    )
    return table


def searched_latency(
    config: StudyConfig, run: Run = run_here, say: Say = print, check: Check = accept
) -> LatencyTable | None:
    """The same where latency is what the study makes small; None elsewhere."""
    is_cost = config.objective.cost == "latency"
    return latency_table(config, run, say, check) if is_cost else None


def kept_latency(study: Path) -> LatencyTable | None:
    """The table that a study keeps, the newest if it has several; None without one.

    Args:
        study: The study's folder.
    """
    paths = own_folder(study).glob("latency-*.json")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(DamagedFileError, OSError):
            return _read(path)
    return None


def _read(path: Path) -> LatencyTable:
    try:
        return LatencyTable.of(read_json(path))
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged: it is no table of latencies") from error
