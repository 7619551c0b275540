"""Which outcomes are modelled where there are too many of them."""

from collections.abc import Sequence

import numpy as np

from search.candidates import best_first
from search.strategies.protocol import Outcome


def window(outcomes: Sequence[Outcome], size: int) -> list[Outcome]:
    """The best half and the newest of outcomes.

    The best by non-domination rank, within a rank by room on the front; the rest of the window is
    of the newest others.

    Args:
        outcomes: In the order of asking, none of them failed.
        size: How many to keep.

    Returns:
        At most size of them, in the order of asking.
    """
    if len(outcomes) <= size:
        return list(outcomes)
    scores_N2 = np.array([outcome.scores() for outcome in outcomes])
    best = best_first(scores_N2[:, 0], scores_N2[:, 1])[: size // 2]
    others = np.setdiff1d(np.arange(len(outcomes)), best)
    return [outcomes[i] for i in np.union1d(best, others[size // 2 - size :])]
