"""Fit the surrogate of a study's proxy to scored points, and say how far it can be believed.

python benchmarks/surrogate_fit.py CONFIG NAME TABLE [TABLE ...] [--quick]

TABLEs are what surrogate_points.py writes. The points and what is fitted go to
search/simulated/tables/NAME.csv and NAME.json, which `evaluator: simulated` reads. Every task's
kernel is fitted by the marginal likelihood of 300 of the points, drawn at random, and predicts from
all (search/simulated/surrogate.py). The error
is that of five-fold cross-validation, kernels fitted anew without the fold, per task and for the
mean accuracy: root mean square, share of the variance that is explained (R2), and Spearman's
correlation, also among the best quarter of predictions. Part of it no surrogate can know: one
training differs from the next.
"""

import argparse
import csv
import io
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from partitioning import FloatArray, entry_tasks
from search.config import StudyConfig, load_config
from search.simulated.surrogate import Kernel, Surrogate, read_table
from search.strategies import TaskKnowledge, entry_kinds, matern
from search.study import build_foundation, run_here, task_knowledge

TABLES = Path(__file__).resolve().parent.parent / "search" / "simulated" / "tables"
FOLDS = 5
STEPS = 100
FITTED = 300


def fit(points_NE: FloatArray, accuracy_N: FloatArray, task: int, num_tasks: int) -> Kernel:
    """The kernel of greatest marginal likelihood (Rasmussen and Williams 2006, eq. 5.8).

    The mean is the one of greatest likelihood given the kernel.
    """
    chosen = np.random.default_rng(0).permutation(len(points_NE))[:FITTED]
    x_NE = torch.from_numpy(np.sqrt(points_NE[chosen]))
    y_N = torch.from_numpy(accuracy_N[chosen])
    kinds_TE = entry_kinds(entry_tasks(num_tasks), range(num_tasks), num_tasks)
    kinds_E = torch.from_numpy(kinds_TE[task])
    std = max(float(accuracy_N.std()), 1e-3)
    logs = torch.tensor(
        [math.log(v) for v in (0.5, 2.0, 5.0, 20.0, std, std / 5)],
        dtype=torch.float64, requires_grad=True,
    )  # fmt: skip
    optimizer = torch.optim.Adam([logs], lr=0.08)
    one_N1 = torch.ones(len(y_N), 1, dtype=torch.float64)
    mean = y_N.mean()
    for _ in range(STEPS):
        values = logs.exp()
        scaled_NE = x_NE / values[:4][kinds_E]
        norm_N = scaled_NE.square().sum(dim=1)
        squared_NN = norm_N[:, None] + norm_N - 2 * scaled_NE @ scaled_NE.T
        covariance_NN = values[4] ** 2 * matern(squared_NN)
        covariance_NN = covariance_NN + (values[5] ** 2 + 1e-8) * torch.eye(len(y_N))
        lower_NN = torch.linalg.cholesky(covariance_NN)
        solved_N1 = torch.cholesky_solve(one_N1, lower_NN)
        mean = (solved_N1[:, 0] @ y_N) / solved_N1.sum()
        centred_N1 = (y_N - mean)[:, None]
        fitted = (centred_N1 * torch.cholesky_solve(centred_N1, lower_NN)).sum()
        loss = fitted / 2 + lower_NN.diagonal().log().sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    own, shared, others, rest, scale, noise = logs.detach().exp().tolist()
    return Kernel(
        mean=float(mean.detach()), scale=scale, noise=noise, lengths=(own, shared, others, rest)
    )


def cross_validated(points_NE: FloatArray, accuracy_NT: FloatArray) -> FloatArray:
    """(N, T): predictions of each point by surrogates that have not seen it."""
    count, num_tasks = accuracy_NT.shape
    fold_N = np.random.default_rng(0).permutation(count) % FOLDS
    predicted_NT = np.empty_like(accuracy_NT)
    for fold in range(FOLDS):
        seen_N = fold_N != fold
        kernels = tuple(
            fit(points_NE[seen_N], accuracy_NT[seen_N, t], t, num_tasks) for t in range(num_tasks)
        )
        surrogate = Surrogate(TaskKnowledge(), points_NE[seen_N], accuracy_NT[seen_N], kernels)
        for position in np.flatnonzero(~seen_N):
            predicted_NT[position] = surrogate.at(points_NE[position])
        print(f"fold {fold + 1} of {FOLDS}", flush=True)
    return predicted_NT


