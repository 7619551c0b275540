"""A problem for any strategy, and scores that its proposals get."""

from collections.abc import Callable

import numpy as np

from partitioning import FloatArray
from search.strategies import Outcome, Problem, Strategy, TaskFacts

NUM = 22  # for es and policy_gradient three generations and a part of the fourth
INITIAL = 4
Evaluate = Callable[[int, FloatArray], Outcome]


def make_problem(dim: int = 5, seed: int = 0) -> Problem:
    """Two tasks that are known, and entries of which the first two are uses."""
    rng = np.random.default_rng(12345)
    return Problem(
        dim=dim,
        names=tuple(f"entry[{i}]" for i in range(dim)),
        use_dims=tuple(range(min(2, dim))),
        seed=seed,
        baselines={f"fixed_{i}": rng.random(dim) for i in range(NUM + 3)},
        initial=INITIAL,
        concerns=tuple((0, 1) if i % 3 == 0 else (i % 2,) for i in range(dim)),
        tasks=tuple(
            TaskFacts(name=name, classes=classes, images=1000 * classes, teacher_accuracy=0.8)
            for name, classes in (("a", 10), ("b", 43))
        ),
        similarity=np.array([[1.0, 0.3], [0.3, 1.0]]),
    )


def evaluate(index: int, vector: FloatArray) -> Outcome:
    """A smooth score with a ripple, so that no two candidates tie."""
    use = float(vector[:2].mean())
    quality = 0.9 - float(np.mean((vector - 0.4) ** 2)) + 0.01 * float(np.sin(37.0 * vector.sum()))
    accuracy = quality + 0.1 * np.array([vector[0], -vector[0]])
    return Outcome(index=index, vector=vector, quality=quality, cost=use, accuracy=accuracy)


def propose(
    strategy: Strategy, num: int = NUM, *, score: Evaluate = evaluate, backwards: bool = False
) -> FloatArray:
    """Generation by generation; returns the proposals, shape (num, d)."""
    proposals: list[FloatArray] = []
    while len(proposals) < num:
        vectors = strategy.ask(num - len(proposals))
        assert vectors, f"nothing proposed after {len(proposals)} candidates"
        start = len(proposals)
        proposals += [vector.copy() for vector in vectors]
        outcomes = [score(start + i, vector) for i, vector in enumerate(vectors)]
        strategy.tell(outcomes[::-1] if backwards else outcomes)
    return np.array(proposals)
