r"""Evolution strategies: antithetic random directions, as in Newell et al. 2019.

Newell et al. (2019, section 4.1 and A.2) search the sharing matrix with augmented random search
(Mania et al. 2018, algorithm 2, "V1-t"). In its symbols, with K directions of which the best b
count, perturbation size $\nu$, learning rate $\alpha$ and parameters $x$ of d entries:

    line 4   $\delta_1, \dots, \delta_K \sim \mathcal{N}(0, I_d)$
    line 5   $r_{k,\pm}$ = reward of $x \pm \nu \delta_k$
    line 6   sort the directions by $\max(r_{k,+}, r_{k,-})$, the best first
    line 7   $x \leftarrow x + \frac{\alpha}{b \sigma_R} \sum_{k=1}^{b} (r_{(k),+} - r_{(k),-})
             \delta_{(k)}$, with $\sigma_R$ the standard deviation of those 2b rewards

The reward is quality less an L2 penalty on the diagonal of P (Newell et al., 4.1), whose gradient
pulls every task towards fewer channels:

    $r = q - \Omega(x)$,  $\Omega(x) = \lambda \frac{1}{|U|} \sum_{i \in U} x_i^2$,
    U = the entries of channel use.

Differs from the paper, which gives its weight no unit; its authors' code subtracts $\lambda x_i$
from the normalised gradient, which lets the same weight mean more where qualities differ less.
Here $\lambda$ is the quality given up for the use of all channels, whatever the number of tasks,
and can be compared with the budget weights of the policy-gradient agent. The penalty goes through
the finite differences although its gradient is known: at an optimum of $r$ the noise of both parts
then cancels, while the exact gradient would leave that of quality alone, divided by a vanishing
$\sigma_R$ (it was tried, and lost).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.strategies.ledger import Ledger
from search.strategies.protocol import FloatArray, Outcome, Problem
from search.strategies.random_search import uniform_vector

STREAM = 1
BOUNDS = ("clip", "sigmoid")
FEWEST_BEST = 8
# The sigmoid's slope vanishes towards 0 and 1: its search keeps x this far from both, or a place
# that has once gone there would never be moved again.
SIGMOID_MARGIN = 0.02


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings:
    """Settings of the evolution strategies, by default those of Newell et al. (2019, A.2).

    Attributes:
        directions: Number K of antithetic directions per step, at least 1: a step costs 2K
            candidates.
        best: How many directions b count in the step, from 1 to K. None means the better half, but
            no fewer than 8 where K allows it: of few directions, all are needed.
        step_size: Size nu of the perturbations, as a share of an entry's range; positive.
        learning_rate: Learning rate alpha, positive. Steps are about twice as long as it, since
            rewards are divided by their standard deviation.
        diagonal_l2: Weight lambda of the pull towards using fewer channels, not negative: the
            quality given up for an L2 norm of all uses at their upper bound rather than at their
            lower. Entries count as they stand in the vector, 0 and 1 being the space's bounds.
        bounds: How entries are kept in [0, 1]: "clip", or "sigmoid" for the search of y with
            x = sigmoid(4 y - 2), which has slope 1 in the middle, so that the other settings keep
            their meaning.
        realisable: Start from the realisable part of the best vector, and take as directions what
            could be realised of the perturbations. Without it both are as proposed, and what had
            no effect is noise in the directions.

    Raises:
        ValueError: If a value is outside its range.
    """

    directions: int = 16
    best: int | None = None
    step_size: float = 0.1
    learning_rate: float = 0.1
    diagonal_l2: float = 0.05
    bounds: str = "clip"
    realisable: bool = False

    def __post_init__(self) -> None:
        if self.directions < 1:
            raise ValueError(f"directions must be at least 1, got {self.directions}")
        if self.best is not None and not 1 <= self.best <= self.directions:
            raise ValueError(
                f"best must be from 1 to directions = {self.directions}, got {self.best}"
            )
        for name, value in (("step_size", self.step_size), ("learning_rate", self.learning_rate)):
            if not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not (self.diagonal_l2 >= 0.0 and math.isfinite(self.diagonal_l2)):
            raise ValueError(
                f"diagonal_l2 must be finite and not negative, got {self.diagonal_l2}: a positive "
                "weight pulls towards fewer channels"
            )
        if self.bounds not in BOUNDS:
            raise ValueError(f"bounds must be one of {', '.join(BOUNDS)}, got {self.bounds!r}")


def _sigmoid(y: FloatArray) -> FloatArray:
    """Returns 1 / (1 + exp(-(4 y - 2))), in a form that does not overflow."""
    x: FloatArray = 0.5 + 0.5 * np.tanh(2.0 * y - 1.0)
    return x


def _logit(x: FloatArray) -> FloatArray:
    """Inverse of `_sigmoid`, for x in (0, 1)."""
    y: FloatArray = (np.log(x / (1.0 - x)) + 2.0) / 4.0
    return y


def penalty(vector: FloatArray, use_dims: Sequence[int], weight: float) -> float:
    """Omega = weight * mean of the squared use entries, in units of quality.

    Args:
        vector: Shape (d,), entries in [0, 1].
        use_dims: Positions of the use entries; none of them make 0.
        weight: lambda, not negative.

    Returns:
        In [0, weight].

    Example:
        >>> penalty(np.array([1.0, 0.5, 0.3]), (0, 1), 0.8)
        0.5
    """
    use = vector[list(use_dims)]
    return weight * float(np.square(use).sum()) / max(1, len(use))


def ascent(directions_KD: FloatArray, rewards_K2: FloatArray, best: int) -> FloatArray:
    """What line 7 multiplies the learning rate with.

    Args:
        directions_KD: Directions delta, shape (K, d).
        rewards_K2: Rewards of x + nu delta and of x - nu delta, shape (K, 2).
        best: How many directions b count; all of them where there are fewer.

    Returns:
        Shape (d,); zeros where all rewards are the same, which says nothing of where to go.

    Example:
        >>> ascent(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 1.0], [2.0, 2.0]]), 1)
        array([2., 0.])
    """
    best_b = np.argsort(-rewards_K2.max(axis=1), kind="stable")[:best]  # line 6
    rewards_b2 = rewards_K2[best_b]
    if np.ptp(rewards_b2) == 0.0:
        return np.zeros(directions_KD.shape[1])
    gain_b = rewards_b2[:, 0] - rewards_b2[:, 1]
    step_D: FloatArray = gain_b @ directions_KD[best_b] / (len(best_b) * rewards_b2.std())
    return step_D  # line 7


class Evolution:
    """Augmented random search from the best of an initial random batch.

    Asks for a whole generation, then waits: `ask` returns nothing while outcomes of a generation
    are outstanding. A candidate that fails takes its antithetic partner out of the estimate; where
    none is left the step is skipped and new directions are drawn from the same place. Where the
    whole initial batch fails, another one is drawn.

    Raises:
        ValueError: If the settings pull on use entries that the problem does not have.
    """

    def __init__(self, problem: Problem, settings: EvolutionSettings) -> None:
        if settings.diagonal_l2 > 0.0 and not problem.use_dims:
            raise ValueError(
                f"diagonal_l2 must be 0 in a space without use entries, got {settings.diagonal_l2}"
            )
        self._problem = problem
        self._settings = settings
        self._ledger = Ledger()
        self._step = 0
        # Coordinates of the search: x itself, or y of x = sigmoid(4 y - 2). None before the start.
        self._place_D: FloatArray | None = None
        self._directions_KD = np.empty((0, problem.dim))
        self._queue_initial()

    @property
    def centre(self) -> FloatArray | None:
        """The vector x that is perturbed, shape (d,); None before the initial batch is told."""
        return None if self._place_D is None else self._vector(self._place_D)

    def ask(self, n: int) -> list[FloatArray]:
        """Proposes the next at most n vectors of the generation; none while it is outstanding."""
        return self._ledger.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in outcomes, and makes a step once the generation is complete.

        Raises:
            ValueError: If an outcome belongs to no outstanding proposal.
        """
        self._ledger.tell(outcomes)
        if not self._ledger.settled:
            return
        generation = self._ledger.drain()
        if self._place_D is None:
            self._start(generation)
        else:
            self._place_D = self._next_place(self._place_D, generation)
        if self._place_D is None:
            self._queue_initial()
        else:
            self._queue_antithetic(self._place_D)

    def _queue_initial(self) -> None:
        start = self._ledger.asked
        self._ledger.queue(
            uniform_vector(self._problem.seed, index, self._problem.dim)
            for index in range(start, start + self._problem.initial)
        )

    def _start(self, initial: list[Outcome]) -> None:
        alive = [outcome for outcome in initial if not outcome.failed]
        if not alive:
            return
        best = max(alive, key=self._reward)  # the first of equals
        self._place_D = self._place(best)

    def _queue_antithetic(self, place_D: FloatArray) -> None:
        sequence = np.random.SeedSequence(self._problem.seed, spawn_key=(STREAM, self._step))
        self._step += 1
        shape = (self._settings.directions, self._problem.dim)
        self._directions_KD = np.random.default_rng(sequence).standard_normal(shape)  # line 4
        for direction_D in self._directions_KD:
            offset_D = self._settings.step_size * direction_D
            # Partners side by side, so that they share a cohort where there is room.
            self._ledger.queue([self._vector(place_D + offset_D), self._vector(place_D - offset_D)])

    def _next_place(self, place_D: FloatArray, generation: list[Outcome]) -> FloatArray:
        settings = self._settings
        pairs = list(zip(generation[::2], generation[1::2], strict=True))
        alive = [k for k, pair in enumerate(pairs) if not any(side.failed for side in pair)]
        if not alive:
            return place_D
        rewards_K2 = np.array([[self._reward(side) for side in pairs[k]] for k in alive])
        best = settings.best or max(FEWEST_BEST, (settings.directions + 1) // 2)
        directions_KD = self._directions_KD[alive]
        if settings.realisable:
            ends = [[self._place(side) for side in pairs[k]] for k in alive]
            directions_KD = np.array([plus - minus for plus, minus in ends])
            directions_KD /= 2.0 * settings.step_size
        step_D = ascent(directions_KD, rewards_K2, best)
        limits = np.array([0.0, 1.0])
        if settings.bounds == "sigmoid":
            limits = _logit(np.array([SIGMOID_MARGIN, 1.0 - SIGMOID_MARGIN]))
        place_D = place_D + settings.learning_rate * step_D  # line 7
        return np.clip(place_D, limits[0], limits[1])

    def _place(self, outcome: Outcome) -> FloatArray:
        """Where in the coordinates of the search an outcome lies, or its realisable part."""
        vector = np.array(outcome.vector, dtype=np.float64)
        if self._settings.realisable and outcome.realisable is not None:
            vector = np.array(outcome.realisable, dtype=np.float64)
        if self._settings.bounds == "sigmoid":
            vector = _logit(np.clip(vector, SIGMOID_MARGIN, 1.0 - SIGMOID_MARGIN))
        return vector

    def _vector(self, place_D: FloatArray) -> FloatArray:
        if self._settings.bounds == "clip":
            return np.clip(place_D, 0.0, 1.0)
        return _sigmoid(place_D)

    def _reward(self, outcome: Outcome) -> float:
        """Quality less penalty; the cost that was measured plays no part."""
        vector = np.asarray(outcome.vector, dtype=np.float64)
        omega = penalty(vector, self._problem.use_dims, self._settings.diagonal_l2)
        return outcome.scores()[0] - omega
