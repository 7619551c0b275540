"""What halving does to a strategy's front, on the surrogate with a lower rung that is made up.

python benchmarks/rungs_on_surrogate.py [--seeds N] [--quick]

Every strategy searches the surrogate of configs/compare_surrogate.yaml, 64 candidates, with a rung
of a fifth of the steps from which a quarter goes on, and without. At the rung the accuracies are
lower, as they were on the real tasks, by .09 to .15 depending on mean use, with noise of .03 a
task; at the end the noise is .01. Printed is the hypervolume of those that were scored to the end,
above quality .1 and below cost 1, as a share of the ideal's: mean and standard deviation over
seeds.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from partitioning import Masks
from search.arms.loop import Arm, Budget
from search.arms.scoring import Scored
from search.arms.simulated_pool import SimulatedPool
from search.candidates import Candidate, Rung, hypervolume, ladder
from search.config import StudyConfig, load_config
from search.study import baselines, build_space, build_strategy

STRATEGIES = (
    "random: {}, es: {per_task: true, turn: 2}, tpe: {}, task_models: {}, "
    "policy_gradient: {cost_weights: [0.0, 0.3, 1.0, 3.0, 10.0], samples: 2}"
)
STEPS, RUNG = 315, Rung(steps=63, keep=0.25)
#: How much lower accuracies are at the rung, by mean use; as in the comparison of the real tasks.
USE = (0.05, 0.15, 0.3, 0.5, 0.7, 1.0)
LOWER = (0.09, 0.14, 0.15, 0.13, 0.11, 0.095)
NOISE = {RUNG.steps: 0.03, STEPS: 0.01}
REFERENCE = (0.1, 1.0)


class TwoFidelities(SimulatedPool):
    """The surrogate, with noise and, at the rung, lower accuracies."""

    def __init__(self, config: StudyConfig, seed: int) -> None:
        super().__init__(config)
        self._rng = np.random.default_rng(seed)

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        """Score a cohort."""
        self._scored.append((ticket, [self._at(rung.steps, self._score(m)) for m in cohort]))

    def _at(self, steps: int, scored: Scored) -> Scored:
        evaluation = scored.evaluation
        assert evaluation is not None
        lower = np.interp(evaluation.costs.mean_use, USE, LOWER) if steps < STEPS else 0.0
        accuracy = {
            task: float(value - lower + self._rng.normal(0, NOISE[steps]))
            for task, value in evaluation.accuracy.items()
        }
        return replace(scored, evaluation=replace(evaluation, accuracy=accuracy))


def share_of_ideal(config: StudyConfig, name: str, seed: int, rungs: Sequence[Rung]) -> float:
    """Hypervolume that an arm comes to."""
    space = build_space(config)
    given = baselines(config, space, seed)
    told: list[Candidate] = []
    Arm(
        name=name, seed=seed, space=space, cost="use",
        strategy=build_strategy(config, name, seed, space, given, config.simulated.knowledge),
        pool=TwoFidelities(config, seed),
        budget=Budget(candidates=config.candidates, cohort=1, bracket=16),
        ladder=ladder(rungs, STEPS), record=lambda _: None, keep=lambda _: None,
        realisable=getattr(config.strategies[name].settings, "realisable", False),
    ).run({}, told.append)  # fmt: skip
    final = [c for c in told if not c.stopped and c.quality is not None and c.cost is not None]
    return hypervolume([c.quality for c in final], [c.cost for c in final], REFERENCE)


def main() -> None:
    """Print a line per strategy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4, metavar="N")
    parser.add_argument("--quick", action="store_true", help="16 candidates, one seed")
    options = parser.parse_args()
    candidates, seeds = (16, 1) if options.quick else (64, options.seeds)
    config = load_config(
        "configs/compare_surrogate.yaml",
        [f"candidates={candidates}", "initial=8", f"strategies={{{STRATEGIES}}}"],
    )
    for name in config.strategies:
        found = {
            label: [share_of_ideal(config, name, seed, rungs) for seed in range(seeds)]
            for label, rungs in (("halved", [RUNG]), ("all in full", []))
        }
        texts = [f"{label} {np.mean(v):.3f} +- {np.std(v):.3f}" for label, v in found.items()]
        print(f"{name:16} {'   '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