def errors(predicted_N: FloatArray, measured_N: FloatArray) -> dict[str, float]:
    """How far predictions are off."""
    best_N = predicted_N >= np.quantile(predicted_N, 0.75)
    residual_N = predicted_N - measured_N
    return {
        "rmse": round(float(np.sqrt(np.square(residual_N).mean())), 5),
        "r2": round(float(1 - np.square(residual_N).mean() / measured_N.var()), 4),
        "spearman": round(float(spearmanr(predicted_N, measured_N)[0]), 4),
        "spearman_best_quarter": round(
            float(spearmanr(predicted_N[best_N], measured_N[best_N])[0]), 4
        ),
    }


def load_points(tables: Sequence[Path]) -> tuple[list[str], FloatArray, FloatArray]:
    """Names of the columns kept, realised P and accuracies of the points of all tables."""
    found = [read_table(path.read_text()) for path in tables]
    with tables[0].open(newline="") as file:
        names = [name for name in next(csv.reader(file)) if name != "index"]
    points_NE, accuracy_NT = (np.concatenate(part) for part in zip(*found, strict=True))
    return names, points_NE, accuracy_NT


def write(folder: Path, name: str, tables: Sequence[Path], knowledge: TaskKnowledge) -> None:
    """Fit, cross-validate, print and write both files."""
    columns, points_NE, accuracy_NT = load_points(tables)
    tasks = [task.name for task in knowledge.tasks]
    predicted_NT = cross_validated(points_NE, accuracy_NT)
    found: dict[str, Any] = {
        task: errors(predicted_NT[:, t], accuracy_NT[:, t]) for t, task in enumerate(tasks)
    }
    found["mean"] = errors(predicted_NT.mean(axis=1), accuracy_NT.mean(axis=1))
    for task, row in found.items():
        print(f"{task:16}", "  ".join(f"{key} {value:.4f}" for key, value in row.items()))
    kernels = [fit(points_NE, accuracy_NT[:, t], t, len(tasks)) for t in range(len(tasks))]
    assert knowledge.similarity is not None
    result = {
        "points": len(points_NE),
        "tasks": [asdict(task) for task in knowledge.tasks],
        "similarity": np.round(knowledge.similarity, 4).tolist(),
        "kernels": [asdict(kernel) for kernel in kernels],
        "cross_validation": {"folds": FOLDS, **found},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(np.concatenate([points_NE, accuracy_NT], axis=1).round(5).tolist())
    (folder / f"{name}.csv").write_text(text.getvalue())


def knowledge_of(config: StudyConfig) -> TaskKnowledge:
    """Facts of a study's tasks, and how alike their teachers are."""
    base = build_foundation(config, run_here, print)
    return task_knowledge(config, base, run_here, print)


def main() -> None:
    """Fit the tables named, or with --quick made-up points of toy tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?")
    parser.add_argument("name", nargs="?")
    parser.add_argument("tables", nargs="*", type=Path, metavar="TABLE")
    parser.add_argument("--quick", action="store_true", help="40 points of tiny toy tasks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        from surrogate_points import QUICK, collect

        with tempfile.TemporaryDirectory() as folder:
            config = load_config("configs/quickstart.yaml", [*QUICK, f"output={folder}"])
            table = Path(folder) / "points.csv"
            collect(config, table, range(40))
            write(Path(folder), "quick", [table], knowledge_of(config))
        return
    if not options.tables:
        parser.error("give a config, a name and the tables to fit")
    write(TABLES, options.name, options.tables, knowledge_of(load_config(options.config)))


if __name__ == "__main__":
    main()
