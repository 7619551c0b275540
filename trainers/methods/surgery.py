"""Gradient surgery: one network, whose tasks' gradients are made to agree before they are added.

Yu et al. 2020, "Gradient surgery for multi-task learning", algorithm 1 (PCGrad): from the gradient
g_i of a task is taken, for every other task j in a random order with g_i g_j < 0,

    g_i - (g_i g_j / |g_j|^2) g_j.

The way from the tasks' gradients to one is torchjd's (Quinton and Rey 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from partitioning.settings import checked, one_of
from trainers.methods.networks import Part
from trainers.methods.plan import Plan, Problem, all_together, undivided

#: Of `torchjd.aggregation`: those that need nothing but the gradients, and no other package. Given
#: T equal gradients g, PCGrad gives T g, as adding them up does, and the others g.
AGGREGATORS = ("PCGrad", "AlignedMTL", "IMTLG", "MGDA")


@dataclass(frozen=True, kw_only=True)
@checked()
class SurgerySettings:
    """How gradients are combined.

    Attributes:
        aggregator: PCGrad (Yu et al. 2020), AlignedMTL (Senushkin et al. 2023), IMTLG (Liu et al.
            2021) or MGDA (Desideri 2012). Those that average are multiplied by the number of tasks,
            so that steps are as long as where gradients are added up.
    """

    aggregator: Annotated[str, one_of(AGGREGATORS)] = "PCGrad"


def plan_gradient_surgery(problem: Problem, settings: SurgerySettings) -> Plan:
    """`shared`, with the tasks' gradients of shared weights combined.

    Raises:
        ValueError: torchjd is not installed.
    """
    _aggregator(settings.aggregator)
    return all_together(Part(masks=undivided(problem)), surgery=settings.aggregator)


def combined(aggregator: str, gradients: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """One gradient of shared weights from those of all T tasks.

    Args:
        aggregator: One of `AGGREGATORS`.
        gradients: Of every task, by weight.

    Returns:
        By weight; where all tasks' are equal, T times theirs.
    """
    matrix_TN = torch.stack([torch.cat([g.flatten() for g in own]) for own in gradients]).float()
    whole_N = _aggregator(aggregator)(matrix_TN)
    if aggregator != "PCGrad":
        whole_N = whole_N * len(gradients)
    parts = whole_N.split([g.numel() for g in gradients[0]])
    return [part.view_as(g) for part, g in zip(parts, gradients[0], strict=True)]


def _aggregator(name: str) -> Any:
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise ValueError(
            "gradient_surgery needs torchjd: pip install 'apportion[surgery]'"
        ) from error
    return getattr(aggregation, name)()
