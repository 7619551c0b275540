"""Real proxy scores of points spread over a space, for a surrogate to be fitted to.

python benchmarks/surrogate_points.py CONFIG TABLE [--count N] [--part I/N] [--study FOLDER]

CONFIG is a study with one P for all channel groups. Every candidate is scored by its proxy, in one
training; trunk, teachers and features are made where its cache has none. Each point becomes a line
of TABLE (CSV): its index, the realised P (of all groups together) and the validation accuracy of
every task. Lines that are there already are kept, so the command can be stopped and run again;
--part 0/2 and --part 1/2, into tables of their own, share the work between two processes. With
--study, the candidates that a study with the same proxy has scored are written instead.

A point is a function of its index alone. Uniform vectors would leave the cheap end empty (nine
uniform uses average half) and hardly vary the mean overlap. So points are drawn around levels: a
mean use from a sequence that fills the range evenly, a mean overlap uniform, tasks and pairs spread
around them by a Beta distribution of random concentration; in a third of the points tasks belong to
clusters that share much within and little between.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from partitioning import FloatArray, Masks, matrix_to_vector
from search.config import StudyConfig, load_config
from search.study import Study, build_foundation, build_space, feature_cache, run_here
from trainers.proxy import DivergedError, Proxy

#: Steps of the golden ratio fill [0, 1] evenly, however many there are.
GOLDEN = (5**0.5 - 1) / 2
QUICK = [
    "input_size=8", "backbone.args.width=4", "trunk.sgd.steps=20", "teachers.sgd.steps=20",
    "proxy.sgd.steps=24", "proxy.images=64",
]  # fmt: skip


def point(index: int, num_tasks: int) -> FloatArray:
    """The index-th point, shape (T (T + 1) / 2,), entries in [0, 1]."""
    rng = np.random.default_rng([index, num_tasks])

    def around(mean: FloatArray) -> FloatArray:
        mean = np.clip(mean, 0.01, 0.99)
        concentration = 10 ** rng.uniform(0.3, 2.3)
        return rng.beta(mean * concentration, (1 - mean) * concentration)

    uses = around(np.full(num_tasks, (index + 0.5) * GOLDEN % 1.0))
    i, j = np.triu_indices(num_tasks, k=1)
    level = np.full(len(i), rng.random())
    if rng.random() < 1 / 3:
        cluster = rng.integers(rng.integers(2, max(3, num_tasks)), size=num_tasks)
        level = np.where(cluster[i] == cluster[j], 0.5 + level / 2, level / 2)
    return np.concatenate([uses, around(level)])


def line(index: int, masks: Masks, accuracy: Mapping[str, float]) -> dict[str, float]:
    """A line of the table."""
    tasks = masks.tasks
    i, j = np.triu_indices(len(tasks), k=1)
    names = [f"use[{task}]" for task in tasks]
    names += [f"overlap[{tasks[a]},{tasks[b]}]" for a, b in zip(i, j, strict=True)]
    values = [round(float(x), 6) for x in matrix_to_vector(masks.mean_realised())]
    scores = {f"accuracy[{task}]": round(accuracy[task], 6) for task in tasks}
    return {"index": index, **dict(zip(names, values, strict=True)), **scores}


def append(table: Path, row: Mapping[str, float]) -> None:
    """Add a line to the table, which gets a header with its first."""
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def collect(config: StudyConfig, table: Path, indices: range) -> None:
    """Score the points that the table does not have yet and append them."""
    done: set[int] = set()
    if table.exists():
        with table.open(newline="") as file:
            done = {int(row["index"]) for row in csv.DictReader(file)}
    torch.set_num_threads(max(1, config.compute.threads))
    base = build_foundation(config, run_here, print)
    cache = feature_cache(config, base, run_here, print)
    proxy, space = Proxy(cache, config.proxy, config.compute), build_space(config)
    started, todo = time.perf_counter(), [i for i in indices if i not in done]
    for number, index in enumerate(todo, start=1):
        masks = space.decode(point(index, len(config.tasks))).masks
        (result,) = proxy.score([masks])
        if isinstance(result, DivergedError):
            print(f"point {index}: {result}")
            continue
        append(table, line(index, masks, result.accuracy))
        each = (time.perf_counter() - started) / number
        print(
            f"{number}/{len(todo)}: point {index}, mean use {masks.mean_use():.3f}, "
            f"quality {result.quality:.4f}; {each * (len(todo) - number) / 60:.0f} min left",
            flush=True,
        )


def convert(study: Study, config: StudyConfig, table: Path) -> None:
    """Write the candidates that a study has scored to the end.

    Raises:
        ValueError: The study scores in another way, or other tasks.
    """
    for part in ("tasks", "trunk", "teachers", "proxy", "backbone", "input_size"):
        if getattr(study.config, part) != getattr(config, part):
            raise ValueError(f"{study.folder} has another {part} than the config")
    for number, candidate in enumerate(c for c in study.candidates() if not c.failed):
        if not candidate.stopped:
            append(table, line(number, candidate.masks, candidate.accuracy))


def main() -> None:
    """Collect a table, or with --quick a tiny one of toy tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default="configs/mini_decathlon.yaml")
    parser.add_argument("table", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=640)
    parser.add_argument("--part", default="0/1", metavar="I/N")
    parser.add_argument("--study", type=Path, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="four points of tiny toy tasks")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            config = load_config("configs/quickstart.yaml", [*QUICK, f"output={folder}"])
            collect(config, Path(folder) / "points.csv", range(4))
            return
    if options.table is None:
        parser.error("name the table to write")
    config = load_config(options.config)
    if options.study is not None:
        convert(Study(options.study), config, options.table)
        return
    collect(config, options.table, range(part, options.count, parts))


if __name__ == "__main__":
    main()
