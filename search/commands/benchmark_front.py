"""`apportion benchmark STUDY`: how fast the members of a front are on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from partitioning import write_atomically
from search.candidates import front
from search.report import front_latency_figure
from search.study import Study, StudyError
from trainers.export import measure_rows, processor


@dataclass(frozen=True, kw_only=True)
class FrontTiming:
    """How fast the networks of a candidate are.

    Attributes:
        candidate: Its name.
        quality: As it was scored.
        cost: That the study made small.
        batch: Images at a time.
        threads: Of the processor.
        ms: Milliseconds for them, the mean over its networks; of each the median over turns.
        undivided_ms: The same of the network without masks, in the same turns.
    """

    candidate: str
    quality: float
    cost: float
    batch: int
    threads: int
    ms: float
    undivided_ms: float

    @property
    def relative(self) -> float:
        """Relative to the network without masks."""
        return self.ms / self.undivided_ms


def benchmark_front(
    study: Study,
    picks: Sequence[str] = (),
    *,
    batches: Sequence[int] = (1, 64),
    threads: Sequence[int] = (1,),
) -> list[FrontTiming]:
    """Time the networks of a study's candidates in ONNX Runtime, as they would be exported.

    Weights play no part in it, so nothing needs to be trained.

    Args:
        study: A study of strategies.
        picks: Names of candidates, see `Study.pick`; none for the front.
        batches: Images at a time.
        threads: Of the processor.

    Raises:
        StudyError: There are no such candidates.
        MissingLibraryError: ONNX Runtime is not installed.
        ValueError: A batch or a number of threads is below 1.
    """
    if min(*batches, *threads, 1) < 1:
        raise ValueError("batches and threads are at least 1")
    if study.config.methods:
        raise StudyError(
            f"{study.folder} has methods: export a level of them, and time that with `apportion "
            "benchmark EXPORT`"
        )
    chosen = study.picks(picks) if picks else front(study.candidates())
    if not chosen:
        raise StudyError(f"{study.folder} has no candidate with a score")
    backbone = study.config.network
    kept = [np.ones((1, backbone.division.units), dtype=np.bool_)]
    kept += [backbone.kept(study.masks(one)) for one in chosen]
    of_R = np.repeat(np.arange(len(kept)), [len(own) for own in kept])
    found = []
    for count in threads:
        ms_RB = measure_rows(
            backbone, np.concatenate(kept), study.config.size, batches, threads=count
        )
        for number, candidate in enumerate(chosen, start=1):
            assert candidate.quality is not None
            assert candidate.cost is not None
            found += [
                FrontTiming(
                    candidate=candidate.id,
                    quality=candidate.quality,
                    cost=candidate.cost,
                    batch=batch,
                    threads=count,
                    ms=float(ms_RB[of_R == number, at].mean()),
                    undivided_ms=float(ms_RB[0, at]),
                )
                for at, batch in enumerate(batches)
            ]
    return found


def print_front_timings(timings: Sequence[FrontTiming], console: Console) -> None:
    """Print a row for each candidate and number of threads, a column for each batch."""
    batches = list(dict.fromkeys(one.batch for one in timings))
    table = Table(
        title=f"milliseconds (relative to the undivided network), {processor()}",
        title_justify="left",
    )
    table.add_column("candidate", no_wrap=True)
    for name in ("quality", "cost", "threads", *(f"batch {batch}" for batch in batches)):
        table.add_column(name, justify="right")
    rows: dict[tuple[str, int], dict[int, FrontTiming]] = {}
    for one in timings:
        rows.setdefault((one.candidate, one.threads), {})[one.batch] = one
    for own in rows.values():
        first = own[batches[0]]
        cells = [f"{own[b].ms:.2f} ({own[b].relative:.2f})" for b in batches]
        table.add_row(
            first.candidate, f"{first.quality:.3f}", f"{first.cost:.3f}", str(first.threads), *cells
        )
    console.print(table)


def draw_front_timings(timings: Sequence[FrontTiming], path: Path) -> None:
    """Draw quality by relative latency, a line for each batch and number of threads."""
    lines: dict[str, list[tuple[float, float]]] = {}
    many = len({one.threads for one in timings}) > 1
    for one in timings:
        name = f"batch {one.batch}" + f", {one.threads} threads" * many
        lines.setdefault(name, []).append((one.relative, one.quality))
    with write_atomically(path) as partial:
        front_latency_figure(lines, processor(), partial)
