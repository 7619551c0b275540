r"""Model-based search that knows which entries concern which task.

A Gaussian process per task predicts its accuracy (`processes.py`), and least squares the cost,
which is linear in the uses where it is the mean use. A batch is chosen in two steps:

1. For a range of prices $\lambda$, gradient ascent (Adam) of the predicted quality, the mean of the
   tasks' accuracies, less $\lambda$ times the predicted cost. Most ascents start from the best
   that earlier ones have led to at their price, the others from random places.
2. Of where they end, greedily those that add most to the hypervolume of the front so far. Quality
   is counted with a few of its standard deviations on top, so that what is unknown is tried; a
   choice counts as found from then on, so that a batch spreads along the front.

Where the vector is one sharing matrix, ascents move soft channels (`places.py`), so that masks
exist for what they propose.

Where it is not known which tasks an entry concerns, or how accurate every task is, one process
models quality over all entries.

The results of ascents depend on the last bits of linear algebra, so a search can be resumed only on
the kind of processor that it was begun on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from partitioning import FloatArray
from partitioning.settings import NOT_NEGATIVE, POSITIVE, Unit, at_least, checked, interval
from search.candidates import hypervolume, non_dominated
from search.strategies.batches import next_index
from search.strategies.coordinates import random_vectors
from search.strategies.ledger import SAME_VECTOR
from search.strategies.protocol import Outcome, Problem
from search.strategies.streams import Stream, generator
from search.strategies.task_models.kernel import entry_kinds
from search.strategies.task_models.places import places_of
from search.strategies.task_models.processes import TaskProcesses, fit, linear_cost, prior_medians
from search.strategies.window import window

#: Quality per cost: from where cost hardly matters to where hardly anything is worth it.
PRICE_RANGE = (0.01, 10.0)
#: Deviation of a start from the place it is taken from, so that no two ascents are the same.
START_STD = 0.05
#: The last step of an ascent is this much shorter than the first.
LAST_STEP = 0.1
#: Predicted costs that differ by less are equal.
SAME_COST = 1e-9


@dataclass(frozen=True, kw_only=True)
@checked()
class TaskModelsSettings:
    """Settings of the models of the tasks.

    Time per proposal grows with `searches` times `steps` times `window`, over `batch`.

    Attributes:
        batch: Candidates per batch.
        searches: Ascents per batch.
        steps: Steps of an ascent.
        learning_rate: Learning rate of ascents, as a share of an entry's range.
        random_starts: Share of the ascents that start from a random place.
        optimism: How many standard deviations are added to predicted quality.
        window: How many outcomes the models are of: the best half and the newest.
        fit_window: The same while hyperparameters are fitted.
        fit_steps: Steps of a fit. Fits go on from one another, each time that the number of
            outcomes has doubled.

    Raises:
        ValueError: A value is outside its range.
    """

    batch: Annotated[int, at_least(1), Unit("candidates")] = 8
    searches: Annotated[int, at_least("batch")] = 16
    steps: Annotated[int, at_least(1)] = 30
    learning_rate: Annotated[float, POSITIVE] = 0.05
    random_starts: Annotated[float, interval("[0, 1]")] = 0.25
    optimism: Annotated[float, NOT_NEGATIVE] = 0.5
    window: Annotated[int, at_least(2), Unit("outcomes")] = 200
    fit_window: Annotated[int, at_least(2), Unit("outcomes")] = 128
    fit_steps: Annotated[int, at_least(1)] = 40


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch add up sums in one order, whatever number of threads it may use elsewhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class TaskModels:
    """Batches from models of every task.

    Failed candidates teach nothing; while all have failed, random vectors are drawn.
    """

    def __init__(self, problem: Problem, settings: TaskModelsSettings) -> None:
        self._problem = problem
        self._settings = settings
        self._places = places_of(problem)
        self._num_tasks = 1 + max((t for tasks in problem.concerns for t in tasks), default=-1)
        self._number = 0
        self._known: list[Outcome] = []
        #: What the models see of known outcomes, by the index of the candidate.
        self._point_of: dict[int, FloatArray] = {}
        #: Places that ascents led to, by the index of the candidate.
        self._place_of: dict[int, FloatArray] = {}
        #: Logarithms of the hyperparameters, and the number of outcomes at their last fit.
        self._log_TH = torch.empty((0, 0))
        self._fitted = 0

    def learn(self, batch: list[Outcome]) -> list[FloatArray]:
        """Takes the batch into the models, and ascends what they predict."""
        alive = [outcome for outcome in batch if not outcome.failed]
        self._known += alive
        self._point_of |= {outcome.index: self._point(outcome) for outcome in alive}
        start, num = next_index(batch), self._settings.batch
        chosen: list[FloatArray] = []
        if self._known:
            rng = generator(self._problem.seed, Stream.TASK_MODELS, self._number)
            self._number += 1
            with one_thread():
                chosen = self._propose(start, rng)
        rest = random_vectors(self._problem, start + len(chosen), num - len(chosen))
        return chosen + rest

    def _propose(self, start: int, rng: np.random.Generator) -> list[FloatArray]:
        """At most a batch of vectors for the candidates from the index `start` on."""
        settings = self._settings
        model = self._model()
        use = list(self._problem.use_dims)
        points_ND = np.array(list(self._point_of.values()))
        cost_N = np.array([outcome.scores()[1] for outcome in self._known])
        base, *slopes = torch.from_numpy(linear_cost(points_ND[:, use], cost_N))
        slope_D = torch.zeros(self._problem.dim, dtype=torch.float64)
        slope_D[use] = torch.stack(slopes) if slopes else slope_D[use]

        price_M = self._prices(rng)
        start_M = np.array([self._start(price, rng) for price in price_M])
        place_M = self._ascend(start_M, price_M, model, slope_D)
        with torch.no_grad():
            point_MD = self._places.points(place_M)
            mean_TM, deviation_TM = model.predict(point_MD)
        # Of a mean of independent accuracies.
        deviation_M = deviation_TM.square().sum(dim=0).sqrt() / len(deviation_TM)
        hoped_M = (mean_TM.mean(dim=0) + settings.optimism * deviation_M).numpy()
        vectors = [self._places.vector(point_D) for point_D in point_MD.numpy()]
        chosen = self._choose(vectors, hoped_M, (base + point_MD @ slope_D).numpy())
        for index, i in enumerate(chosen, start=start):
            self._place_of[index] = place_M[i].numpy().copy()
        return [vectors[i] for i in chosen]

    def _point(self, outcome: Outcome) -> FloatArray:
        return self._places.point(np.asarray(outcome.vector, dtype=np.float64))

    def _model(self) -> TaskProcesses:
        """Posteriors of all tasks, or of quality; fitted anew where outcomes have doubled."""
        settings = self._settings
        shape = (self._num_tasks,)
        per_task = self._num_tasks > 0 and all(
            outcome.accuracy is not None
            and np.shape(outcome.accuracy) == shape
            and np.isfinite(outcome.accuracy).all()
            for outcome in self._known
        )
        # One process of quality is that of a single task, whom every entry concerns.
        concerns = self._problem.concerns if per_task else [(0,)] * self._problem.dim
        num_tasks = self._num_tasks if per_task else 1
        kinds_TD = torch.from_numpy(entry_kinds(concerns, self._problem.use_dims, num_tasks))

        def shown(size: int) -> tuple[Tensor, Tensor]:
            outcomes = window(self._known, size)
            points_ND = np.array([self._point_of[outcome.index] for outcome in outcomes])
            scores_NT = np.array([o.accuracy if per_task else o.scores()[:1] for o in outcomes])
            return torch.from_numpy(points_ND), torch.tensor(scores_NT.T, dtype=torch.float64)

        if len(self._log_TH) != len(kinds_TD):
            self._log_TH, self._fitted = prior_medians(len(kinds_TD)), 0
        if len(self._known) >= 2 * self._fitted:
            self._fitted = len(self._known)
            observed = shown(settings.fit_window)
            self._log_TH = fit(self._log_TH, kinds_TD, *observed, steps=settings.fit_steps)
        return TaskProcesses(self._log_TH, kinds_TD, *shown(settings.window))

    def _prices(self, rng: np.random.Generator) -> FloatArray:
        """One at random from each of as many equal parts of their range, on a log scale."""
        num = self._settings.searches
        low, high = np.log(PRICE_RANGE)
        return np.asarray(np.exp(low + (high - low) * (np.arange(num) + rng.random(num)) / num))

    def _start(self, price: float, rng: np.random.Generator) -> FloatArray:
        tried = [outcome for outcome in self._known if outcome.index in self._place_of]
        if not tried or rng.random() < self._settings.random_starts:
            return self._places.random(rng)

        def gain(outcome: Outcome) -> float:
            quality, cost = outcome.scores()
            return quality - price * cost

        place = self._place_of[max(tried, key=gain).index]
        return np.clip(place + START_STD * rng.standard_normal(place.shape), 0.0, 1.0)

    def _ascend(
        self, start_M: FloatArray, price_M: FloatArray, model: TaskProcesses, slope_D: Tensor
    ) -> Tensor:
        """Where M ascents of predicted quality less priced cost end, of the shape of `start_M`."""
        settings = self._settings
        place_M = torch.from_numpy(start_M).requires_grad_(True)
        price_MD = torch.from_numpy(price_M)[:, None] * slope_D
        optimizer = torch.optim.Adam([place_M], lr=settings.learning_rate)
        shorten = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, LAST_STEP, settings.steps)
        for _ in range(settings.steps):
            optimizer.zero_grad()
            point_MD = self._places.points(place_M)
            value = model.mean(point_MD).mean(dim=0).sum() - (price_MD * point_MD).sum()
            torch.autograd.backward(-value)
            optimizer.step()
            shorten.step()
            with torch.no_grad():
                place_M.clamp_(0.0, 1.0)
        return place_M.detach()

    def _choose(
        self, vectors: list[FloatArray], quality_M: FloatArray, cost_M: FloatArray
    ) -> list[int]:
        """Positions of at most a batch of vectors, none of them proposed before or twice."""
        scores_N2 = np.array([outcome.scores() for outcome in self._known])
        front_F2 = scores_N2[non_dominated(scores_N2[:, 0], scores_N2[:, 1])]
        quality, cost = front_F2[:, 0].tolist(), front_F2[:, 1].tolist()
        taken = [outcome.vector for outcome in self._known]
        chosen: list[int] = []
        left = list(range(len(vectors)))

        def gain(i: int) -> tuple[float, float]:
            """What is reached with a vector; where that is no more than without, its distance."""
            reached = hypervolume(
                [*quality, quality_M[i]], [*cost, cost_M[i]], self._problem.reference
            )
            rivals = np.array(quality)[np.array(cost) <= cost_M[i] + SAME_COST]
            return reached, float(quality_M[i] - rivals.max(initial=0.0))

        while left and len(chosen) < self._settings.batch:
            best = max(left, key=gain)
            left.remove(best)
            if np.abs(np.array(taken) - vectors[best]).max(axis=1).min() <= SAME_VECTOR:
                continue
            chosen.append(best)
            taken.append(vectors[best])
            quality.append(float(quality_M[best]))
            cost.append(float(cost_M[best]))
        return chosen
