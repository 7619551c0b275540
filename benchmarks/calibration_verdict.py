"""How often a calibration trusts made-up proxies: some know nothing but use, some know more.

python benchmarks/calibration_verdict.py [--draws N] [--quick]

Prints for every kind of proxy and number of candidates the share of draws whose lower ends, of the
partial correlations that `judged` looks at, both reach thresholds of 0, .1, .2 and .3. Draws are
seeded 0, 1, ... Proxies that know nothing but use must hardly ever be trusted, whatever the curve
by which accuracy depends on it; what is lost by that is seen on proxies that know more.

The last rows are of the surrogate of real proxy scores of the mini-Decathlon, at candidates that a
calibration draws: full training is a curve of what the surrogate says, the proxy is the surrogate,
and both have the noise of one training. "use of a task" knows no more of the surrogate than a
polynomial of a task's use and mean use does.

Legend of shapes: T tasks, N candidates.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from partitioning import FloatArray
from search.calibration.choice import draw
from search.config import load_config
from search.simulated.surrogate import Surrogate
from search.stats.agreement import beside_use
from search.stats.bootstrap import resamples
from search.stats.partial_correlation import Given
from search.study import build_space

COUNTS = (16, 24, 32, 48, 64)
NOISES = (0.1, 0.05, 0.02)
THRESHOLDS = (0.0, 0.1, 0.2, 0.3)
CONFIG = Path(__file__).parents[1] / "configs" / "mini_decathlon.yaml"

Scores = tuple[FloatArray, FloatArray, FloatArray]  # score, full and use, (T, N) each
#: By which accuracy may depend on use.
CURVES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "linear": lambda use: use,
    "saturating": lambda use: 1 - np.exp(-use / 0.15),
    "a kink": lambda use: np.minimum(use, 0.4) / 0.4,
    "a step": lambda use: 1 / (1 + np.exp((0.3 - use) / 0.06)),
}
#: The panel "mean accuracy" of docs/calibration.png as commit f1f8d9e has it, whose numbers were
#: not kept: pixels to the right (the proxy) and down, negative (full training), and mean use by
#: colour. Ten points of the upper right corner are partly hidden, and their uses guessed.
PICTURE = [
    (1265, -613, 0.12), (1272, -613, 0.12), (1272, -623, 0.12), (1294, -558, 0.12),
    (1375, -476, 0.24), (1371, -487, 0.24), (1381, -500, 0.24), (1385, -509, 0.24),
    (1432, -417, 0.36), (1420, -453, 0.36), (1425, -462, 0.36), (1420, -481, 0.36),
    (1448, -445, 0.48), (1427, -435, 0.48), (1447, -432, 0.48), (1443, -414, 0.48),
    (1452, -430, 0.60), (1461, -432, 0.60), (1446, -414, 0.60), (1458, -412, 0.60),
    (1458, -418, 0.72), (1460, -424, 0.72), (1460, -406, 0.72), (1465, -403, 0.72),
    (1458, -399, 0.84), (1462, -398, 0.84), (1468, -416, 0.84), (1468, -412, 0.84),
    (1462, -394, 0.96), (1463, -406, 0.96), (1462, -413, 0.96), (1464, -421, 0.96),
]  # fmt: skip


def uses(count: int, rng: np.random.Generator, tasks: int = 3) -> FloatArray:
    """(T, N) as a calibration draws them: mean uses spread evenly, tasks scattered around them."""
    level_N = np.linspace(0.12, 0.96, count)
    scatter_N = np.minimum(np.minimum(level_N - 0.05, 1 - level_N), 0.3)
    use_TN = level_N + scatter_N * rng.uniform(-1, 1, (tasks, count))
    return np.asarray(np.clip(use_TN + level_N - use_TN.mean(axis=0), 0.05, 1))


def use_only(count: int, seed: int, curve: str, noise: float = 0.1) -> Scores:
    """Full training follows a task's use and mean use; so does the proxy, and knows nothing else.

    Args:
        count: N.
        seed: Draws them.
        curve: Of `CURVES`, from 0 to 1.
        noise: Standard deviation around the curve, of both.
    """
    rng = np.random.default_rng(seed)
    use_TN = uses(count, rng)
    rising_TN = (CURVES[curve](use_TN) + CURVES[curve](use_TN.mean(axis=0))) / 2
    score_TN, full_TN = (rising_TN + noise * rng.normal(size=use_TN.shape) for _ in range(2))
    return 0.4 + 0.3 * score_TN, 0.4 + 0.2 * full_TN, use_TN


def informed(count: int, seed: int, r: float = 0.9) -> Scores:
    """Full training has a part beside a saturating use; the proxy sees it with an error.

    Args:
        count: N.
        seed: Draws them.
        r: Partial correlation of proxy and full training given use, in (0, 1).
    """
    rng = np.random.default_rng(seed)
    use_TN = uses(count, rng)
    rising_TN = 0.4 + 0.3 * CURVES["saturating"](use_TN)
    full_TN = rising_TN + 0.05 * rng.normal(size=use_TN.shape)
    error = 0.05 * np.sqrt(1 / r**2 - 1)
    return full_TN - 0.1 + error * rng.normal(size=use_TN.shape), full_TN, use_TN


class Realistic:
    """The mini-Decathlon's surrogate at the candidates that calibrations draw."""

    def __init__(self) -> None:
        self._config = load_config(CONFIG, [])
        self._space = build_space(self._config)
        self._names = tuple(task.name for task in self._config.tasks)
        self._surrogate = Surrogate.shipped("mini_decathlon", self._names)

    def draw(self, count: int, seed: int, *, use_of_a_task: bool) -> Scores:
        """Proxy and full training, of the whole surrogate or of what own and mean use say of it."""
        vectors = draw(self._space, count, seed)
        masks = [self._space.decode(vector).masks for vector in vectors]
        use_TN = np.array([m.use() for m in masks]).T
        truth_TN = np.array([self._surrogate.accuracy(m.mean_realised()) for m in masks]).T
        if use_of_a_task:
            truth_TN = np.array(
                [_smooth(*pair, use_TN.mean(axis=0)) for pair in zip(truth_TN, use_TN, strict=True)]
            )
        rng = np.random.default_rng(seed)
        score_TN = truth_TN + 0.017 * rng.normal(size=use_TN.shape)
        full_TN = 0.45 + 0.35 * np.sqrt(truth_TN.clip(0)) + 0.01 * rng.normal(size=use_TN.shape)
        return score_TN, full_TN, use_TN


