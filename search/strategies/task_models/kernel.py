"""What Gaussian processes of the accuracies of tasks are made of, whoever fits them.

Legend: E entries of a vector or of P, T tasks.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from partitioning import IntArray

#: Kinds of entries, seen from a task: its own use, other entries that concern it, the uses of
#: others, and all other entries.
OWN_USE, OWN_OTHER, OTHERS_USE, REST = range(4)
#: Squared distances below this count as none; so roots have a slope everywhere.
CLOSE = 1e-12


def entry_kinds(
    concerns: Sequence[Collection[int]], use_dims: Collection[int], num_tasks: int
) -> IntArray:
    """What every entry is to every task.

    Args:
        concerns: For every entry the tasks that it is about, by position; E of them.
        use_dims: Positions of the entries of use.
        num_tasks: T.

    Returns:
        Shape (T, E): `OWN_USE`, `OWN_OTHER`, `OTHERS_USE` or `REST`.

    Example:
        >>> entry_kinds([(0,), (1,), (0, 1)], (0, 1), 2).tolist()
        [[0, 2, 1], [2, 0, 1]]
    """

    def kind(entry: int, task: int) -> int:
        if task in concerns[entry]:
            return OWN_USE if entry in use_dims else OWN_OTHER
        return OTHERS_USE if entry in use_dims else REST

    return np.array([[kind(e, t) for e in range(len(concerns))] for t in range(num_tasks)])


def matern(squared: Tensor) -> Tensor:
    """Matern correlations of smoothness 5/2 (Rasmussen and Williams 2006, eq. 4.17).

    Args:
        squared: Squared distances in units of the lengths, of any shape, in double precision.

    Returns:
        Correlations in (0, 1], of the same shape, differentiable where distances are none, too.

    Example:
        >>> matern(torch.tensor([0.0, 0.2], dtype=torch.float64)).numpy().round(6)
        array([1.      , 0.858385])
    """
    r = torch.sqrt(5.0 * squared.clamp(min=CLOSE))
    return (1.0 + r + r * r / 3.0) * torch.exp(-r)
