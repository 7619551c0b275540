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
and can be compared with the cost weights of the policy-gradient agent.

One weight leads to one point, and a sequence of them sweeps out a front: weights take turns of a
few steps each, over and over. A turn starts from whatever candidate told so far, from anyone's
turn, has the greatest reward under its weight, which for the very first is the best of the initial
batch. Starting every turn from where its own weight had come to is slower to begin with, and going
on from the place that the weight before had reached ends with a smaller hypervolume (docs/log.md).

With momentum $\mu$ the step is that of a heavy ball (Polyak 1964): to line 7 is added $\mu (x -
x')$, where x' is the place before the last step, so that what a bound has stopped does not push
on; a turn starts at rest.

Gradients per task (`per_task`) take each task's accuracy less the penalty of its own use for a
reward of its own, of which line 6 and 7 make a step of its own. It moves the entries that concern
the task: an entry of several tasks moves by the mean of theirs, which are all of about the same
length, so that a pair on which two tasks agree moves as far as the use of one. What the other
entries do to a task is left out of its estimate with their noise. Since every task's rewards are
divided by a deviation of its own, tasks that hardly differ count as much as those that do.

The penalty goes through the finite differences although its gradient is known: at an optimum of $r$
the noise of both parts then cancels, while the exact gradient would leave that of quality alone,
divided by a vanishing $\sigma_R$ (it was tried, and lost).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from partitioning import FloatArray
from partitioning.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    SOME,
    Unit,
    at_least,
    between,
    checked,
    each,
    interval,
    one_of,
)
from search.strategies.batches import Batches, next_index
from search.strategies.coordinates import random_vectors
from search.strategies.es.gradients import GradientTerm, ascent, terms_per_task
from search.strategies.protocol import Outcome, Problem
from search.strategies.streams import Stream, generator

BOUNDS = ("clip", "sigmoid")
FEWEST_BEST = 8
# The sigmoid's slope vanishes towards 0 and 1: its search keeps x this far from both, or a place
# that has once gone there would never be moved again.
SIGMOID_MARGIN = 0.02


@dataclass(frozen=True, kw_only=True)
@checked()
class EvolutionSettings:
    """Settings of the evolution strategies.

    Newell et al. (2019, A.2) take 16 directions, a step size and a learning rate of 0.1 and one
    weight at a time. Here, too, the two are 0.1; few directions and short turns are for a front
    from some hundred candidates.

    Attributes:
        directions: Number K of antithetic directions per step: a step costs 2K candidates.
        best: How many directions b count in the step. None means the better half, but no fewer than
            8 where K allows it: of few directions, all are needed.
        step_size: Size nu of the perturbations, as a share of an entry's range.
        learning_rate: Learning rate alpha. Steps are about twice as long as it, since rewards are
            divided by their standard deviation.
        diagonal_l2: Weights lambda of the pull towards using fewer channels: the quality given up
            for all uses at their upper bound rather than at their lower. Entries count as they
            stand in the vector, 0 and 1 being the space's bounds. Several take turns in the order
            given.
        turn: Steps of a turn, at least 2 of several weights: what the last step of a turn leads to
            is not scored.
        momentum: Weight mu of the last step in the next.
        per_task: Estimate a gradient per task, from its own accuracy, of the entries that concern
            it.
        bounds: How entries are kept in [0, 1]: clip, or sigmoid for the search of y with
            x = sigmoid(4 y - 2), which has slope 1 in the middle, so that the other settings keep
            their meaning.
        realisable: Start from the realisable part of the best vector, and take as directions what
            could be realised of the perturbations. Without it both are as proposed, and what had
            no effect is noise in the directions.

    Raises:
        ValueError: A value is outside its range.
    """

    directions: Annotated[int, at_least(1)] = 4
    best: Annotated[int | None, between(1, "directions")] = None
    step_size: Annotated[float, POSITIVE] = 0.1
    learning_rate: Annotated[float, POSITIVE] = 0.1
    diagonal_l2: Annotated[tuple[float, ...], SOME, each(NOT_NEGATIVE)] = (20.0, 5.0, 1.0, 0.2)
    turn: Annotated[int, at_least(1), Unit("steps")] = 4
    momentum: Annotated[float, interval("[0, 1)")] = 0.0
    per_task: bool = False
    bounds: Annotated[str, one_of(BOUNDS)] = "clip"
    realisable: bool = False

    def _check(self) -> None:
        if self.turn < min(2, len(self.diagonal_l2)):
            raise ValueError(
                "turn must be at least 2 where several weights of diagonal_l2 take turns, as what "
                f"the last step of a turn leads to is not scored; got {self.turn}"
            )


def _sigmoid(y: FloatArray) -> FloatArray:
    """Returns 1 / (1 + exp(-(4 y - 2))), in a form that does not overflow."""
    x: FloatArray = 0.5 + 0.5 * np.tanh(2.0 * y - 1.0)
    return x


def _logit(x: FloatArray) -> FloatArray:
    """Inverse of `_sigmoid`, for x in (0, 1)."""
    y: FloatArray = (np.log(x / (1.0 - x)) + 2.0) / 4.0
    return y


