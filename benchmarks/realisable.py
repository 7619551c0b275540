"""How many random P can be realised exactly, given channels enough, and how far off others are.

python benchmarks/realisable.py [--json FILE] [--quick]

Raw P uniform in [0, 1], refined to its pairwise bounds (eq. 1-4), then projected (see
partitioning/projection.py). Distances are sums over all entries, the diagonal once and pairs twice;
for masks of C channels the same in channels is C times as much.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from partitioning import project, refine, vector_to_matrix

TASKS = range(3, 10)
# Above what the linear programme leaves of a distance that is 0.
REALISED = 1e-6


def main() -> None:
    """Print one line per number of tasks; `--json` also writes them to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="20 P each instead of 2,000")
    options = parser.parse_args()
    samples = 20 if options.quick else 2000
    rows = []
    for tasks in TASKS:
        rng = np.random.default_rng(0)
        entries = tasks * (tasks + 1) // 2
        targets = [refine(vector_to_matrix(rng.random(entries), tasks)) for _ in range(samples)]
        distances = np.array([np.abs(project(P) - P).sum() for P in targets])
        share = float((distances < REALISED).mean())
        error = float(np.sqrt(share * (1 - share) / samples))
        rows.append(
            {
                "tasks": tasks,
                "realisable": share,
                "standard_error": error,
                "median_distance": float(np.median(distances)),
                "n": samples,
            }
        )
        print(
            f"{tasks} tasks: {share:6.1%} +- {error:.1%} realisable, distance median "
            f"{np.median(distances):.3f}, 90 % below {np.quantile(distances, 0.9):.3f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
