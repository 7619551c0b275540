"""Tasks that come one after another: earlier ones are taught by what the old network said.

Kim et al. 2019, section 3.3. The images of earlier tasks are gone. With those of the new task k
(eq. 6),

    min over W of  sum_{j<k} sum_l L_D(h^{l,j}(W); D_k) + sum_l L(h^{l,k}(W); D_k).

L_D is the cross-entropy between what the old network of task j said of the image, its highest
level, and what the new one says, both softened by a temperature of 2 (Hinton et al. 2015). With one
level, h = W, that is learning without forgetting (Li and Hoiem 2016; eq. 8).

The paper leaves open how norms go with old tasks: they take the statistics of the images that there
are, the new task's. Where they kept those of their own task's images, weights drifted away under
them (docs/log.md). A new task's norms begin with those of the task before it.
"""

from partitioning import Masks
from trainers.methods.dvn import DvnSettings, dvn_masks
from trainers.methods.nested_net import NestedNetSettings, nested_masks
from trainers.methods.plan import (
    Phase,
    Plan,
    Problem,
    one_after_another,
    rows_by_task,
    undivided,
)
from trainers.methods.single import NoSettings


def plan_dvn_sequential(problem: Problem, settings: DvnSettings) -> Plan:
    """Deep virtual networks."""
    return _remembering(dvn_masks(problem, settings))


def plan_lwf(problem: Problem, settings: NoSettings) -> Plan:
    """Learning without forgetting: all of the network for each task."""
    return _remembering(undivided(problem))


def plan_nested_sequential(problem: Problem, settings: NestedNetSettings) -> Plan:
    """NestedNet: task i has the first i units."""
    return _remembering(nested_masks(problem, settings))


def _remembering(masks: Masks) -> Plan:
    """A phase for each task, in which the earlier ones are distilled (eq. 6)."""
    rows = list(rows_by_task(masks).values())

    def phase(task: int, own: tuple[int, ...]) -> Phase:
        if not task:
            return Phase(part="all", rows=own)
        return Phase(
            part="all",
            rows=own,
            distilled=tuple(row for before in rows[:task] for row in before),
            inherits=dict.fromkeys(own, rows[task - 1][-1]),
        )

    return one_after_another(masks, phase)
