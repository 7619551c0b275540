r"""Gaussian processes of the accuracies of the tasks, with few hyperparameters each.

Legend: N observed points, M other points, E entries, T tasks, H hyperparameters.

How accurate task t is depends mostly on the entries that concern it, its own use u and its
overlaps o with the others, and a little on the others' uses z. Its prior covariance is

    $k(x, x') = s^2 m(u, u') (1 + v \, o \cdot o')^2 + r^2 m(x, x')$,

with m the Matern correlation of smoothness 5/2 (Rasmussen and Williams 2006, eq. 4.17): what is
shared acts about linearly, more or less so as the task uses more, and the second term explains the
rest by all of u, o and z. Uses enter by their square roots, since the first channels matter most.
Of every task there are seven hyperparameters: lengths of u, o and z, the weight v, the scales s and
r, and the noise. They maximise the logarithm of the marginal likelihood (eq. 5.8) plus that of a
log-normal prior, which keeps them sensible while there are but a few points.

All is in double precision.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from partitioning import FloatArray
from search.strategies.task_models.kernel import OTHERS_USE, OWN_OTHER, OWN_USE, matern

#: Medians of the hyperparameters' priors: three lengths, v, s, r and noise, of standardised scores.
MEDIANS = torch.tensor([0.5, 1.0, 2.0, 0.3, 1.0, 0.3, 0.1], dtype=torch.float64)
LEAST_NOISE = 1e-3
#: The square root's slope is infinite at 0.
OFFSET = 0.01
#: Deviations below this are rounding.
ALL_THE_SAME = 1e-9
#: Of the fit, on logarithms.
LEARNING_RATE = 0.1
#: Weight of the differences among slopes of the cost, against residuals.
SLOPES_ALIKE = 1e-4


class Views:
    """Points as each task sees them: own uses, own other entries, others' uses.

    Args:
        points_ME: Entries in [0, 1].
        kinds_TE: See `entry_kinds`.
    """

    def __init__(self, points_ME: Tensor, kinds_TE: Tensor) -> None:
        root_ME = torch.sqrt(points_ME + OFFSET)
        self.own_TME = root_ME * (kinds_TE == OWN_USE).double()[:, None]
        self.other_TME = points_ME * (kinds_TE == OWN_OTHER).double()[:, None]
        self.theirs_TME = root_ME * (kinds_TE == OTHERS_USE).double()[:, None]


def covariance(log_TH: Tensor, left: Views, right: Views) -> Tensor:
    """Prior covariances, shape (T, M, N), without noise."""
    own, other, theirs, weight, scale, rest, _ = torch.exp(log_TH).T[:, :, None, None].unbind()
    own_TMN = _squared(left.own_TME, right.own_TME) / own.square()
    dot_TMN = left.other_TME @ right.other_TME.mT
    other_TMN = _squared(left.other_TME, right.other_TME, dot_TMN) / other.square()
    theirs_TMN = _squared(left.theirs_TME, right.theirs_TME) / theirs.square()
    structured_TMN = scale.square() * matern(own_TMN) * (1.0 + weight * dot_TMN).square()
    return structured_TMN + rest.square() * matern(own_TMN + other_TMN + theirs_TMN)


def prior_variance(log_TH: Tensor, points: Views) -> Tensor:
    """The diagonal of `covariance` of points with themselves, shape (T, M)."""
    _, _, _, weight, scale, rest, _ = torch.exp(log_TH).T[:, :, None].unbind()
    dot_TM = points.other_TME.square().sum(dim=-1)
    return scale.square() * (1.0 + weight * dot_TM).square() + rest.square()


def _squared(left_TME: Tensor, right_TNE: Tensor, dot_TMN: Tensor | None = None) -> Tensor:
    dot_TMN = left_TME @ right_TNE.mT if dot_TMN is None else dot_TMN
    left_TM, right_TN = left_TME.square().sum(dim=-1), right_TNE.square().sum(dim=-1)
    return (left_TM[:, :, None] + right_TN[:, None] - 2.0 * dot_TMN).clamp(min=0.0)


def _factor(log_TH: Tensor, points: Views) -> Tensor:
    """Cholesky factors of the covariances of noisy scores, shape (T, N, N)."""
    covariance_TNN = covariance(log_TH, points, points)
    noise_T = torch.exp(log_TH[:, -1]) + LEAST_NOISE
    eye_NN = torch.eye(covariance_TNN.shape[-1], dtype=torch.float64)
    noisy_TNN = covariance_TNN + noise_T.square()[:, None, None] * eye_NN
    factor_TNN: Tensor = torch.linalg.cholesky(noisy_TNN)
    return factor_TNN


def log_posterior(log_TH: Tensor, points: Views, scores_TN: Tensor) -> Tensor:
    """Log marginal likelihood (eq. 5.8) plus log prior, up to a constant, shape (T,)."""
    factor_TNN = _factor(log_TH, points)
    white_TN1 = torch.linalg.solve_triangular(factor_TNN, scores_TN[..., None], upper=False)
    likelihood_T: Tensor = -0.5 * white_TN1.square().sum(dim=(1, 2))
    likelihood_T = likelihood_T - torch.log(factor_TNN.diagonal(dim1=1, dim2=2)).sum(dim=1)
    prior_T: Tensor = -0.5 * (log_TH - torch.log(MEDIANS)).square().sum(dim=1)
    return likelihood_T + prior_T


def prior_medians(num_tasks: int) -> Tensor:
    """Where fits begin: logarithms of the hyperparameters, shape (T, H)."""
    return torch.log(MEDIANS).repeat(num_tasks, 1)


def fit(
    start_TH: Tensor, kinds_TE: Tensor, points_NE: Tensor, scores_TN: Tensor, *, steps: int
) -> Tensor:
    """Maximises `log_posterior` of the scaled scores by some steps of Adam.

    Args:
        start_TH: Logarithms of the hyperparameters to begin with.
        kinds_TE: See `entry_kinds`.
        points_NE: Observed points, entries in [0, 1].
        scores_TN: Their scores.
        steps: At least 1.

    Returns:
        Logarithms of the hyperparameters, shape (T, H).
    """
    points, scaled_TN = Views(points_NE, kinds_TE), Scaling.of(scores_TN).scaled(scores_TN)
    log_TH = start_TH.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([log_TH], lr=LEARNING_RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(-log_posterior(log_TH, points, scaled_TN).sum())
        optimizer.step()
    return log_TH.detach()


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation of every task's scores, each of shape (T, 1)."""

    mean_T1: Tensor
    deviation_T1: Tensor

    @classmethod
    def of(cls, scores_TN: Tensor) -> Self:
        """That of scores; a task whose scores are all the same has a deviation of 1."""
        deviation_T1 = scores_TN.std(dim=1, correction=0, keepdim=True)
        deviation_T1 = torch.where(deviation_T1 > ALL_THE_SAME, deviation_T1, 1.0)
        return cls(scores_TN.mean(dim=1, keepdim=True), deviation_T1)

    def scaled(self, scores_TN: Tensor) -> Tensor:
        """Scores with a mean of 0 and a deviation of 1."""
        return (scores_TN - self.mean_T1) / self.deviation_T1


