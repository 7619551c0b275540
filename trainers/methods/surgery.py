"""Gradient surgery: one network, whose tasks' gradients are made to agree before they are added.

Yu et al. 2020, "Gradient surgery for multi-task learning", algorithm 1 (PCGrad): from the gradient
g_i of a task is taken, for every other task j in a random order with g_i g_j < 0,

    g_i - (g_i g_j / |g_j|^2) g_j.

The way from the tasks' gradients to one is torchjd's (Quinton and Rey 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from partitioning.settings import checked, one_of
from trainers.methods.plan import Plan, Problem
from trainers.methods.single import NoSettings, plan_shared

#: Of `torchjd.aggregation`: those that need nothing but the gradients, and no other package.
AGGREGATORS = ("PCGrad", "AlignedMTL", "IMTLG", "MGDA", "GradVac")


@dataclass(frozen=True, kw_only=True)
@checked()
class SurgerySettings:
    """How gradients are combined.

    Attributes:
        aggregator: PCGrad (Yu et al. 2020), AlignedMTL (Senushkin et al. 2023), IMTLG (Liu et al.
            2021), MGDA (Desideri 2012) or GradVac (Wang et al. 2021).
    """

    aggregator: Annotated[str, one_of(AGGREGATORS)] = "PCGrad"


def plan_gradient_surgery(problem: Problem, settings: SurgerySettings) -> Plan:
    """`shared`, with the tasks' gradients of shared weights combined.

    Raises:
        ValueError: torchjd is not installed.
    """
    _aggregator(settings.aggregator)
    return replace(plan_shared(problem, NoSettings()), surgery=settings.aggregator)


def combined(aggregator: str, gradients: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """One gradient of shared weights from those of all tasks.

    Args:
        aggregator: One of `AGGREGATORS`.
        gradients: Of every task, by weight.
    """
    matrix_TN = torch.stack([torch.cat([g.flatten() for g in own]) for own in gradients])
    whole_N = _aggregator(aggregator)(matrix_TN)
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
