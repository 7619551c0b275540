"""`apportion benchmark`: how fast exported networks are on this machine."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from partitioning import write_atomically
from search.report import latency_figure
from trainers.export import (
    Loaded,
    latencies,
    open_networks,
    processor,
    torch_threads,
)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a network takes.

    Attributes:
        network: Its name.
        file: Which of its files was run.
        threads: Of the processor.
        batch: Images at a time.
        ms: Milliseconds for them, the median over turns.
    """

    network: str
    file: str
    threads: int
    batch: int
    ms: float

    @property
    def images_per_second(self) -> float:
        """How many it computes."""
        return 1000 * self.batch / self.ms


def benchmark_export(
    folder: Path,
    *,
    networks: Sequence[str] = (),
    precisions: Sequence[str] = ("float32",),
    batches: Sequence[int] = (1, 16, 64),
    threads: Sequence[int] = (1,),
    seconds: float = 2.0,
) -> list[Timing]:
    """Time exported networks, all of which take turns.

    Args:
        folder: Of an export, or of one of its networks.
        networks: Which; none for all.
        precisions: Of `float32`, `float16` and `int8`.
        batches: Images at a time.
        threads: Of the processor.
        seconds: After which, for each batch and number of threads, no further turn begins.

    Raises:
        ExportError: There are no such networks.
        MissingLibraryError: A runtime is not installed.
        ValueError: A batch or a number of threads is below 1.
    """
    if min(*batches, *threads, 1) < 1:
        raise ValueError("batches and threads are at least 1")
    found = []
    for count in threads:
        loaded = [
            one
            for precision in precisions
            for one in open_networks(folder, networks, precision=precision, threads=count)
        ]
        with torch_threads(count), torch.no_grad():
            for batch in batches:
                runs = {one: functools.partial(one.run, _images(one, batch)) for one in loaded}
                taken = latencies(runs, seconds=seconds)
                found += [
                    Timing(network=one.name, file=one.file, threads=count, batch=batch, ms=ms)
                    for one, ms in taken.items()
                ]
    return found


def _images(network: Loaded, batch: int) -> torch.Tensor:
    """Grey images as the network reads them."""
    own = network.about["input"]
    shape = (batch, 3, own["size"], own["size"])
    if own["type"] == "float32":
        return torch.zeros(shape)
    return torch.full(shape, 128, dtype=torch.uint8)


def print_timings(timings: Sequence[Timing], console: Console) -> None:
    """Print a row for each network and number of threads, a column for each batch."""
    batches = list(dict.fromkeys(one.batch for one in timings))
    table = Table(title=f"milliseconds (images a second), {processor()}", title_justify="left")
    for name in ("network", "file", "threads"):
        table.add_column(name, no_wrap=True)
    for batch in batches:
        table.add_column(f"batch {batch}", justify="right")
    rows: dict[tuple[str, str, int], dict[int, Timing]] = {}
    for one in timings:
        rows.setdefault((one.network, one.file, one.threads), {})[one.batch] = one
    for (network, file, threads), own in rows.items():
        cells = [f"{own[b].ms:.2f} ({own[b].images_per_second:.0f})" for b in batches]
        table.add_row(network, file, str(threads), *cells)
    console.print(table)


def draw_timings(timings: Sequence[Timing], path: Path) -> None:
    """Draw milliseconds by batch, a line for each file, the mean over networks."""
    lines: dict[str, dict[int, list[float]]] = {}
    many = len({one.threads for one in timings}) > 1
    for one in timings:
        threads = "1 thread" if one.threads == 1 else f"{one.threads} threads"
        name = f"{one.file}, {threads}" if many else one.file
        lines.setdefault(name, {}).setdefault(one.batch, []).append(one.ms)
    with write_atomically(path) as partial:
        latency_figure(lines, processor(), partial)