class TaskProcesses:
    """Posteriors of T tasks.

    Args:
        log_TH: Logarithms of the hyperparameters, of scaled scores.
        kinds_TE: See `entry_kinds`.
        points_NE: Observed points, entries in [0, 1].
        scores_TN: Their scores.
    """

    def __init__(
        self, log_TH: Tensor, kinds_TE: Tensor, points_NE: Tensor, scores_TN: Tensor
    ) -> None:
        self._log_TH, self._kinds_TE = log_TH, kinds_TE
        self._points = Views(points_NE, kinds_TE)
        self._scaling = Scaling.of(scores_TN)
        self._factor_TNN = _factor(log_TH, self._points)
        scaled_TN1 = self._scaling.scaled(scores_TN)[..., None]
        self._weights_TN1 = torch.cholesky_solve(scaled_TN1, self._factor_TNN)

    def mean(self, points_ME: Tensor) -> Tensor:
        """Posterior means (eq. 2.25), shape (T, M), differentiable in the points."""
        return self._mean(covariance(self._log_TH, self._views(points_ME), self._points))

    def predict(self, points_ME: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior means and standard deviations (eq. 2.25 and 2.26), each of shape (T, M)."""
        views = self._views(points_ME)
        covariance_TMN = covariance(self._log_TH, views, self._points)
        white_TNM = torch.linalg.solve_triangular(self._factor_TNN, covariance_TMN.mT, upper=False)
        variance_TM = prior_variance(self._log_TH, views) - white_TNM.square().sum(dim=1)
        deviation_TM = variance_TM.clamp(min=0.0).sqrt() * self._scaling.deviation_T1
        return self._mean(covariance_TMN), deviation_TM

    def _views(self, points_ME: Tensor) -> Views:
        return Views(points_ME, self._kinds_TE)

    def _mean(self, covariance_TMN: Tensor) -> Tensor:
        scaled_TM = (covariance_TMN @ self._weights_TN1)[..., 0]
        return scaled_TM * self._scaling.deviation_T1 + self._scaling.mean_T1


def linear_cost(points_NU: FloatArray, cost_N: FloatArray) -> FloatArray:
    """Least squares of costs on use entries: the cost at 0, then a slope per entry.

    Slopes are drawn ever so slightly towards their mean, which settles them while points are few.

    Args:
        points_NU: Use entries, shape (N, U).
        cost_N: Costs.

    Returns:
        Shape (1 + U,).

    Example:
        >>> points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> linear_cost(points, 0.1 + points @ [0.5, 0.25]).round(6).tolist()
        [0.1, 0.5, 0.25]
    """
    num, entries = points_NU.shape
    ridge = SLOPES_ALIKE * (np.eye(entries) - 1.0 / max(1, entries))
    design = np.block([[np.ones((num, 1)), points_NU], [np.zeros((entries, 1)), ridge]])
    return np.asarray(
        np.linalg.lstsq(design, np.concatenate([cost_N, np.zeros(entries)]), rcond=None)[0]
    )
