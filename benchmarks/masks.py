"""How long the step from P to masks takes, and how close the masks come, on random refined P.

python benchmarks/masks.py [--json FILE] [--quick]

Three methods on the same P, ten for each size, from seed 0:

exact     ours, with its default settings: 10 seconds at most.
paper_mip the integer programme of Newell et al. 2019, A.1, over one binary per channel and task,
          and one more per channel and pair. Absolute deviations from C P take the place of the
          one-sided ones that are printed (see partitioning/solver.py). 60 seconds at most, and
          only where that is not hopeless from the start.
sampling  the usual heuristic: task by task, the best of 100 random draws of as many channels as
          the task should have, channels that tasks before it should share being likelier.

Deviations are from round(C P), the diagonal once and every pair twice, and are means over the P, as
are bounds. A bound is what the method proved itself; sampling proves nothing, so it is held against
ours. gap is (deviation - bound) / max(1, bound); the table has the worst of the P beside it.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pulp

from partitioning import refine, round_to_channels, solve, vector_to_matrix

SIZES = ((3, 64), (5, 64), (9, 64), (9, 256), (9, 512), (12, 256), (20, 256), (10, 2048), (10, 256))
PAPER_SIZES = ((3, 64), (9, 64))
SAMPLES = 100


@dataclass(frozen=True)
class Result:
    """What one method made of one P: deviation and bound in channels, wall seconds."""

    deviation: float
    bound: float
    seconds: float

    @property
    def gap(self) -> float:
        """Distance to the bound, relative to it."""
        return (self.deviation - self.bound) / max(1.0, self.bound)


def deviation_of(masks_TC: np.ndarray, goal_TT: np.ndarray) -> float:
    """Total absolute deviation of M^T M from the goal, pairs twice."""
    counts_TC = masks_TC.astype(np.int64)
    return float(np.abs(counts_TC @ counts_TC.T - goal_TT).sum())


def exact(P: np.ndarray, channels: int) -> Result:
    """Our solver."""
    solution = solve(P, channels)
    goal_TT = round_to_channels(P, channels)
    assert solution.deviation == deviation_of(solution.masks_TC, goal_TT)
    return Result(solution.deviation, solution.bound, solution.seconds)


def paper_mip(P: np.ndarray, channels: int, time_limit: float) -> Result:
    """Eq. 5-10 over masks, absolute deviations from C P rounded; HiGHS through PuLP."""
    started = time.perf_counter()
    goal_TT = round_to_channels(P, channels)
    tasks = len(goal_TT)
    prob = pulp.LpProblem("paper", pulp.LpMinimize)
    mask = [
        [prob.add_variable(f"M{i}_{k}", 0, 1, pulp.LpInteger) for k in range(channels)]
        for i in range(tasks)
    ]
    objective = []
    for i in range(tasks):
        for j in range(i, tasks):
            if i == j:
                shared = mask[i]
            else:
                shared = [
                    prob.add_variable(f"t{i}_{j}_{k}", 0, 1, pulp.LpInteger)
                    for k in range(channels)
                ]
                for t, a, b in zip(shared, mask[i], mask[j], strict=True):
                    prob.addConstraint(t <= 0.5 * a + 0.5 * b)  # eq. 8
                    prob.addConstraint(t >= a + b - 1)  # eq. 9
            off = prob.add_variable(f"d{i}_{j}", 0)
            prob.addConstraint(pulp.lpSum(shared) - int(goal_TT[i, j]) <= off)
            prob.addConstraint(int(goal_TT[i, j]) - pulp.lpSum(shared) <= off)
            objective.append((1 if i == j else 2) * off)
    prob.setObjective(pulp.lpSum(objective))
    prob.solve(pulp.HiGHS(msg=False, timeLimit=time_limit, threads=1, gapRel=0, gapAbs=0.99))
    if prob.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        masks_TC = np.array([[v.value() > 0.5 for v in row] for row in mask])
    else:
        masks_TC = np.zeros((tasks, channels), dtype=bool)  # M = 0 is always feasible
    bound = max(0.0, float(np.ceil(prob.solverModel.getInfo().mip_dual_bound - 1e-6)))
    deviation = deviation_of(masks_TC, goal_TT)
    return Result(deviation, min(bound, deviation), time.perf_counter() - started)


def sampling(P: np.ndarray, channels: int, bound: float, rng: np.random.Generator) -> Result:
    """Task by task, the best of many draws against the tasks before it."""
    started = time.perf_counter()
    goal_TT = round_to_channels(P, channels)
    masks_TC = np.zeros((len(P), channels), dtype=np.int64)
    for task, use in enumerate(np.diag(goal_TT)):
        before_BC, wanted_B = masks_TC[:task], goal_TT[task, :task]
        # Log odds of a channel, by which of the tasks before it belongs to.
        own_B = before_BC.sum(axis=1)
        inside_B = np.clip(wanted_B / np.maximum(own_B, 1), 0.02, 0.98)
        outside_B = np.clip((use - wanted_B) / np.maximum(channels - own_B, 1), 0.02, 0.98)
        odds_BC = np.where(before_BC == 1, inside_B[:, None], outside_B[:, None])
        log_odds_C = np.log(odds_BC / (1 - odds_BC)).sum(axis=0)
        # Gumbel noise makes the largest ones a draw without replacement.
        noisy_NC = log_odds_C + rng.gumbel(size=(SAMPLES, channels))
        chosen_NC = np.zeros((SAMPLES, channels), dtype=np.int64)
        np.put_along_axis(chosen_NC, np.argsort(-noisy_NC, axis=1)[:, :use], 1, axis=1)
        off_N = np.abs(chosen_NC @ before_BC.T - wanted_B).sum(axis=1)
        masks_TC[task] = chosen_NC[np.argmin(off_N)]
    return Result(deviation_of(masks_TC, goal_TT), bound, time.perf_counter() - started)


def row(tasks: int, channels: int, method: str, results: list[Result]) -> dict[str, Any]:
    """One row of the table: means over the P, and gap as the means have it."""
    seconds = [result.seconds for result in results]
    mean = Result(
        deviation=float(np.mean([result.deviation for result in results])),
        bound=float(np.mean([result.bound for result in results])),
        seconds=float(np.median(seconds)),
    )
    made = {
        "tasks": tasks,
        "channels": channels,
        "method": method,
        "deviation": mean.deviation,
        "bound": mean.bound,
        "gap": mean.gap,
        "median_s": mean.seconds,
        "max_s": max(seconds),
        "n": len(results),
    }
    worst = max(result.gap for result in results)
    print(
        f"{tasks:2} x {channels:4}  {method:9}  deviation {mean.deviation:8.1f}  "
        f"bound {mean.bound:8.1f}  gap {mean.gap:7.1%} (worst {worst:7.1%})  "
        f"median {mean.seconds:6.3f} s, worst {max(seconds):6.3f} s",
        flush=True,
    )
    return made


def main() -> None:
    """Print one line per size and method; `--json` also writes them to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--quick", action="store_true", help="two P per size instead of ten, the paper's for 5 s"
    )
    options = parser.parse_args()
    repeats, paper_limit = (2, 5.0) if options.quick else (10, 60.0)
    rows = []
    for tasks, channels in SIZES:
        rng = np.random.default_rng(0)
        entries = tasks * (tasks + 1) // 2
        targets = [refine(vector_to_matrix(rng.random(entries), tasks)) for _ in range(repeats)]
        ours = [exact(P, channels) for P in targets]
        sampled = [
            sampling(P, channels, result.bound, rng)
            for P, result in zip(targets, ours, strict=True)
        ]
        methods = {"exact": ours, "sampling": sampled}
        if (tasks, channels) in PAPER_SIZES:
            methods["paper_mip"] = [paper_mip(P, channels, paper_limit) for P in targets]
        rows += [row(tasks, channels, method, results) for method, results in methods.items()]
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
