"""The studies of a folder: how far each is, what it takes and what it found."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.candidates import Candidate, picks_of
from search.record import is_written
from search.study import Study, StudyError

#: Files by which a study is known, even where one of them is gone.
SIGNS = ("config.yaml", "record.journal")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A study in a list.

    Attributes:
        name: Of its folder.
        folder: Where it lies.
        state: running, finished, stopped, empty or damaged.
        reason: Why it is damaged, or stopped where that is known; else empty.
        candidates: That were recorded.
        failed: Those of them without a score.
        bytes: What its files take, each file once.
        best: The candidate of the highest quality; None where none has a score.
        knee: The front's bend; likewise.
    """

    name: str
    folder: Path
    state: str
    reason: str = ""
    candidates: int = 0
    failed: int = 0
    bytes: int = 0
    best: Candidate | None = None
    knee: Candidate | None = None

    def summary(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {
            "study": self.name,
            "folder": str(self.folder),
            "state": self.state,
            "reason": self.reason or None,
            "candidates": self.candidates,
            "failed": self.failed,
            "bytes": self.bytes,
            "best": _point(self.best),
            "knee": _point(self.knee),
        }


def list_studies(folder: Path) -> list[Listed]:
    """All studies of a folder, by name; those that are damaged, too.

    Raises:
        StudyError: There is no such folder, or it is a study itself.
    """
    if not folder.is_dir():
        raise StudyError(f"there is no folder {folder}: name one that holds studies")
    if is_study(folder):
        raise StudyError(f"{folder} is a study, not a folder of studies: apportion front {folder}")
    return [look_at(one) for one in sorted(folder.iterdir()) if is_study(one)]


def is_study(folder: Path) -> bool:
    """Whether a folder is a study, sound or damaged."""
    return any((folder / name).is_file() for name in SIGNS)


def look_at(folder: Path) -> Listed:
    """What a list says of the study in a folder."""
    size = size_of(folder)
    try:
        study = Study(folder)
        candidates, faults = study.candidates(), study.faults()
        state, reason = _state(study, candidates)
        picks = picks_of(candidates)
    except Exception as error:  # whatever a damaged file comes to is no reason to hide the others
        lines = str(error).splitlines() or [type(error).__name__]
        return Listed(name=folder.name, folder=folder, state="damaged", reason=lines[0], bytes=size)
    if faults and state != "running":  # whose last line may be half there
        state, reason = "damaged", f"{'; '.join(faults)}; --resume mends it"
    return Listed(
        name=folder.name,
        folder=folder,
        state=state,
        reason=reason,
        candidates=len(candidates),
        failed=sum(candidate.failed for candidate in candidates),
        bytes=size,
        best=picks.get("best"),
        knee=picks.get("knee"),
    )


def _state(study: Study, candidates: Sequence[Candidate]) -> tuple[str, str]:
    """A sound study's state, and why where that is known."""
    if is_written(study.record_path.absolute()):
        return "running", ""
    if not candidates:
        return "empty", ""
    ended = study.ended()
    if ended is None:  # killed, or of before this was kept
        return ("finished" if _is_complete(study, candidates) else "stopped"), ""
    if ended == "FINISHED":
        return "finished", ""
    return "stopped", "it broke down" if ended == "FAILED" else ""


def _is_complete(study: Study, candidates: Sequence[Candidate]) -> bool:
    """Whether every arm has all candidates that the config gives it."""
    config = study.config
    found: dict[tuple[str, int], list[Candidate]] = {}
    for one in candidates:
        found.setdefault((one.strategy, one.seed), []).append(one)
    for arm in product(config.strategies, config.seeds):
        own = found.get(arm, [])
        are_fixed = bool(own) and all(one.label for one in own)  # of which there may be fewer
        if len(own) < config.candidates and not are_fixed:
            return False
    return True


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; a file that has several names there counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        try:
            about = path.lstat()
        except OSError:  # gone meanwhile, as a running search's files may be
            continue
        if not path.is_dir():
            sizes[about.st_dev, about.st_ino] = about.st_size
    return sum(sizes.values())


def print_studies(studies: Sequence[Listed], folder: Path, console: Console) -> None:
    """Print a list of studies as a table, and below it why some are damaged.

    Args:
        studies: What `list_studies` found.
        folder: Where.
        console: Where to.
    """
    if not studies:
        console.print(f"no studies in {folder}", highlight=False, markup=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("study", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("candidates", "size", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("knee", overflow="fold")
    for one in studies:
        best = "" if one.best is None else f"{one.best.quality:.3f}"
        counts = str(one.candidates) if one.state != "damaged" or one.candidates else ""
        table.add_row(one.name, one.state, counts, in_bytes(one.bytes), best, words(one.knee))
    console.print(table)
    for one in studies:
        if one.reason:
            line = f"{one.name}: {one.reason}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def words(candidate: Candidate | None) -> str:
    """A candidate's quality and cost, and what it is called; empty for none."""
    if candidate is None:
        return ""
    name = candidate.label or candidate.id
    return f"{candidate.quality:.3f} at cost {candidate.cost:.3f} ({name})"


def in_bytes(count: int) -> str:
    """A size in words.

    Example:
        >>> in_bytes(999), in_bytes(12_345_678)
        ('999 B', '12 MB')
    """
    units = ["B", "kB", "MB", "GB"]
    while count >= 1000 and len(units) > 1:
        count = round(count / 1000)
        units.pop(0)
    return f"{count} {units[0]}"


def _point(candidate: Candidate | None) -> dict[str, Any] | None:
    if candidate is None:
        return None
    return {
        "candidate": candidate.id,
        "label": candidate.label,
        "quality": candidate.quality,
        "cost": candidate.cost,
    }