def _smooth(truth_N: FloatArray, own_N: FloatArray, mean_N: FloatArray) -> FloatArray:
    """What a polynomial of fourth degree of the square roots of own and mean use says of truth."""
    own_N, mean_N = np.sqrt(own_N), np.sqrt(mean_N)
    columns = [own_N**i * mean_N**j for i in range(5) for j in range(5 - i)]
    design_NP = np.column_stack(columns)
    factors_P = np.linalg.lstsq(design_NP, truth_N, rcond=1e-6)[0]
    return np.asarray(design_NP @ factors_P)


def lower_end(scores: Scores, rng: np.random.Generator, number: int) -> float:
    """The lesser of the two lower ends that decide; -1 where one is not defined."""
    w_BN = resamples(scores[0].shape[1], rng, number)
    found = beside_use(*scores, w_BN)["partial"][-2:]
    return float(np.nan_to_num([estimate.low for estimate in found], nan=-1.0).min())


def report(
    kind: str, make: Callable[[int, int], Scores], draws: int, counts: tuple[int, ...]
) -> None:
    """One line for each number of candidates."""
    for count in counts:
        lows = [lower_end(make(count, s), np.random.default_rng(s), 500) for s in range(draws)]
        shares = "  ".join(f"{np.mean(np.array(lows) >= t):5.2f}" for t in THRESHOLDS)
        print(f"{kind:36s} {count:4d}   {shares}   median {np.median(lows):5.2f}", flush=True)


def straight(scores: Scores, degree: int) -> float:
    """Partial correlation of mean accuracies given a polynomial of mean use itself."""
    use_N = scores[2].mean(axis=0)
    left = [
        v_N - np.polyval(np.polyfit(use_N, v_N, degree), use_N)
        for v_N in (scores[0].mean(axis=0), scores[1].mean(axis=0))
    ]
    return float(np.corrcoef(*left)[0, 1])


def report_curves(draws: int, count: int = 32) -> None:
    """What other regressions leave of proxies that know use alone, and of the real calibration."""
    print(f"\npartial correlation of mean accuracies over {count} candidates, mean of draws, given")
    print("a straight line in mean use, a parabola, a cubic, and splines of its logarithm")
    for curve in CURVES:
        for noise in (0.1, 0.02):
            made = [use_only(count, seed, curve, noise) for seed in range(draws)]
            print_curves(f"use, {curve}, noise {noise:g}", made)
    accuracy_3N = np.array(PICTURE).T[:, None]
    print_curves("an earlier calibration.png", [(accuracy_3N[0], accuracy_3N[1], accuracy_3N[2])])
    w_BN = resamples(len(PICTURE), np.random.default_rng(0))
    values_B = Given([accuracy_3N[2, 0]], w_BN).partial(accuracy_3N[0, 0], accuracy_3N[1, 0])
    low, high = np.percentile(values_B[1:], [2.5, 97.5])
    print(f"{'':36s} the last with an interval from {low:.2f} to {high:.2f}")


def print_curves(kind: str, made: list[Scores]) -> None:
    """One line: the mean over draws for each of four regressions."""
    found = [[straight(scores, degree) for degree in (1, 2, 3)] for scores in made]
    for row, (score_TN, full_TN, use_TN) in zip(found, made, strict=True):
        given = Given([use_TN.mean(axis=0)], np.ones((1, use_TN.shape[1])))
        row.append(float(given.partial(score_TN.mean(axis=0), full_TN.mean(axis=0))[0]))
    print(f"{kind:36s} " + "  ".join(f"{value:5.2f}" for value in np.mean(found, axis=0)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="5 draws of 16 candidates")
    options = parser.parse_args()
    draws, counts = (5, (16,)) if options.quick else (options.draws, COUNTS)
    heading = "  ".join(f">= {t:.1f}"[-5:] for t in THRESHOLDS)
    print(f"{'the proxy knows':36s}    N   {heading}")
    for curve in CURVES:
        for noise in NOISES:
            kind = f"use, {curve}, noise {noise:g}"
            report(kind, lambda n, s, c=curve, e=noise: use_only(n, s, c, e), draws, counts)
    for r in (0.9, 0.7, 0.5):
        report(f"more, r = {r:g} given use", lambda n, s, r=r: informed(n, s, r), draws, counts)
    report_curves(draws)
    real = Realistic()
    few = -(-draws // 3)
    for name, only in (("use of a task, surrogate", True), ("all, surrogate", False)):
        report(name, lambda n, s, o=only: real.draw(n, s, use_of_a_task=o), few, counts)


if __name__ == "__main__":
    main()