class Evolution:
    """Augmented random search from the best of an initial random batch, generation by generation.

    A candidate that fails takes its antithetic partner out of the estimate; where none is left the
    step is skipped and new directions are drawn from the same place. Where the whole initial batch
    fails, another one is drawn.

    Raises:
        ValueError: If the settings pull on use entries that the problem does not have, or ask for
            gradients per task where it is not known which tasks an entry concerns.
    """

    def __init__(self, problem: Problem, settings: EvolutionSettings) -> None:
        if any(settings.diagonal_l2) and not problem.use_dims:
            raise ValueError(
                f"diagonal_l2 must be 0 in a space without use entries, got {settings.diagonal_l2}"
            )
        self._problem = problem
        self._settings = settings
        self._whole = GradientTerm(None, problem.use_dims, np.ones(problem.dim))
        self._terms = terms_per_task(problem) if settings.per_task else [self._whole]
        self._known: list[Outcome] = []
        self._step = 0
        # Coordinates of the search: x itself, or y of x = sigmoid(4 y - 2). None before the start.
        self._place_D: FloatArray | None = None
        self._before_D = np.zeros(problem.dim)
        self._directions_KD = np.empty((0, problem.dim))

    @property
    def centre(self) -> FloatArray | None:
        """The vector x that is perturbed, shape (d,); None before the initial batch is told."""
        return None if self._place_D is None else self._vector(self._place_D)

    @property
    def weight(self) -> float:
        """The weight lambda whose turn it is."""
        weights = self._settings.diagonal_l2
        return weights[self._step // self._settings.turn % len(weights)]

    def check(self, outcome: Outcome) -> None:
        """Refuses an outcome that gradients per task cannot be made of.

        Raises:
            ValueError: If it says not of every task how accurate it is where it has to.
        """
        if not self._settings.per_task or outcome.failed:
            return
        shape = None if outcome.accuracy is None else np.shape(outcome.accuracy)
        if shape != (len(self._terms),):
            raise ValueError(
                f"candidate {outcome.index} must come with the accuracy of every task, shape (T,) "
                f"= ({len(self._terms)},), got {shape}: set per_task to false where it does not"
            )

    def learn(self, batch: list[Outcome]) -> list[FloatArray]:
        """Makes a step, begins a turn where one is due, and perturbs the new place."""
        self._known += [outcome for outcome in batch if not outcome.failed]
        if self._place_D is not None:
            self._move(self._place_D, batch)
            self._step += 1
        if not self._known:
            return random_vectors(self._problem, next_index(batch), self._problem.initial)
        settings = self._settings
        new_turn = len(settings.diagonal_l2) > 1 and self._step % settings.turn == 0
        if self._place_D is None or new_turn:
            weight = self.weight
            best = max(self._known, key=lambda known: self._whole.reward(known, weight))
            self._place_D = self._before_D = self._place(best)
        return self._antithetic(self._place_D)

    def _antithetic(self, place_D: FloatArray) -> list[FloatArray]:
        shape = (self._settings.directions, self._problem.dim)
        rng = generator(self._problem.seed, Stream.ES, self._step)
        self._directions_KD = rng.standard_normal(shape)  # line 4
        vectors = []
        for direction_D in self._directions_KD:
            offset_D = self._settings.step_size * direction_D
            # Partners side by side, so that they share a cohort where there is room.
            vectors += [self._vector(place_D + offset_D), self._vector(place_D - offset_D)]
        return vectors

    def _move(self, place_D: FloatArray, generation: list[Outcome]) -> None:
        settings = self._settings
        pairs = list(zip(generation[::2], generation[1::2], strict=True))
        alive = [k for k, pair in enumerate(pairs) if not any(side.failed for side in pair)]
        if not alive:
            return
        best = settings.best or max(FEWEST_BEST, (settings.directions + 1) // 2)
        directions_KD = self._directions_KD[alive]
        if settings.realisable:
            ends = [[self._place(side) for side in pairs[k]] for k in alive]
            directions_KD = np.array([plus - minus for plus, minus in ends])
            directions_KD /= 2.0 * settings.step_size
        step_D = np.zeros(len(place_D))
        for term in self._terms:
            rewards_K2 = np.array(
                [[term.reward(side, self.weight) for side in pairs[k]] for k in alive]
            )
            step_D += term.share_D * ascent(directions_KD, rewards_K2, best)
        limits = np.array([0.0, 1.0])
        if settings.bounds == "sigmoid":
            limits = _logit(np.array([SIGMOID_MARGIN, 1.0 - SIGMOID_MARGIN]))
        moved_D = place_D + settings.learning_rate * step_D  # line 7
        moved_D += settings.momentum * (place_D - self._before_D)
        self._place_D, self._before_D = np.clip(moved_D, limits[0], limits[1]), place_D

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


def evolution(problem: Problem, settings: EvolutionSettings) -> Batches[Evolution]:
    """Makes the strategy of `Evolution`.

    Raises:
        ValueError: See `Evolution`.
    """
    learner = Evolution(problem, settings)
    return Batches(problem, learner, check=learner.check)
