"""The best counts that time allows, and a bound that none can go below.

Legend of shapes: T tasks, S kinds of channel, K columns, N columns in use.
"""

from __future__ import annotations

import math
import time

import numpy as np

from partitioning.descent import descend, shake
from partitioning.generation import Generated, cheapest, dive, generate
from partitioning.problem import Columns, MaskProblem, merged
from partitioning.programmes import whole_counts
from partitioning.sharing import IntArray
from partitioning.solver_config import SolverConfig

# Columns of the first integer programme, and how many times larger each next one is.
FIRST_COLUMNS, GROWTH = 150, 4

# Rounds of local search between two integer programmes.
SHAKES = 100

# Largest integer programme, in columns x entries of P. HiGHS runs far past its time limit on larger
# ones: on 20 tasks with 800 columns (168,000) for 33 seconds instead of 10.
MAX_SIZE = 80_000


def optimise(
    problem: MaskProblem, config: SolverConfig, started: float
) -> tuple[Columns, IntArray, int]:
    """Finds counts of columns that deviate least from the goal.

    Args:
        problem: what is wanted.
        config: when to stop.
        started: since when time counts, on the clock of `time.perf_counter`.

    Returns:
        N columns in use, their counts (N,), and a bound that no counts can go below.
    """
    deadline = started + config.time_limit
    best = problem.whole(), problem.capacity_S.astype(np.int64)
    bound = problem.floor()
    if problem.deviation(*best) <= bound:
        return *best, bound
    generated = generate(problem, config.threads, deadline)
    if math.isfinite(generated.bound):
        bound = max(bound, math.ceil(generated.bound))
    starts = [dive(problem, generated, deadline)]
    if problem.deviation(*best) < problem.deviation(*starts[0]):
        starts.append(best)
    improved = [descend(problem, *start, deadline) for start in starts]
    best = min(improved, key=lambda counted: problem.deviation(*counted))
    size = FIRST_COLUMNS
    while gap(problem.deviation(*best), bound) > config.gap and time.perf_counter() < deadline:
        # No programme gets more than half of the time, so that local search has its turn.
        until = (time.perf_counter() + deadline) / 2
        best, bound, largest = _improve(problem, generated, best, bound, size, config, until)
        best = shake(
            problem,
            *best,
            rounds=None if largest else SHAKES,
            enough=bound + config.gap * max(1, bound),
            deadline=deadline,
        )
        size *= GROWTH
    return *best, bound


def _improve(
    problem: MaskProblem,
    generated: Generated,
    best: tuple[Columns, IntArray],
    bound: int,
    size: int,
    config: SolverConfig,
    deadline: float,
) -> tuple[tuple[Columns, IntArray], int, bool]:
    """Solves over the `size` columns of smallest reduced cost, and the best's own.

    Returns the best counts, a bound, and whether no larger programme could be solved.
    """
    limit = MAX_SIZE // len(problem.entry_weights)
    candidates, cost_K, others = cheapest(problem, generated, min(size, limit))
    # Masks with a column of larger reduced cost deviate by no less than the best known.
    useful = problem.deviation(*best) - 1 - generated.bound
    candidates = candidates.pick(cost_K <= useful)
    own, own_counts = best
    known = set(own.identities())
    fresh = np.array([key not in known for key in candidates.identities()], dtype=np.bool_)
    columns = own + candidates.pick(fresh)
    start_K = np.concatenate([own_counts, np.zeros(fresh.sum(), dtype=np.int64)])
    seconds = deadline - time.perf_counter()
    counts_K, proved = whole_counts(problem, columns, start_K, seconds, config.threads)
    if others <= useful:
        elsewhere = generated.bound + others
        proved = min(proved, math.ceil(elsewhere) if math.isfinite(elsewhere) else 0)
    bound = max(bound, min(proved, problem.deviation(columns, counts_K)))
    # What HiGHS holds when its time is up may still be improved by single moves.
    return descend(problem, *merged(columns, counts_K), deadline), bound, size >= limit


def gap(deviation: float, bound: float) -> float:
    """How far a deviation may be from the least, relative to the bound."""
    return (deviation - bound) / max(1.0, bound)
