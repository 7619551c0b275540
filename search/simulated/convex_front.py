r"""The front of a concave quality and a linear cost over a simplex, from within and from without.

Where quality q is concave and cost c linear in p, the front is concave, and every point of it
maximises $q(p) - \lambda c(p)$ for some price $\lambda \ge 0$. For each of a range of prices that
maximum is found by the Frank-Wolfe algorithm with pairwise steps (Lacoste-Julien and Jaggi 2015,
algorithm 2), whose gap bounds how far it still is from the optimum. So both sides are certain:
points that are reached, and lines $q \le \lambda c + f(p) + gap$ that nothing can exceed.

Legend: N vertices, T effects, M prices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from partitioning import FloatArray
from search.candidates import ideal_area

#: Effects (T,) to the quality and its gradient (T,).
Quality = Callable[[FloatArray], tuple[float, FloatArray]]

GAP = 1e-5
ITERATIONS = 20_000
PRICES = np.concatenate([[0.0], np.geomspace(0.01, 30.0, 80)])
GRID = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class FrontBounds:
    """Two approximations of a front, between which the true one lies.

    Attributes:
        inner_M2: Points that can be reached (cost, quality), ascending in cost; so can all that
            lies between neighbours.
        outer_M2: Lines (slope, quality at cost 0), none of which the front exceeds.
    """

    inner_M2: FloatArray
    outer_M2: FloatArray

    def hypervolume(
        self, reference: tuple[float, float], cheapest: float = 0.0
    ) -> tuple[float, float]:
        """Hypervolumes of the inner and the outer front, as `search.candidates.hypervolume` has it.

        Args:
            reference: Quality and cost of the reference point.
            cheapest: Cost below which nothing is looked at, less than that of the reference point.
        """
        floor, end = reference
        cost_G = np.linspace(cheapest, end, GRID + 1)
        cost_M, quality_M = self.inner_M2.T
        inner = np.interp(cost_G[:-1], cost_M, quality_M, left=-np.inf)
        outer = (np.outer(cost_G[1:], self.outer_M2[:, 0]) + self.outer_M2[:, 1]).min(axis=1)
        width = (end - cheapest) / GRID / ideal_area(reference)
        # The inner one's left, the outer one's right end of every slice: both err to the safe side.
        return (
            float(np.maximum(inner - floor, 0).sum() * width),
            float(np.maximum(outer - floor, 0).sum() * width),
        )


def concave_front(effect_NT: FloatArray, cost_N: FloatArray, quality: Quality) -> FrontBounds:
    """The front over all mixtures p of N vertices, with effects and cost linear in p.

    Args:
        effect_NT: Effects of each vertex.
        cost_N: Cost of each vertex.
        quality: Concave in the effects.
    """
    inner, outer = [], []
    p_N = np.zeros(len(cost_N))
    p_N[np.argmax(cost_N)] = 1.0
    for price in PRICES:
        p_N, value, gap = _maximise(p_N, effect_NT, price * cost_N, quality)
        cost = float(p_N @ cost_N)
        inner.append((cost, value + price * cost))
        outer.append((price, value + gap))
    order = np.argsort([cost for cost, _ in inner], kind="stable")
    return FrontBounds(inner_M2=np.array(inner)[order], outer_M2=np.array(outer))


def _maximise(
    p_N: FloatArray, effect_NT: FloatArray, price_N: FloatArray, quality: Quality
) -> tuple[FloatArray, float, float]:
    """A mixture, its quality less its price, and how much more the best could have."""
    p_N = p_N.copy()
    for _ in range(ITERATIONS):
        effect_T = p_N @ effect_NT
        _, slope_T = quality(effect_T)
        gradient_N = effect_NT @ slope_T - price_N
        towards = int(np.argmax(gradient_N))
        gap = float(gradient_N[towards] - p_N @ gradient_N)
        if gap <= GAP:
            break
        away = int(np.argmin(np.where(p_N > 0, gradient_N, np.inf)))
        step_T = effect_NT[towards] - effect_NT[away]
        cost = price_N[towards] - price_N[away]
        share = _line_search(effect_T, step_T, float(cost), float(p_N[away]), quality)
        p_N[towards] += share
        p_N[away] = 0.0 if share == p_N[away] else p_N[away] - share
    effect_T = p_N @ effect_NT
    return p_N, quality(effect_T)[0] - float(p_N @ price_N), gap


def _line_search(
    effect_T: FloatArray, step_T: FloatArray, cost: float, most: float, quality: Quality
) -> float:
    """How far to go, at most `most`, by bisection of the slope."""

    def slope(share: float) -> float:
        return float(quality(effect_T + share * step_T)[1] @ step_T) - cost

    if slope(most) >= 0:
        return most
    low, high = 0.0, most
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low
