"""How much of a cluster of a given size a search would use, and what would keep it from using more.

python benchmarks/cluster_sizes.py [--nodes N,N] [--gpus N] [--seconds S] [--cohort N] [--quick]

An arm as it is, with its strategy, masks and a record on this machine's disk, over evaluators that
only pass the time: the clock is put forward to when the next of them would answer, so that hundreds
need no machine. What the arm itself does counts as long as it takes here; of masks that are solved
for in parallel, its share. The places of all nodes are shared out over ten arms, and one of them is
run. Printed, by nodes and strategy: evaluators of the arm, candidates a second of all ten arms, the
share of their time that evaluators score, the main reason why not, and how much of its time the one
writer of the record would be busy for ten arms. The problem is that of
configs/compare_surrogate.yaml: nine tasks.
"""

import argparse
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from partitioning import Masks
from search.arms.clock import Clock
from search.arms.cluster import MOST_SOLVERS, share_out
from search.arms.loop import Arm, Budget
from search.arms.scoring import Scored
from search.arms.simulated_pool import SimulatedPool
from search.candidates import Candidate, Rung, shares, total
from search.config import StudyConfig, load_config
from search.record import Record
from search.study import baselines, build_space, build_strategy

ARMS = 10
#: CPUs of a node that no evaluator takes.
FREE_CPUS = 8
#: Spread of the times that cohorts take, as the standard deviation of their logarithm.
SPREAD = 0.1


class Skipping:
    """A clock that can be put forward, and back by what should not count."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds."""
        return time.monotonic() + self._ahead

    def move(self, seconds: float) -> None:
        """Put it forward, or back where negative."""
        self._ahead += seconds


class Passing(SimulatedPool):
    """Evaluators that answer once the time of a cohort has passed on a clock that skips."""

    def __init__(
        self, config: StudyConfig, evaluators: int, seconds: float, skipping: Skipping, clock: Clock
    ) -> None:
        super().__init__(config)
        self.evaluators, self.slots = evaluators, 2 * evaluators
        self._seconds, self._skipping, self._clock = seconds, skipping, clock
        self._rng = np.random.default_rng(0)
        self._idle = deque([skipping.now()] * evaluators)
        self._queue: deque[tuple[int, Sequence[Masks]]] = deque()
        #: When each is answered, and what.
        self._flying: list[tuple[float, int, list[Scored]]] = []
        self.used: dict[str, float] = {}

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        """Have a cohort scored."""
        self._queue.append((ticket, cohort))
        self._hear()

    def wait(self) -> tuple[int, list[Scored]]:
        """The next cohort that is answered."""
        self._hear()
        if not self._scored:
            first = min(finish for finish, *_ in self._flying)
            self._skipping.move(max(0.0, first - self._skipping.now()))
            self._hear()
        return self._scored.popleft()

    def _hear(self) -> None:
        now = self._skipping.now()
        for flight in sorted(flight for flight in self._flying if flight[0] <= now):
            self._flying.remove(flight)
            self._idle.append(flight[0])
            self._scored.append(flight[1:])
        while self._idle and self._queue:
            self.used = total([self.used, self._clock.split(self._idle.popleft(), now)])
            ticket, cohort = self._queue.popleft()
            took = self._seconds * len(cohort) * float(np.exp(self._rng.normal(0, SPREAD)))
            self.used = total([self.used, {"busy": took}])
            began = time.monotonic()
            scored = [self._score(masks) for masks in cohort]
            self._skipping.move(began - time.monotonic())  # the evaluator's time, not the arm's
            self._flying.append((now + took, ticket, scored))


def run(
    config: StudyConfig, name: str, evaluators: int, solvers: int, seconds: float, cohort: int
) -> tuple[int, float, dict[str, float], float]:
    """Candidates of an arm, its seconds, evaluators' time, and the median seconds to record one."""
    skipping = Skipping()
    clock = Clock(skipping.now)
    space = build_space(config)
    pool = Passing(config, evaluators, seconds, skipping, clock)
    written: list[float] = []

    def mapped(
        function: Callable[[Candidate], Candidate], items: Iterable[Candidate]
    ) -> Iterator[Candidate]:
        for item in items:
            began = time.monotonic()
            found = function(item)
            skipping.move((began - time.monotonic()) * (1 - 1 / max(1, solvers)))
            yield found

    with tempfile.TemporaryDirectory() as folder, Record(Path(folder, "record"), "sizes") as record:

        def add(candidate: Candidate) -> None:
            began = time.monotonic()
            with clock.doing("record"):
                record.add(candidate)
            written.append(time.monotonic() - began)

        given = baselines(config, space, 0)
        arm = Arm(
            name=name, seed=0, space=space, cost="use",
            strategy=build_strategy(config, name, 0, space, given, config.simulated.knowledge),
            pool=pool, budget=Budget(candidates=config.candidates, cohort=cohort),
            ladder=config.ladder, record=add, keep=lambda _: None, mapped=mapped, clock=clock,
            realisable=getattr(config.strategies[name].settings, "realisable", False),
        )  # fmt: skip
        began = skipping.now()
        arm.run({}, lambda _: None)
        took = skipping.now() - began
    return len(written), took, pool.used, float(np.median(written))


def main() -> None:
    """Print a line per number of nodes and strategy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", default="1,4,16,100", metavar="N,N")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="of a node")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a GPU, for a candidate")
    parser.add_argument("--cohort", type=int, default=64, metavar="N", help="at once, at most")
    parser.add_argument("--quick", action="store_true", help="one node, 40 candidates")
    options = parser.parse_args()
    print("nodes strategy         evaluators  candidates/s  busy  idle, mainly          writer")
    for nodes in [1] if options.quick else map(int, options.nodes.split(",")):
        evaluators = share_out(nodes * options.gpus, [f"arm-{i}" for i in range(ARMS)])["arm-0"]
        solvers = min(MOST_SOLVERS, nodes * FREE_CPUS // ARMS)
        candidates = 40 if options.quick else max(250, 6 * evaluators)
        config = load_config(
            "configs/compare_surrogate.yaml",
            [
                f"candidates={candidates}",
                "strategies={random: {}, es: {}, policy_gradient: {}, tpe: {}, task_models: {}}",
            ],
        )
        for name in config.strategies:
            count, took, used, add = run(
                config, name, evaluators, solvers, options.seconds, options.cohort
            )
            parts = shares(used)
            busy = parts.pop("busy")
            reason, share = max(parts.items(), key=lambda part: part[1])
            rate = ARMS * count / took
            print(
                f"{nodes:5} {name:16} {evaluators:10} {rate:13.1f} {busy:5.0%}  "
                f"{reason:9} {share:6.0%} {rate * add:15.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
