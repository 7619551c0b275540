"""Residual adapters: one network, in which every task has small convolutions of its own.

Rebuffi, Bilen and Vedaldi 2018, "Efficient parametrization of multi-domain deep neural networks":
beside each 3x3 convolution a 1x1 convolution of the task (a parallel adapter),

    y = f * x + a_task * x,

and norms of the task. Since f + a is again a 3x3 convolution, a task's network costs no
multiply-accumulates more, and is exported as a plain network.

Differs from the paper, which trains f for one large dataset, freezes it and then trains the
adapters of every task: here f and all adapters are trained together from scratch, as all methods
are.
"""

from trainers.methods.networks import Part
from trainers.methods.plan import Plan, Problem, all_together, undivided
from trainers.methods.single import NoSettings


def plan_residual_adapters(problem: Problem, settings: NoSettings) -> Plan:
    """`shared`, with adapters."""
    return all_together(Part(masks=undivided(problem), adapters=True))
